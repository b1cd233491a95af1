package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/daemon"
	"github.com/quorate/quorate/vipctl/fence"
	"github.com/quorate/quorate/vipctl/kernel"
)

// removeLeft takes off this host what a dead daemon left: first its fence is shut,
// then the addresses go, and only what is seen gone is forgotten by the fence.
// Addresses without a lifetime are the host's own and stay.
func removeLeft(cfg *config.Config) (removed []string, err error) {
	k, err := kernel.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()

	ours := map[netip.Addr]bool{}
	for _, g := range cfg.Document.Groups {
		for _, p := range g.Addresses {
			ours[p.Addr()] = true
		}
	}
	f, fenceErr := fence.Open(fence.Options{Tag: daemon.FenceTag(cfg.Cluster)})
	if errors.Is(fenceErr, fence.ErrUnavailable) && cfg.Fence == config.Lifetime {
		fenceErr = nil // it was never used here
	}
	if f == nil {
		// Without the fence the addresses are best gone all the same: nobody renews
		// their lease.
		removed, err = removeAddresses(k, ours)
		return removed, errors.Join(err, fenceErr)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	entries, err := shut(f)
	if err != nil {
		return nil, err
	}
	for _, a := range entries {
		ours[a] = true
	}
	if removed, err = removeAddresses(k, ours); err != nil {
		return removed, fmt.Errorf("%w; the fence stays shut for what is left", err)
	}
	for _, a := range entries {
		if err := f.Delete(a); err != nil {
			return removed, err
		}
	}
	if err := f.Detach(); err != nil {
		return removed, err
	}
	if len(entries) > 0 {
		removed = append(removed, "the fence")
	}
	return removed, nil
}

// shut shuts the fence for all addresses that it guards, and returns them.
func shut(f *fence.Fence) ([]netip.Addr, error) {
	entries, err := f.Entries()
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for a := range entries {
		if err := f.Set(a, 0); err != nil {
			return nil, err
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// removeAddresses removes those of the addresses that have a lifetime, and returns
// them when all are seen gone.
func removeAddresses(k *kernel.Kernel, ours map[netip.Addr]bool) ([]string, error) {
	found, err := k.Leftovers(func(a netip.Addr) bool { return ours[a] })
	if err != nil {
		return nil, err
	}
	var removed []string
	var errs []error
	for _, l := range found {
		if err := k.RemoveAddress(l.Link, l.Prefix); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, fmt.Sprintf("%s from %s", l.Prefix, l.Link))
	}
	slices.Sort(removed)
	return removed, errors.Join(errs...)
}
