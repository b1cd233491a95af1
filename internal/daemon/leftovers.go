package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/quorate/quorate/vipctl/fence"
	"github.com/quorate/quorate/vipctl/kernel"
)

// RemoveLeftovers takes the addresses of the list that have a finite lifetime, as
// all of ours have, off this host, and returns those that were seen gone.
func RemoveLeftovers(k *kernel.Kernel, addrs []netip.Addr) (removed []kernel.Found, err error) {
	found, err := k.Leftovers(func(a netip.Addr) bool { return slices.Contains(addrs, a) })
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, f := range found {
		if err := k.RemoveAddress(f.Link, f.Prefix); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, f)
	}
	return removed, errors.Join(errs...)
}

// ClearFence shuts every entry of the fence, removes those addresses from the host,
// also the addresses of also, and the devices of virtual MAC addresses with the tag,
// and forgets the entries of what is gone. An
// address that stands there without a lifetime keeps its shut entry and is an
// error: somebody has put it there by hand, and the host would answer for it.
// Nobody else may be using the fence. guarded are the addresses that had entries.
func ClearFence(f *fence.Fence, k *kernel.Kernel, tag string, also ...netip.Addr) (removed []kernel.Found, guarded []netip.Addr, err error) {
	entries, err := f.Entries()
	if err != nil {
		return nil, nil, err
	}
	for a := range entries {
		guarded = append(guarded, a)
		if err := f.Set(a, 0); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(guarded, netip.Addr.Compare)
	removed, err = RemoveLeftovers(k, slices.Concat(guarded, also))
	if err != nil {
		return removed, guarded, fmt.Errorf("%w; the fence stays shut for what is left", err)
	}
	if err := RemoveVirtualMACs(k, tag); err != nil {
		return removed, guarded, fmt.Errorf("%w; the fence stays shut for what is left", err)
	}
	left, err := k.Permanent(func(a netip.Addr) bool { return slices.Contains(guarded, a) })
	if err != nil {
		return removed, guarded, err
	}
	var errs []error
	for _, a := range guarded {
		i := slices.IndexFunc(left, func(l kernel.Found) bool { return l.Prefix.Addr() == a })
		if i >= 0 {
			errs = append(errs, fmt.Errorf("%s stands on %s without a lifetime, and a fence that an earlier life of the daemon left guards it: "+
				"somebody has put it there by hand; the fence stays shut until it is removed: ip addr del %s dev %s",
				a, left[i].Link, left[i].Prefix, left[i].Link))
			continue
		}
		errs = append(errs, f.Delete(a))
	}
	return removed, guarded, errors.Join(errs...)
}

// dropFence removes the fence that an earlier life with another configuration left:
// its entries would never be renewed.
func (n *node) dropFence() error {
	f, err := fence.Open(fence.Options{Tag: FenceTag(n.cfg.Cluster)})
	if err != nil {
		if !errors.Is(err, fence.ErrUnavailable) { // if it is, then there is none
			n.log.Warn("cannot look for a BPF fence of an earlier life", "error", err)
		}
		return nil
	}
	_, _, err = ClearFence(f, n.kernel, FenceTag(n.cfg.Cluster))
	if err == nil {
		err = f.Detach()
	}
	return errors.Join(err, f.Close())
}

// LockFence takes the right to change the cluster's fence and addresses in this network
// namespace, until the returned function is called or the process ends. The lock on
// data_dir is not enough: a second daemon with another data_dir would clear the
// first one's entries and take its programs off, and the first would go on without a
// fence. The lock is a socket in the abstract namespace, which the kernel keeps for
// each network namespace and takes back from a process that dies.
func LockFence(cluster string) (unlock func(), err error) {
	l, err := net.Listen("unix", "@quorate-fence-"+FenceTag(cluster))
	of := fmt.Sprintf("of cluster %q", cluster)
	if cluster == "" {
		of = "without a cluster's name"
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("another quorate process %s runs in this network namespace, and the addresses and the fence are its: "+
			"stop that one first, or give this one another cluster or a network namespace of its own", of)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the fence %s: %w", of, err)
	}
	return func() { _ = l.Close() }, nil
}
