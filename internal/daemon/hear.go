package daemon

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/doctor"
	"github.com/quorate/quorate/vrrpcompat"
	"github.com/quorate/quorate/vrrpcompat/wire"
)

// accepted is the result of an advert that may be acted on.
const accepted = "accepted"

// A tally counts the packets with one result.
type tally struct {
	count uint64
	last  hearing
}

// A hearing is one packet and what came of it.
type hearing struct {
	result string
	err    error // nil: accepted
	quiet  bool  // nothing is wrong, so the log is not told
	key    routerKey
	from   netip.Addr
	mac    net.HardwareAddr
	at     vrrpcompat.Instant

	group  string // of the virtual router that it is for; empty: none of ours, or refused
	of     string // the same, also if it is refused
	advert vrrpcompat.Advert
	relay  bool // tell the agent
	lesson vrrpcompat.Lesson
	form   vrrpcompat.Checksum
}

// hear takes one packet. It is called by one goroutine for each device and family, and
// must keep up with floods: nothing in it waits, and what is said is said seldom.
func (s *speaker) hear(p *wire.Packet) {
	if doctor.IsProtocolTest(p.Payload) {
		return // it says nothing about any router
	}
	h := s.read(p)
	if s.cfg.Overheard != nil && h.of != "" && h.advert.VRID != 0 {
		s.cfg.Overheard(h.of, h.key.port, h.from, h.advert)
	}
	if h.relay {
		s.cfg.Heard(h.group, p.Device, h.from, h.advert)
	}
	s.report(h)
}

// read notes the packet and says what came of it.
func (s *speaker) read(p *wire.Packet) hearing {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := hearing{key: routerKey{port{p.Device, p.Family}, p.VRID()}, from: p.Source, mac: p.MAC, at: vrrpcompat.Instant(p.Arrival)}
	router := s.routers[h.key]
	s.judge(p, router, &h)
	s.tally(h)
	s.tallyHeard(h, router)
	if router != nil {
		h.of = router.group
	}
	if h.err != nil || router == nil {
		return h
	}
	h.group = router.group
	s.learn(router, &h)
	if router.relay.pass(h.at, h.from, h.advert) {
		h.relay = true
		h.advert.Addresses = slices.Clone(h.advert.Addresses) // those are the scratch
	}
	return h
}

// judge decodes the packet, compares it with the virtual router that it is for, if that
// is one of ours, and has Listening take note.
func (s *speaker) judge(p *wire.Packet, router *served, h *hearing) {
	var peers []wire.Peer
	if router != nil {
		peers = router.peers
	}
	meta, why := p.Admit(peers)
	if why != 0 {
		h.result, h.err, h.quiet = why.String(), errors.New(whyNot[why]), why == wire.ReasonOwn
		s.noteRefused(p, why)
		return
	}
	origin := originOf(p)
	a, sum, err := vrrpcompat.Decode(p.Payload, meta, s.scratch)
	if reject, ok := errors.AsType[*vrrpcompat.Reject](err); ok {
		s.listening.Undecoded(h.at, origin, reject, p.Payload)
		h.result, h.err = reject.Reason.String(), reject
		return
	}
	var reject *vrrpcompat.Reject
	if router == nil {
		reject = &vrrpcompat.Reject{Reason: vrrpcompat.ReasonVRIDUnknown, VRID: a.VRID, Got: int(a.VRID)}
	} else {
		reject = router.virtual.Refuse(a, p.Source, s.own(h.key.port, router, p.Source))
	}
	s.listening.Heard(h.at, origin, a, sum, reject)
	h.result, h.advert, h.form = accepted, a, sum
	if reject != nil {
		h.result, h.err, h.quiet = reject.Reason.String(), reject, router == nil
	}
}

