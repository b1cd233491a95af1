package doctor

import (
	"slices"
	"strings"
)

// lan judges what others on the LAN do.
func (j *judge) lan() {
	own := map[string]bool{}
	for _, f := range j.facts {
		for _, d := range f.Devices {
			own[d.MAC] = true
		}
		for _, mac := range f.Host.MACs {
			own[mac] = true
		}
	}
	type foreign struct{ address, mac string }
	said := map[foreign]bool{}
	for _, f := range j.facts {
		for _, d := range f.Devices {
			if j.in.Daemon && d.Index != 0 && len(d.Serves) > 0 {
				j.look("duplicate-address")
			}
		}
		for _, c := range f.Claims {
			if key := (foreign{c.Address, c.MAC}); !own[c.MAC] && !virtualMAC(c.MAC) && !said[key] {
				said[key] = true
				j.claimed(f, c)
			}
		}
		for _, r := range f.Rivals {
			j.rival(f, r)
		}
		if j.in.Daemon && f.Role != "witness" && len(f.Devices) > 0 {
			j.look("vrid-collision")
		}
	}
}

// claimed says who answers for an address. It may be a node that did not tell what
// hardware addresses it has, if there is one.
func (j *judge) claimed(f *Facts, c Claim) {
	if i := slices.IndexFunc(j.in.Answers, func(a Answer) bool { return a.Facts == nil }); i >= 0 {
		j.find(Warning, "duplicate-address", f.Name, "", c.Device, "%s answers for %s: %s, which did not answer the doctor, or a host that is none of the cluster",
			c.MAC, c.Address, j.in.Answers[i].Name)
		return
	}
	j.find(Broken, "duplicate-address", f.Name, "", c.Device, "%s, which is no device of this cluster, answers for %s", c.MAC, c.Address)
}

// virtualMAC reports whether a hardware address is a virtual router's (RFC 9568, section
// 7.3): it is the group's own where vmac is set, and what another router does with it is
// for vrid-collision to say.
func virtualMAC(mac string) bool {
	return strings.HasPrefix(mac, "00:00:5e:00:01:") || strings.HasPrefix(mac, "00:00:5e:00:02:")
}

func (j *judge) rival(f *Facts, r Rival) {
	switch {
	case r.Dialect == "carp":
		severity := Note
		if r.VMAC {
			severity = Broken
		}
		j.find(severity, "vrid-collision", f.Name, "", r.Device, "%s speaks CARP with the id %d of %s, and so uses its virtual MAC address", r.From, r.VRID, r.Group)
	case len(r.Addresses) > 0 && !slices.ContainsFunc(r.Addresses, func(a string) bool { return slices.Contains(r.Ours, a) }):
		j.find(Broken, "vrid-collision", f.Name, "", r.Device, "%s speaks VRRP with the id %d of %s for other addresses: %s", r.From, r.VRID, r.Group, list(r.Addresses))
	case len(r.Differs) > 0:
		j.find(Broken, "vrrp-differs", f.Name, "", r.Device, "%s, of the same virtual router %d as %s: %s", r.From, r.VRID, r.Group, strings.Join(r.Differs, "; "))
	case r.Speaking:
		j.find(Note, "vrrp-differs", f.Name, "", r.Device, "%s of the same virtual router %d as %s is Active", r.From, r.VRID, r.Group)
	}
}
