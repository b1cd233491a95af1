package fence

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/election"
)

// Set lets the addresses be answered for until the given instant and not from
// then on, now and after this process. An instant that has passed, such as 0,
// shuts the fence at once. One system call for all; the map holds 4,096 addresses.
// Only from the agent's goroutine, see Fence.
//
// It is not atomic. The error names the first address that was not written: those
// before it were, those after it were not. Whoever meant to open has to shut all of them then.
func (f *Fence) Set(addrs []netip.Addr, until election.Instant) error {
	keys, err := keysOf(addrs)
	if err != nil {
		return err
	}
	value := uint64(max(until, 0))
	done, err := f.each(keys,
		func(part []key) (int, error) {
			return f.deadlines.BatchUpdate(part, slices.Repeat([]uint64{value}, len(part)), nil)
		},
		func(k *key) error { return f.deadlines.Update(k, &value, ebpf.UpdateAny) })
	switch {
	case errors.Is(err, unix.E2BIG):
		return fmt.Errorf("set the fence for %s: the map is full, it holds %d addresses; "+
			"spread the groups over several clusters: %w", addrs[done], maxEntries, err)
	case err != nil:
		return fmt.Errorf("set the fence for %s to %s: %w", addrs[done], until, err)
	}
	return nil
}

// Delete forgets the addresses, which from then on pass: to be called only when
// they have been seen gone from this host. To forget one that is not there
// is no error. The error names the first address that was not forgotten; those
// after it were not either. Only from the agent's goroutine, see Fence.
func (f *Fence) Delete(addrs []netip.Addr) error {
	keys, err := keysOf(addrs)
	if err != nil {
		return err
	}
	for len(keys) > 0 {
		done, err := f.each(keys,
			func(part []key) (int, error) { return f.deadlines.BatchDelete(part, nil) },
			func(k *key) error { return f.deadlines.Delete(k) })
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, ebpf.ErrKeyNotExist):
			return fmt.Errorf("delete the fence's entry for %s: %w", addrs[done], err)
		}
		keys, addrs = keys[done+1:], addrs[done+1:] // the kernel stops at what is not there
	}
	return nil
}

// each writes all keys in one call or, where the kernel cannot, one by one. On an error done is the place of the
// first key that was not written.
func (f *Fence) each(keys []key, batch func([]key) (int, error), one func(*key) error) (done int, err error) {
	if len(keys) > 1 && !f.single {
		done, err = batch(keys)
		if !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
			if done == len(keys) {
				done = 0 // it failed before it counted
			}
			return done, err
		}
		f.single = true
	}
	for i := range keys {
		if err := one(&keys[i]); err != nil {
			return i, err
		}
	}
	return 0, nil
}

// A key is struct addr of fence.bpf.c.
type key [16]byte

// keysOf leaves zones out: the fence guards an address on all devices.
func keysOf(addrs []netip.Addr) ([]key, error) {
	keys := make([]key, 0, len(addrs))
	for _, a := range addrs {
		if !a.IsValid() {
			return nil, errors.New("fence: the zero netip.Addr is no address")
		}
		keys = append(keys, a.As16())
	}
	return keys, nil
}

// entriesOf reads the deadlines.
func entriesOf(m *ebpf.Map) (map[netip.Addr]election.Instant, error) {
	values, err := readMap(m)
	if err != nil {
		return nil, fmt.Errorf("read the fence's entries: %w", err)
	}
	entries := make(map[netip.Addr]election.Instant, len(values))
	for a, v := range values {
		entries[a] = election.Instant(v)
	}
	return entries, nil
}

// readMap reads a whole map, with one or two system calls where the kernel can. Entries
// that others add or remove meanwhile may be missed; that happens to none of ours while one goroutine writes.
func readMap(m *ebpf.Map) (map[netip.Addr]uint64, error) {
	values := map[netip.Addr]uint64{}
	keys, found := make([]key, maxEntries), make([]uint64, maxEntries)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, found, nil)
		if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
			return readSingly(m)
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // which is the end
			return nil, err
		}
		for i := range n {
			values[netip.AddrFrom16(keys[i]).Unmap()] = found[i]
		}
		if err != nil {
			return values, nil
		}
	}
}

func readSingly(m *ebpf.Map) (map[netip.Addr]uint64, error) {
	values := map[netip.Addr]uint64{}
	var k key
	var value uint64
	it := m.Iterate()
	for it.Next(&k, &value) {
		values[netip.AddrFrom16(k).Unmap()] = value
	}
	return values, it.Err()
}
