package vrrpcompat

import (
	"fmt"
	"net/netip"
	"time"
)

// mirrorHold is for how long after it was last heard one router's form of checksum is kept against another's: adverts
// that changed their form with each one heard would please neither.
const mirrorHold = 10 * time.Second

// A Mirror chooses the form of checksum for the version 3 adverts that one virtual router sends over IPv4: the one that
// the routers outside use ("checksum: auto"). A keepalived that refuses our adverts for their checksum soon claims to be
// Active, and its first advert tells. What was learned is not forgotten when its teacher falls silent, since it falls silent as
// soon as it is content.
//
// The zero value is ready and says PseudoHeader, the default of keepalived and FRR. With unicast there is one Mirror for each peer.
type Mirror struct {
	form  Checksum
	from  netip.Addr
	heard Instant
}

// A Lesson is what a Mirror made of an advert. Zero is invalid.
type Lesson uint8

const (
	_ Lesson = iota
	// LessonKnown: the form is the one that is used already.
	LessonKnown
	// LessonLearned: the form was learned, and is used from now on.
	LessonLearned
	// LessonConflict: another router uses another form and was heard a moment ago; that one stays. No form can please both.
	LessonConflict
)

// String returns "known", "learned" or "conflict".
func (l Lesson) String() string {
	switch l {
	case LessonKnown:
		return "known"
	case LessonLearned:
		return "learned"
	case LessonConflict:
		return "conflict"
	}
	return fmt.Sprintf("lesson(%d)", uint8(l))
}

// Form returns the form to send.
func (m *Mirror) Form() Checksum {
	if m.form == 0 {
		return PseudoHeader
	}
	return m.form
}

// Teacher returns the router from which the form was learned, and false if none was heard yet.
func (m *Mirror) Teacher() (netip.Addr, bool) { return m.from, m.form != 0 }

// Learn takes note of the form that Decode found in an advert. Only adverts that Virtual.Refuse accepts are to be learned from, and none of
// the cluster's other nodes, which mirror as we do.
func (m *Mirror) Learn(now Instant, from netip.Addr, form Checksum) Lesson {
	switch {
	case m.form == form:
		m.from, m.heard = from, now
		return LessonKnown
	case m.form != 0 && m.from != from && now.Sub(m.heard) < mirrorHold:
		return LessonConflict
	}
	known := m.Form() == form
	m.form, m.from, m.heard = form, from, now
	if known {
		return LessonKnown
	}
	return LessonLearned
}
