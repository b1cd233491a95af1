package lab

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// The judge's definitions. All of them are pure functions of what probes recorded.
//
// A probe asks "who has the address?" once a period and stamps each answer with the
// kernel's own receive time, so a slow reader moves nothing. Each question carries one
// of 32 sender addresses in turn, which an answer echoes: an answer finds its question
// as long as it is less than 32 periods late. An answer proves that its sender owned
// the address at one instant between the sending of the question and its own arrival,
// and no more. On an idle machine these are 30 µs apart; on a starved one 100 ms were
// seen, and answers that overtook others.
//
// Outage: the longest stretch of a window in which no answer arrived, the window's ends
// counting as answers. It is never too short by more than a period.
//
// Two owners: a sender is taken to own the address from one answer to the next when
// their questions are at most runGap periods apart. A hand-over there and back that is
// as quick, two moves by hand without a pause, is taken for two owners: the error is on
// the side of seeing them. What such a chain of answers proves
// is the time from its earliest arrival to its latest sending. Two senders owned the
// address at once
//
//   - while what they proved overlaps, or
//   - when the whole time from question to answer of one lies within what the other
//     proved, or
//   - when both answered the very same question within a millisecond.
//
// The latter two count one period for each such question, so the sum may be too long by
// a period at either end. A hand-over, where the last answer of one comes before the
// first question that the other answered, counts nothing however close they are.
//
// What it misses: two owners for less than a period between two questions; two that
// share only questions whose answers are late; one whose answers form no chain. If a
// probe did not ask for a while, Blind says so.
// What it could imagine: one question reaches two hosts one after the other. If the
// processor is taken away in between, and a complete hand-over happens on another
// processor, and all that within a millisecond, both answer it. 1,000 hand-overs on an
// idle machine and 2,000 on one with three busy loops to a core showed none.

// DefaultPeriod is how often a probe asks.
const DefaultPeriod = 5 * time.Millisecond

// runGap is how many periods may lie between two answers of one run.
const runGap = 3

// promptly is how soon two answers to one question prove two owners at one instant.
const promptly = time.Millisecond

// An Answer is one answer for the address, as seen by one observer.
type Answer struct {
	MAC  MAC     `json:"mac"`            // who answered, as it calls itself; zero for a Client's answer
	Host string  `json:"host,omitempty"` // which host that is
	At   Instant `json:"at"`             // when it arrived, stamped by the kernel
	Seq  int     `json:"seq"`            // number of the question in the same Trace; -1: none known
	Sent Instant `json:"sent"`           // just before the question was sent; 0 if Seq is -1
}

// An Announcement is an unsolicited claim: gratuitous ARP or neighbour advertisement.
type Announcement struct {
	MAC  MAC     `json:"mac"`
	Host string  `json:"host,omitempty"`
	At   Instant `json:"at"`
}

// A Trace is all that one observer recorded about one address.
type Trace struct {
	Observer      string         `json:"observer"`
	Target        netip.Addr     `json:"target"`
	Period        time.Duration  `json:"period"`
	Asked         []Instant      `json:"asked"`   // question by question, rising
	Answers       []Answer       `json:"answers"` // in order of At
	Announcements []Announcement `json:"announcements"`
}

// Between returns the part of a trace that lies in [from, to]. Sequence numbers keep
// their meaning as labels, not as indices.
func (t Trace) Between(from, to Instant) Trace {
	out := t
	out.Asked, out.Answers, out.Announcements = nil, nil, nil
	for _, at := range t.Asked {
		if from <= at && at <= to {
			out.Asked = append(out.Asked, at)
		}
	}
	for _, a := range t.Answers {
		if from <= a.At && a.At <= to {
			out.Answers = append(out.Answers, a)
		}
	}
	for _, a := range t.Announcements {
		if from <= a.At && a.At <= to {
			out.Announcements = append(out.Announcements, a)
		}
	}
	return out
}

// A Span is a closed interval of time.
type Span struct {
	From Instant `json:"from"`
	To   Instant `json:"to"`
}

// Length returns To - From.
func (s Span) Length() time.Duration { return s.To.Sub(s.From) }

// Outage returns the longest stretch of [from, to] without an answer.
func Outage(answers []Answer, from, to Instant) Span {
	times := make([]Instant, 0, len(answers))
	for _, a := range answers {
		times = append(times, a.At)
	}
	return longestGap(times, from, to)
}

// Blind returns the longest stretch of [from, to] in which a probe asked nothing. An
// outage that is not much longer than it says little about the hosts.
func Blind(t Trace, from, to Instant) Span { return longestGap(t.Asked, from, to) }

func longestGap(times []Instant, from, to Instant) Span {
	inside := []Instant{from}
	for _, at := range times {
		if from < at && at < to {
			inside = append(inside, at)
		}
	}
	slices.Sort(inside)
	inside = append(inside, to)
	var worst Span
	for i := 1; i < len(inside); i++ {
		if gap := (Span{inside[i-1], inside[i]}); gap.Length() > worst.Length() {
			worst = gap
		}
	}
	return worst
}

// A Run is a time during which one sender answered without a break.
type Run struct {
	MAC  MAC
	Host string
	Span
	Answers int
}

