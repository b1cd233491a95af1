package host

import (
	"net/netip"
	"slices"

	"github.com/quorate/quorate/fsm"
)

// noDevice stands for the device of an address for which there is none.
const noDevice = "any device"

// Uses are the devices of a document's groups on this host. linkFor finds the device of
// an address for which none is written.
func Uses(doc fsm.Document, linkFor func(netip.Addr) (string, error)) []Use {
	var out []Use
	for _, g := range doc.Groups {
		for _, addr := range g.Addrs() {
			name := deviceOf(g, addr, linkFor)
			i := slices.IndexFunc(out, func(u Use) bool { return u.Device == name })
			if i < 0 {
				i = len(out)
				out = append(out, Use{Device: name})
			}
			u := &out[i]
			u.Serves = append(u.Serves, addr)
			u.VMAC = u.VMAC || g.VMAC
			if g.VRRP.ID != 0 && len(g.VRRP.Unicast) == 0 {
				u.Adverts4, u.Adverts6 = u.Adverts4 || addr.Is4(), u.Adverts6 || addr.Is6()
			}
		}
	}
	return out
}

func deviceOf(g fsm.Group, addr netip.Addr, linkFor func(netip.Addr) (string, error)) string {
	if name := g.Specs[addr].Interface; name != "" {
		return name
	}
	if g.Interface != "" {
		return g.Interface
	}
	if name, err := linkFor(addr); err == nil {
		return name
	}
	return noDevice
}
