package vrrpcompat

import "time"

// A contest is how an Active router deals with others that speak although it outranks them. Each such claim is answered
// at once by an advert (RFC 9568, section 6.4.3), and the addresses are announced when claims begin, and again when they
// have ended: whoever claimed has announced them too, and hosts and switches may have believed it.
//
// Answers are bounded, so that a flood of claims does not become a flood of adverts.
type contest struct {
	open     bool
	until    Instant // when the claimants count as silent, if none of them speaks again
	answered bool
	next     Instant // no answer before this, if answered
}

// answersPerInterval bounds the answers to claims in one of our intervals.
const answersPerInterval = 10

// mayAnswer reports whether an advert may be sent in answer to one that came now, and takes note that it was.
func (c *contest) mayAnswer(now Instant, own Centis) bool {
	if c.answered && now < c.next {
		return false
	}
	c.answered, c.next = true, now.Add(own.Duration()/answersPerInterval)
	return true
}

// claimed takes note of a claim by a router with the interval, and reports whether it is the first. A claimant that
// has heard our answer says nothing more; that is sure once its next advert is late by half an interval.
func (c *contest) claimed(now Instant, theirs Centis) (first bool) {
	first = !c.open
	c.open = true
	c.until = max(c.until, now.Add(theirs.Duration()*3/2))
	return first
}

// over reports whether the claims have ended, once.
func (c *contest) over(now Instant) bool {
	if !c.open || now < c.until {
		return false
	}
	*c = contest{answered: c.answered, next: c.next}
	return true
}

// wake returns when over has something to say.
func (c *contest) wake() (Instant, bool) { return c.until, c.open }

// outranks reports whether a router that sends from there with that priority has the better claim (RFC 9568,
// section 6.4.3): the addresses, of one family, are compared as unsigned numbers in network byte order.
func (theirs claim) outranks(ours claim) bool {
	if theirs.priority != ours.priority {
		return theirs.priority > ours.priority
	}
	return theirs.from.Compare(ours.from) > 0
}

// earliest returns the earlier of two instants that may each be absent.
func earliest(a Instant, haveA bool, b Instant, haveB bool) (Instant, bool) {
	if haveA && haveB {
		return min(a, b), true
	}
	if haveA {
		return a, true
	}
	return b, haveB
}

// laterOf guards a timer against a caller that woke late: the next instant keeps the beat unless it has passed already.
func laterOf(due, now Instant, every time.Duration) Instant {
	if next := due.Add(every); next > now {
		return next
	}
	return now.Add(every)
}
