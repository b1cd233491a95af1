package vrrpcompat

import (
	"slices"
	"strings"
	"testing"
)

// neighbourAs is a neighbour that agrees with v in everything but its priority of 100.
func neighbourAs(v Virtual, sum Checksum) Neighbour {
	return Neighbour{
		Interface: "eth0", Family: v.Family, VRID: v.VRID, From: highAddr, Dialect: SpeaksVRRP, Version: v.Version, Priority: 100,
		Interval: v.Interval, AuthType: v.Auth.Type, auth: v.Auth, Checksum: sum, Addresses: slices.Clone(v.Addresses), Adverts: 2,
	}
}

func TestDifferences(t *testing.T) {
	secret := virtual2()
	secret.Auth = Auth{AuthSimple, [8]byte{'a'}}
	both := virtual3()
	both.AlsoV2, both.Interval = true, 50
	v6 := Virtual{VRID: 7, Family: IPv6, Version: V3, Interval: 100, Addresses: addrs("fe80::7", "2001:db8::7")}
	type diff struct {
		field       Field
		here, there string
		breaks      bool
	}
	for _, c := range []struct {
		name string
		v    Virtual
		edit func(n *Neighbour)
		want []diff
	}{
		{"v3, none", virtual3(), func(*Neighbour) {}, nil},
		{"v2, none", virtual2(), func(*Neighbour) {}, nil},
		{"v2 with our password, none", secret, func(*Neighbour) {}, nil},
		{"v6, none", v6, func(n *Neighbour) {}, nil},
		{"other order, none", virtual3(), func(n *Neighbour) { slices.Reverse(n.Addresses) }, nil},
		{"other family, none", virtual3(), func(n *Neighbour) { n.Family = IPv6 }, nil},
		{"other virtual router, none", virtual3(), func(n *Neighbour) { n.VRID, n.Addresses = 8, addrs("192.0.2.99") }, nil},
		{"carp with another id, none", virtual3(), func(n *Neighbour) { n.VRID, n.Dialect = 8, SpeaksCARP }, nil},
		{"unreadable with another id, none", virtual3(), func(n *Neighbour) { n.VRID, n.Dialect = 8, Unreadable }, nil},
		{"v2 copy where both are sent, none", both, func(n *Neighbour) { n.Version, n.Interval = V2, 100 }, nil},
		{"carp", virtual3(), func(n *Neighbour) { n.Dialect = SpeaksCARP }, []diff{{FieldProtocol, "VRRP", "CARP", false}}},
		{"unreadable", virtual3(), func(n *Neighbour) { n.Dialect, n.Reject = Unreadable, Reject{ReasonHMACTrailer, 7, 40, 12} },
			[]diff{{FieldPacket, "a VRRP advert", "hmac-trailer", true}}},
		{"our address under another id", virtual3(), func(n *Neighbour) { n.VRID, n.Addresses = 8, addrs("192.0.2.11", "192.0.2.99") },
			[]diff{{FieldVRID, "7", "8", true}}},
		{"collision", virtual3(), func(n *Neighbour) { n.Addresses, n.Interval = addrs("192.0.2.98", "192.0.2.99"), 300 },
			[]diff{{FieldCollision, "192.0.2.10, 192.0.2.11", "192.0.2.98, 192.0.2.99", true}}},
		{"version", virtual3(), func(n *Neighbour) { n.Version = V2 }, []diff{{FieldVersion, "3", "2", true}}},
		{"auth type", secret, func(n *Neighbour) { n.AuthType, n.auth = AuthNone, Auth{} }, []diff{{FieldAuth, "simple password", "none", true}}},
		{"password", secret, func(n *Neighbour) { n.auth.Data[0] = 'b' }, []diff{{FieldAuth, "our password", "another password", true}}},
		{"v2 interval", virtual2(), func(n *Neighbour) { n.Interval = 200 }, []diff{{FieldInterval, "1s", "2s", true}}},
		{"v3 interval", virtual3(), func(n *Neighbour) { n.Interval = 50 }, []diff{{FieldInterval, "1s", "500ms", false}}},
		{"v2 copy with another interval", both, func(n *Neighbour) { n.Version, n.Interval = V2, 300 }, []diff{{FieldInterval, "1s", "3s", false}}},
		{"checksum", virtual3(), func(n *Neighbour) { n.Checksum = PseudoHeader }, []diff{{FieldChecksum, "plain", "pseudo-header", true}}},
		{"addresses", virtual3(), func(n *Neighbour) { n.Addresses = addrs("192.0.2.11", "192.0.2.12") },
			[]diff{{FieldAddresses, "192.0.2.10 only", "192.0.2.12 only", true}}},
		{"one address less", virtual3(), func(n *Neighbour) { n.Addresses = n.Addresses[:1] }, []diff{{FieldAddresses, "192.0.2.11 only", "nothing more", true}}},
		{"first address", v6, func(n *Neighbour) { slices.Reverse(n.Addresses) }, []diff{{FieldFirstAddress, "fe80::7", "2001:db8::7", false}}},
		{"priority", virtual3(), func(n *Neighbour) { n.Priority = 254 }, []diff{{FieldPriority, "254", "254", false}}},
		{"several", virtual2(), func(n *Neighbour) { n.Version, n.Priority, n.Checksum = V3, 254, Plain },
			[]diff{{FieldVersion, "2", "3", true}, {FieldPriority, "254", "254", false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := neighbourAs(c.v, Plain)
			c.edit(&n)
			var got []diff
			for _, d := range c.v.Differences(&n, 254, Plain) {
				got = append(got, diff{d.Field, d.Here, d.There, d.Breaks})
				if d.Advice == "" || !strings.HasPrefix(d.String(), d.Field.String()+": here "+d.Here+", there "+d.There+": ") {
					t.Errorf("it reads %q", d)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("differences\n %+v, want\n %+v", got, c.want)
			}
		})
	}
}

func TestFieldNames(t *testing.T) {
	seen := map[string]bool{}
	for f := Field(1); f < fieldEnd; f++ {
		if name := f.String(); name == "" || strings.Contains(name, "(") || seen[name] {
			t.Errorf("field %d has the name %q", f, name)
		}
		seen[f.String()] = true
	}
	if fieldEnd.String() != "field(12)" || Field(0).String() != "field(0)" {
		t.Errorf("unknown fields print %q and %q", fieldEnd, Field(0))
	}
}
