// Package try judges a fault on purpose: from one observer's questions and answers to how
// long an address went unanswered, and whether two hosts answered for it.
package try

import (
	"cmp"
	"slices"
	"time"
)

const (
	// Every is how often an observer asks.
	Every = 5 * time.Millisecond
	// Late is how late an answer may come, by the kernel's stamp. Answers do not say which
	// question they are for, so two hosts that answer at once for less than this are not
	// told from a late answer.
	Late = 20 * time.Millisecond
	// runGap is how far two answers of one run may be apart.
	runGap = 3 * Every
	// endTime is how long before the end of a record the last answer may be, for the
	// address to be answered still.
	endTime = 100 * time.Millisecond
)

// A Record is what one observer asked and heard, in time since any instant of its own.
type Record struct {
	Asked   []time.Duration // when each question was sent, rising
	Answers []Answer
}

// An Answer is one answer for the address, from whomever.
type Answer struct {
	At  time.Duration
	MAC string
}

// A Seen is what a record amounts to, in milliseconds.
type Seen struct {
	Asked    int `json:"asked"`
	Answered int `json:"answered"` // questions with an answer before the next
	// OutageMS is the time between two answers in which questions went unanswered for
	// longest: from the first answer on, or from the first question if there is none. The
	// address was unanswered for no longer; and for AtLeastMS at least, from the first to
	// the last question of it that had no answer.
	OutageMS  float64 `json:"outage_ms"`
	AtLeastMS float64 `json:"at_least_ms"`
	// ResolutionMS is the longest time between two questions: an outage that is shorter can
	// have gone unseen.
	ResolutionMS float64 `json:"resolution_ms"`
	TwoOwnersMS  float64 `json:"two_owners_ms"` // for so long two hosts answered
	AnsweredLast bool    `json:"answered_last"` // it is answered at the end
	Hosts        []Host  `json:"hosts"`         // who answered, in the order of their first answers
}

// A Host is one that answered.
type Host struct {
	MAC     string  `json:"mac"`
	Node    string  `json:"node,omitempty"` // whose address that is, if known
	Answers int     `json:"answers"`
	FirstMS float64 `json:"first_ms"` // since the first question
	LastMS  float64 `json:"last_ms"`
}

// Judge says what a record shows. It does not change the record.
func Judge(r Record) Seen {
	r = r.ordered()
	s := Seen{Asked: len(r.Asked), Hosts: []Host{}}
	if len(r.Asked) == 0 {
		return s
	}
	first, last := r.Asked[0], r.Asked[len(r.Asked)-1]
	gap, unanswered := r.outage()
	s.OutageMS, s.AtLeastMS, s.ResolutionMS = ms(gap.length()), ms(unanswered.length()), ms(r.resolution())
	s.TwoOwnersMS = ms(total(r.overlaps()))
	for i, at := range r.Asked {
		next := last + endTime
		if i+1 < len(r.Asked) {
			next = r.Asked[i+1]
		}
		if r.answeredIn(span{at, next - 1}) {
			s.Answered++
		}
	}
	s.AnsweredLast = r.answeredIn(span{last - endTime, last + endTime})
	at := map[string]int{}
	for _, a := range r.Answers {
		i, known := at[a.MAC]
		if !known {
			i = len(s.Hosts)
			at[a.MAC] = i
			s.Hosts = append(s.Hosts, Host{MAC: a.MAC, FirstMS: ms(a.At - first)})
		}
		s.Hosts[i].Answers++
		s.Hosts[i].LastMS = ms(a.At - first)
	}
	return s
}

// Steady reports whether the last part of a record, so long, has no time of gap or more
// without an answer.
func (r Record) Steady(over, gap time.Duration) bool {
	r = r.ordered()
	if len(r.Asked) == 0 {
		return false
	}
	last := r.Asked[len(r.Asked)-1]
	before := last - over
	if before < r.Asked[0] {
		return false
	}
	for _, a := range r.Answers {
		if a.At < before {
			continue
		}
		if a.At-before >= gap {
			return false
		}
		before = a.At
	}
	return last-before < gap
}