// noteRefused has Listening know the routers whose packets were refused for how they came,
// so that a person who looks for them finds them.
func (s *speaker) noteRefused(p *wire.Packet, why wire.Reason) {
	reject := &vrrpcompat.Reject{VRID: p.VRID()}
	switch why {
	case wire.ReasonAH:
		reject.Reason, reject.Got = vrrpcompat.ReasonAuthType, int(vrrpcompat.AuthAH)
	case wire.ReasonUnicast, wire.ReasonNotPeer:
		reject.Reason = vrrpcompat.ReasonNotMulticast
	default:
		return
	}
	a, sum, err := vrrpcompat.Decode(p.Payload, p.Meta(vrrpcompat.Hops{Min: 1, Max: vrrpcompat.HopLimit}), s.scratch)
	if err == nil {
		s.listening.Heard(vrrpcompat.Instant(p.Arrival), originOf(p), a, sum, reject)
	}
}

func originOf(p *wire.Packet) vrrpcompat.Origin {
	return vrrpcompat.Origin{Interface: p.Device, From: p.Source, MAC: p.MAC}
}

// whyNot says what is wrong with a packet by what is outside the VRRP message.
var whyNot = map[wire.Reason]string{
	wire.ReasonIPHeader:    "its IP header is damaged",
	wire.ReasonFragment:    "it is a fragment; no router fragments adverts",
	wire.ReasonOversize:    "it is longer than any advert",
	wire.ReasonDestination: "it was sent neither to the VRRP group nor to this host",
	wire.ReasonOwn:         "the network sent our own packet back",
	wire.ReasonSpoofed:     "it bears an address of this host and the hardware address of another: two hosts have one address, or somebody pretends",
	wire.ReasonAH:          "it is behind an IPsec authentication header, which is not spoken; take auth_type AH out of the sender's file",
	wire.ReasonMulticast:   "it was sent by multicast, and the virtual router has unicast peers: write unicast in both files, or in none",
	wire.ReasonUnicast:     "it was sent to this host alone, and the virtual router has no unicast peers: write unicast in both files, or in none",
	wire.ReasonNotPeer:     "its sender is not one of the virtual router's unicast peers: add it there",
}

// tally counts the packet. s.mu is held.
func (s *speaker) tally(h hearing) {
	t := s.heard[h.result]
	if t == nil {
		t = &tally{}
		s.heard[h.result] = t
	}
	t.count++
	if h.err == nil {
		return
	}
	mac := append(t.last.mac[:0], h.mac...)
	t.last = h
	t.last.mac, t.last.advert = mac, vrrpcompat.Advert{}
}

// learn mirrors the form of checksum of a router outside. The cluster's other nodes
// mirror as we do, and would teach us what they have from us. s.mu is held.
func (s *speaker) learn(r *served, h *hearing) {
	if r.vrrp.Checksum != fsm.ChecksumAuto || h.advert.Version != vrrpcompat.V3 || h.key.family != vrrpcompat.IPv4 || s.insiders[h.from] {
		return
	}
	if m := r.mirror(h.from); m != nil {
		h.lesson = m.Learn(h.at, h.from, h.form)
	}
}

// report tells the log what a person should know, and that seldom.
func (s *speaker) report(h hearing) {
	switch {
	case h.err != nil && !h.quiet && s.seldom.Allow(h.result):
		s.log.Warn("refused a VRRP advert", "link", h.key.link, "vrid", uint8(h.key.vrid), "source", h.from, "mac", h.mac.String(),
			"reason", h.result, "error", h.err)
	case h.lesson == vrrpcompat.LessonLearned && s.seldom.Allow("learned "+h.group+h.key.link):
		s.log.Info("adverts now have the checksum of a router outside", "group", h.group, "link", h.key.link, "vrid", uint8(h.key.vrid),
			"checksum", h.form.String(), "of", h.from)
	case h.lesson == vrrpcompat.LessonConflict && s.seldom.Allow("conflict "+h.group+h.key.link):
		s.log.Warn("routers outside use different checksums, and no form pleases both; write the same in all of them",
			"group", h.group, "link", h.key.link, "vrid", uint8(h.key.vrid), "source", h.from, "checksum", h.form.String())
	}
}

// counts returns how many packets had each result so far.
func (s *speaker) counts() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]uint64, len(s.heard))
	for result, t := range s.heard {
		out[result] = t.count
	}
	return out
}
