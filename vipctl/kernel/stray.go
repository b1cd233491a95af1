package kernel

import (
	"errors"
	"net/netip"
)

// Strays returns the addresses among these that are ours (see Leftovers) and stand
// somewhere else than held says, or are not in it at all.
func (v *View) Strays(among []netip.Addr, held []Address) ([]Found, error) {
	stray, err := v.strays(among, held)
	if err != nil || len(stray) == 0 {
		return nil, err
	}
	links, err := v.k.links()
	if err != nil {
		return nil, err
	}
	var found []Found
	for _, a := range stray {
		if l, ok := links[a.index]; ok {
			found = append(found, Found{l.Name, a.prefix, a.valid})
		}
	}
	return found, nil
}

func (v *View) strays(among []netip.Addr, held []Address) (out []address, err error) {
	v.k.addrs.Lock()
	defer v.k.addrs.Unlock()
	type spot struct {
		index int
		addr  netip.Addr
	}
	at := make(map[spot]bool, len(held))
	for _, a := range held {
		d, err := v.device(a.Link)
		if errors.Is(err, ErrNoLink) {
			continue
		}
		if err != nil {
			return nil, err
		}
		at[spot{d.Index, a.Prefix.Addr()}] = true
	}
	for _, addr := range among {
		for _, i := range v.of(addr) {
			if a := v.addresses[i]; v.ours(a) && !at[spot{a.index, addr}] {
				out = append(out, a)
			}
		}
	}
	return out, nil
}
