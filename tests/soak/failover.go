package main

import (
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// A change is one time that the answers began to come from another host.
type change struct {
	At       lab.Instant `json:"at"`
	From, To string
}

// changesIn returns the changes of owner in answers, which are in order of arrival.
func changesIn(answers []lab.Answer) (out []change) {
	last := ""
	for _, a := range answers {
		if last != "" && a.Host != last {
			out = append(out, change{At: a.At, From: last, To: a.Host})
		}
		last = a.Host
	}
	return out
}

// withoutCause returns the changes that no fault explains: none was there then, nor had
// one ended within the time given.
func withoutCause(changes []change, faults []lab.Span, within time.Duration) (out []change) {
	for _, c := range changes {
		explained := false
		for _, f := range faults {
			explained = explained || f.From <= c.At && c.At <= f.To.Add(within)
		}
		if !explained {
			out = append(out, c)
		}
	}
	return out
}