func (r Record) ordered() Record {
	answers := slices.Clone(r.Answers)
	slices.SortStableFunc(answers, func(a, b Answer) int { return cmp.Compare(a.At, b.At) })
	return Record{r.Asked, answers}
}

type span struct{ from, to time.Duration }

func (s span) length() time.Duration { return max(0, s.to-s.from) }

func (r Record) answeredIn(s span) bool {
	i, _ := slices.BinarySearchFunc(r.Answers, s.from, func(a Answer, at time.Duration) int { return cmp.Compare(a.At, at) })
	return i < len(r.Answers) && r.Answers[i].At <= s.to
}

// outage is the time without an answer that has the longest unanswered part; of several
// the one with an unanswered question at all, and else the longest: that is then a pause
// of the observer's. What the observer could not know before the
// first answer, and does not know after its last question, is no part of it.
func (r Record) outage() (worst, unanswered span) {
	from, next, most := r.Asked[0], 0, 0 // next is a question, and most so many unanswered
	if len(r.Answers) > 0 {
		from = r.Answers[0].At
		for next < len(r.Asked) && r.Asked[next] <= from {
			next++
		}
	}
	look := func(gap span, answered bool) {
		first := next
		for next < len(r.Asked) && r.Asked[next] <= gap.to {
			next++
		}
		without := r.Asked[first:next]
		if answered && len(without) > 0 {
			without = without[:len(without)-1] // the last before an answer is the one that it is for
		}
		var part span
		if len(without) > 0 {
			part = span{without[0], without[len(without)-1]}
		}
		order := cmp.Or(cmp.Compare(part.length(), unanswered.length()), cmp.Compare(len(without), most), cmp.Compare(gap.length(), worst.length()))
		if order > 0 {
			worst, unanswered, most = gap, part, len(without)
		}
	}
	for _, a := range r.Answers {
		look(span{from, a.At}, true)
		from = a.At
	}
	look(span{from, max(from, r.Asked[len(r.Asked)-1])}, false)
	return worst, unanswered
}

// resolution is the longest time between two questions.
func (r Record) resolution() (longest time.Duration) {
	for i := 1; i < len(r.Asked); i++ {
		longest = max(longest, r.Asked[i]-r.Asked[i-1])
	}
	return longest
}

// A run is a time in which a host answered without a break.
type run struct {
	mac string
	span
}

// owned is when its host had the address for certain: from its first answer to the
// earliest question that its last can be for.
func (r run) owned() span { return span{r.from, r.to - Late} }

// overlaps are the times at which two hosts had the address for certain. A host that
// answers now and then counts for one question each time, where another answers all along.
func (r Record) overlaps() (out []span) {
	runs := r.runs()
	for i, x := range runs {
		for _, y := range runs[i+1:] {
			if x.mac == y.mac {
				continue
			}
			if both := (span{max(x.from, y.from), min(x.owned().to, y.owned().to)}); both.length() > 0 {
				out = append(out, both)
			}
		}
	}
	for _, a := range r.Answers {
		for _, y := range runs {
			if o := y.owned(); y.mac != a.MAC && o.from <= a.At-Late && a.At <= o.to {
				out = append(out, span{a.At - Every, a.At})
			}
		}
	}
	return out
}

func (r Record) runs() (out []run) {
	open := map[string]int{}
	for _, a := range r.Answers {
		i, known := open[a.MAC]
		if !known || a.At-out[i].to > runGap {
			open[a.MAC] = len(out)
			out = append(out, run{a.MAC, span{a.At, a.At}})
			continue
		}
		out[i].to = a.At
	}
	return out
}

// total is the time that spans cover, none of it twice.
func total(spans []span) (sum time.Duration) {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var until time.Duration
	for i, s := range spans {
		if i == 0 {
			until = s.from
		}
		sum += max(0, s.to-max(s.from, until))
		until = max(until, s.to)
	}
	return sum
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
