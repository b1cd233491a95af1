package main

import (
	"errors"
	"fmt"
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

	unlock, err := daemon.LockFence(cfg.Cluster)
	if err != nil {
		return nil, err
	}
	defer unlock()
	ours := cfg.Document.Addrs()
	var f *fence.Fence
	var fenceErr error
	if cfg.Election != config.ElectVRRP { // which has no lease to guard
		f, fenceErr = fence.Open(fence.Options{Tag: daemon.FenceTag(cfg.Cluster)})
	}
	if errors.Is(fenceErr, fence.ErrUnavailable) && cfg.Fence == config.Lifetime {
		fenceErr = nil // it was never used here
	}
	if f == nil {
		// Without the fence the addresses are best gone all the same: nobody renews
		// their lease.
		found, err := daemon.RemoveLeftovers(k, ours)
		return describe(found), errors.Join(err, daemon.RemoveVirtualMACs(k, daemon.FenceTag(cfg.Cluster)), fenceErr)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	found, guarded, err := daemon.ClearFence(f, k, daemon.FenceTag(cfg.Cluster), ours...)
	removed = describe(found)
	if err != nil {
		return removed, err
	}
	if err := f.Detach(); err != nil {
		return removed, err
	}
	if len(guarded) > 0 {
		removed = append(removed, "the fence")
	}
	return removed, nil
}

func describe(found []kernel.Found) []string {
	var out []string
	for _, f := range found {
		out = append(out, fmt.Sprintf("%s from %s", f.Prefix, f.Link))
	}
	slices.Sort(out)
	return out
}