// Runs returns the runs of every sender by times of arrival, ordered by their
// beginnings: what an observer got, for people to look at.
func Runs(answers []Answer, period time.Duration) []Run {
	sorted := slices.Clone(answers)
	slices.SortStableFunc(sorted, func(a, b Answer) int { return cmp.Compare(a.At, b.At) })
	type sender struct { // by name too: a client's answers have no MAC
		mac  MAC
		host string
	}
	open := map[sender]*Run{}
	var all []*Run
	for _, a := range sorted {
		r := open[sender{a.MAC, a.Host}]
		if r == nil || a.At.Sub(r.To) > runGap*period {
			r = &Run{MAC: a.MAC, Host: a.Host, Span: Span{a.At, a.At}}
			open[sender{a.MAC, a.Host}] = r
			all = append(all, r)
		}
		r.To = a.At
		r.Answers++
	}
	out := make([]Run, 0, len(all))
	for _, r := range all {
		out = append(out, *r)
	}
	return out
}

// Overlaps returns when two owners answered at once, as disjoint spans in order. All
// traces are of one address; each may have an observer of its own. Answers that found
// no question prove nothing here.
func Overlaps(traces []Trace) []Span {
	var spans []Span
	var all []Answer
	period := DefaultPeriod
	for i, t := range traces {
		if i == 0 || t.Period > period {
			period = t.Period
		}
		all = append(all, t.Answers...)
		spans = append(spans, sharedQuestions(t)...)
	}
	chains := chainsOf(all, period)
	for i, a := range chains {
		for _, b := range chains[i+1:] {
			if b.first > a.last {
				break // chains are ordered by their first question: the rest begin later still
			}
			if a.mac != b.mac {
				spans = append(spans, a.both(b, period)...)
			}
		}
	}
	return union(spans)
}

// A chain is a sender's answers to questions that follow each other closely.
type chain struct {
	mac         MAC
	answers     []Answer
	first, last Instant // first sending and latest arrival: it says nothing outside
	proved      Span    // earliest arrival to latest sending; To < From when it proves no stretch
}

// chainsOf puts answers into chains, ordered by their first question.
func chainsOf(answers []Answer, period time.Duration) []*chain {
	sorted := slices.DeleteFunc(slices.Clone(answers), func(a Answer) bool { return a.Seq < 0 })
	slices.SortStableFunc(sorted, func(a, b Answer) int { return cmp.Compare(a.Sent, b.Sent) })
	open := map[MAC]*chain{}
	var all []*chain
	for _, a := range sorted {
		c := open[a.MAC]
		if c == nil || a.Sent.Sub(c.proved.To) > runGap*period {
			c = &chain{mac: a.MAC, first: a.Sent, last: a.At, proved: Span{a.At, a.Sent}}
			open[a.MAC] = c
			all = append(all, c)
		}
		c.answers = append(c.answers, a)
		c.last = max(c.last, a.At)
		c.proved = Span{min(c.proved.From, a.At), max(c.proved.To, a.Sent)}
	}
	return all
}

// both returns when the senders of two chains owned the address at once.
func (c *chain) both(o *chain, period time.Duration) []Span {
	var spans []Span
	if from, to := max(c.proved.From, o.proved.From), min(c.proved.To, o.proved.To); from < to {
		spans = append(spans, Span{from, to})
	}
	for _, pair := range [][2]*chain{{c, o}, {o, c}} {
		for _, a := range pair[1].answers {
			if pair[0].proved.From <= a.Sent && a.At <= pair[0].proved.To {
				spans = append(spans, Span{a.Sent, a.Sent.Add(period)})
			}
		}
	}
	return spans
}

// sharedQuestions returns a period for each question that two senders answered promptly.
func sharedQuestions(t Trace) []Span {
	prompt := map[int]MAC{} // by question
	var spans []Span
	for _, a := range t.Answers {
		if a.Seq < 0 || a.At.Sub(a.Sent) > promptly {
			continue
		}
		if mac, ok := prompt[a.Seq]; !ok {
			prompt[a.Seq] = a.MAC
		} else if mac != a.MAC {
			spans = append(spans, Span{a.Sent, a.Sent.Add(t.Period)})
		}
	}
	return spans
}

// union merges spans that meet, so that no instant counts twice.
func union(spans []Span) []Span {
	slices.SortFunc(spans, func(a, b Span) int { return cmp.Compare(a.From, b.From) })
	var out []Span
	for _, s := range spans {
		if n := len(out); n > 0 && s.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, s.To)
			continue
		}
		out = append(out, s)
	}
	return out
}

// Total returns the sum of the spans' lengths.
func Total(spans []Span) time.Duration {
	var sum time.Duration
	for _, s := range spans {
		sum += s.Length()
	}
	return sum
}

// Owners returns who answered in [from, to], by the beginnings of their runs; a name
// again only after another.
func Owners(answers []Answer, from, to Instant) []string {
	inside := slices.DeleteFunc(slices.Clone(answers), func(a Answer) bool { return a.At < from || a.At > to })
	var out []string
	for _, r := range Runs(inside, DefaultPeriod) {
		if len(out) == 0 || out[len(out)-1] != r.Host {
			out = append(out, r.Host)
		}
	}
	return out
}
