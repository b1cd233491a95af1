package vrrpcompat

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Field is in what a neighbour is not as this node. String gives a kebab-case name that never changes. Zero is invalid.
type Field uint8

const (
	_ Field = iota
	// FieldProtocol: CARP with our VRID, and so with our virtual MAC address.
	FieldProtocol
	// FieldPacket: its packets cannot be decoded.
	FieldPacket
	// FieldVRID: another VRID, with some of our addresses.
	FieldVRID
	// FieldCollision: our VRID, and none of our addresses: another virtual router.
	FieldCollision
	// FieldVersion: the other version.
	FieldVersion
	// FieldAuth: other authentication, in version 2.
	FieldAuth
	// FieldInterval: another advertisement interval.
	FieldInterval
	// FieldChecksum: another form of checksum, in version 3 over IPv4.
	FieldChecksum
	// FieldAddresses: some of our addresses are missing, or it has others besides.
	FieldAddresses
	// FieldFirstAddress: its first IPv6 address is not link-local (RFC 9568, section 5.2.9).
	FieldFirstAddress
	// FieldPriority: our own priority, so that addresses decide.
	FieldPriority

	fieldEnd
)

var fieldNames = [fieldEnd]string{
	FieldProtocol:     "protocol",
	FieldPacket:       "packet",
	FieldVRID:         "vrid",
	FieldCollision:    "vrid-collision",
	FieldVersion:      "version",
	FieldAuth:         "auth",
	FieldInterval:     "interval",
	FieldChecksum:     "checksum",
	FieldAddresses:    "addresses",
	FieldFirstAddress: "first-address",
	FieldPriority:     "priority",
}

// String returns the name, such as "vrid-collision".
func (f Field) String() string {
	if f == 0 || f >= fieldEnd {
		return fmt.Sprintf("field(%d)", uint8(f))
	}
	return fieldNames[f]
}

// A Difference is one thing in which a neighbour is not as this node.
type Difference struct {
	Field Field
	// Here and There are what we have and what it has. They never hold a password.
	Here, There string
	// Breaks says that one of the two refuses the other's adverts for it, so that both become Active.
	Breaks bool
	// Advice says what comes of it, and what to do.
	Advice string
}

// String returns the difference as one line.
func (d Difference) String() string {
	return fmt.Sprintf("%v: here %s, there %s: %s", d.Field, d.Here, d.There, d.Advice)
}

// Differences returns what about a neighbour on the same interface and of the same family does not go with the virtual
// router, whose adverts carry the priority and the form of checksum. Nil: nothing. A neighbour with another VRID differs only if it has one of our addresses.
func (v *Virtual) Differences(n *Neighbour, p Priority, sum Checksum) []Difference {
	switch {
	case n.Family != v.Family:
		return nil
	case n.Dialect == SpeaksVRRP && n.VRID != v.VRID:
		return v.otherVRID(n)
	case n.VRID != v.VRID:
		return nil
	case n.Dialect == SpeaksCARP:
		return []Difference{{FieldProtocol, "VRRP", "CARP", false,
			"both use one virtual MAC address and do not understand each other: give one of them another id"}}
	case n.Dialect == Unreadable:
		return []Difference{{FieldPacket, "a VRRP advert", n.Reject.Reason.String(), true, n.Reject.Error()}}
	}
	if same, _ := compareSets(n.Addresses, v.Addresses); same == 0 {
		return []Difference{{FieldCollision, list(v.Addresses), list(n.Addresses), true,
			"another virtual router uses the VRID: give one of the two another"}}
	}
	var out []Difference
	for _, d := range []Difference{v.diffVersion(n), v.diffAuth(n), v.diffInterval(n), v.diffChecksum(n, sum), v.diffAddresses(n), v.diffFirst(n), v.diffPriority(n, p)} {
		if d.Field != 0 {
			out = append(out, d)
		}
	}
	return out
}

func (v *Virtual) otherVRID(n *Neighbour) []Difference {
	if same, _ := compareSets(n.Addresses, v.Addresses); same == 0 {
		return nil
	}
	return []Difference{{FieldVRID, fmt.Sprint(v.VRID), fmt.Sprint(n.VRID), true,
		"it answers for some of our addresses and does not hear us: write the same id in both files, or take the addresses out of one"}}
}

// Each of the following returns the zero Difference where there is none.

func (v *Virtual) diffVersion(n *Neighbour) (d Difference) {
	if n.Version == v.Version || v.AlsoV2 && n.Version == V2 {
		return d
	}
	return Difference{FieldVersion, v.Version.String(), n.Version.String(), true, "write the same version in both files"}
}

func (v *Virtual) diffAuth(n *Neighbour) (d Difference) {
	switch {
	case n.Version != V2 || n.auth == v.Auth:
		return d
	case n.AuthType != v.Auth.Type:
		return Difference{FieldAuth, v.Auth.String(), n.AuthType.String(), true, "write the same in both files"}
	}
	return Difference{FieldAuth, "our password", "another password", true, "write the same in both files"}
}

func (v *Virtual) diffInterval(n *Neighbour) (d Difference) {
	ours := v.Advert(n.Version, Default).Interval
	switch {
	case n.Interval == ours:
		return d
	case n.Version == V2 && v.Version == V2:
		return Difference{FieldInterval, ours.Duration().String(), n.Interval.Duration().String(), true, "version 2 wants the same everywhere"}
	}
	return Difference{FieldInterval, ours.Duration().String(), n.Interval.Duration().String(), false,
		"a backup learns it from who is Active, and so waits for longer or less long after a change"}
}

func (v *Virtual) diffChecksum(n *Neighbour, sum Checksum) (d Difference) {
	if n.Version != V3 || n.Family != IPv4 || n.Checksum == sum || sum == 0 {
		return d
	}
	return Difference{FieldChecksum, sum.String(), n.Checksum.String(), true,
		"keepalived and FRR refuse what is not in their form: write checksum: auto here, or v3_checksum_as_v2 there"}
}

func (v *Virtual) diffAddresses(n *Neighbour) (d Difference) {
	if _, all := compareSets(n.Addresses, v.Addresses); all {
		return d
	}
	return Difference{FieldAddresses, only(without(v.Addresses, n.Addresses)), only(without(n.Addresses, v.Addresses)), true,
		"version 2, and keepalived before 2.3.3 in either, refuse another list: write the same in both files"}
}

func (v *Virtual) diffFirst(n *Neighbour) (d Difference) {
	if n.Family != IPv6 || n.Addresses[0].IsLinkLocalUnicast() || !v.Addresses[0].IsLinkLocalUnicast() {
		return d
	}
	return Difference{FieldFirstAddress, v.Addresses[0].String(), n.Addresses[0].String(), false,
		"the first should be link-local (RFC 9568, section 5.2.9); some routers insist"}
}

func (v *Virtual) diffPriority(n *Neighbour, p Priority) (d Difference) {
	if n.Priority != p {
		return d
	}
	return Difference{FieldPriority, fmt.Sprint(p), fmt.Sprint(n.Priority), false,
		"the higher source address decides who wins: give one of the two another priority"}
}

// only describes the addresses that one side alone has.
func only(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "nothing more"
	}
	return list(addrs) + " only"
}

// without returns the addresses of a that are not in b.
func without(a, b []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(a), func(x netip.Addr) bool { return slices.Contains(b, x) })
}

// list writes addresses for people.
func list(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "none"
	}
	text := make([]string, len(addrs))
	for i, a := range addrs {
		text[i] = a.String()
	}
	return strings.Join(text, ", ")
}
