package try

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	one = "02:00:00:00:00:01"
	two = "02:00:00:00:00:02"
)

// A stretch is a time in which a host answers each of an observer's questions after 100 µs;
// no host: nobody does.
type stretch struct {
	mac      string
	from, to int // milliseconds
}

// observed is what an observer has that asks each 5 ms until end but in a pause.
func observed(end int, pause [2]int, answers ...stretch) (r Record) {
	for at := 0; at <= end; at += 5 {
		if pause[0] < at && at < pause[1] {
			continue
		}
		r.Asked = append(r.Asked, time.Duration(at)*time.Millisecond)
		for _, s := range answers {
			if s.from <= at && at <= s.to {
				r.Answers = append(r.Answers, Answer{time.Duration(at)*time.Millisecond + 100*time.Microsecond, s.mac})
			}
		}
	}
	return r
}

func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		name   string
		record Record
		want   Seen
	}{
		{"nothing asked", Record{}, Seen{Hosts: []Host{}}},
		{"nobody ever", observed(100, [2]int{}), Seen{Asked: 21, OutageMS: 100, AtLeastMS: 100, ResolutionMS: 5, Hosts: []Host{}}},
		{"no fault", observed(1000, [2]int{}, stretch{one, 0, 1000}), Seen{Asked: 201, Answered: 201, OutageMS: 5, ResolutionMS: 5, AnsweredLast: true,
			Hosts: []Host{{MAC: one, Answers: 201, FirstMS: 0.1, LastMS: 1000.1}}}},
		{"taken over", observed(1000, [2]int{}, stretch{one, 0, 200}, stretch{two, 500, 1000}),
			Seen{Asked: 201, Answered: 142, OutageMS: 300, AtLeastMS: 290, ResolutionMS: 5, AnsweredLast: true, Hosts: []Host{
				{MAC: one, Answers: 41, FirstMS: 0.1, LastMS: 200.1}, {MAC: two, Answers: 101, FirstMS: 500.1, LastMS: 1000.1}}}},
		{"nobody took over", observed(1000, [2]int{}, stretch{one, 0, 200}), Seen{Asked: 201, Answered: 41, OutageMS: 799.9, AtLeastMS: 795, ResolutionMS: 5,
			Hosts: []Host{{MAC: one, Answers: 41, FirstMS: 0.1, LastMS: 200.1}}}},
		{"it was blind for most of it", observed(1000, [2]int{250, 480}, stretch{one, 0, 200}, stretch{two, 500, 1000}),
			Seen{Asked: 156, Answered: 142, OutageMS: 300, AtLeastMS: 290, ResolutionMS: 230, AnsweredLast: true, Hosts: []Host{
				{MAC: one, Answers: 41, FirstMS: 0.1, LastMS: 200.1}, {MAC: two, Answers: 101, FirstMS: 500.1, LastMS: 1000.1}}}},
		{"it was blind elsewhere", observed(1000, [2]int{600, 900}, stretch{one, 0, 200}, stretch{two, 220, 1000}),
			Seen{Asked: 142, Answered: 139, OutageMS: 20, AtLeastMS: 10, ResolutionMS: 300, AnsweredLast: true, Hosts: []Host{
				{MAC: one, Answers: 41, FirstMS: 0.1, LastMS: 200.1}, {MAC: two, Answers: 98, FirstMS: 220.1, LastMS: 1000.1}}}},
		{"one question was lost, and it was blind elsewhere", observed(1000, [2]int{600, 900}, stretch{one, 0, 200}, stretch{one, 210, 1000}),
			Seen{Asked: 142, Answered: 141, OutageMS: 10, ResolutionMS: 300, AnsweredLast: true, Hosts: []Host{{MAC: one, Answers: 141, FirstMS: 0.1, LastMS: 1000.1}}}},
		{"a late answer is no second owner", observed(1000, [2]int{}, stretch{one, 0, 215}, stretch{two, 200, 1000}),
			Seen{Asked: 201, Answered: 201, OutageMS: 5, ResolutionMS: 5, AnsweredLast: true, Hosts: []Host{
				{MAC: one, Answers: 44, FirstMS: 0.1, LastMS: 215.1}, {MAC: two, Answers: 161, FirstMS: 200.1, LastMS: 1000.1}}}},
		{"two owners", observed(1000, [2]int{}, stretch{one, 0, 300}, stretch{two, 200, 1000}),
			Seen{Asked: 201, Answered: 201, OutageMS: 5, ResolutionMS: 5, TwoOwnersMS: 105, AnsweredLast: true, Hosts: []Host{
				{MAC: one, Answers: 61, FirstMS: 0.1, LastMS: 300.1}, {MAC: two, Answers: 161, FirstMS: 200.1, LastMS: 1000.1}}}},
		{"another answers once", observed(1000, [2]int{}, stretch{one, 0, 1000}, stretch{two, 500, 500}),
			Seen{Asked: 201, Answered: 201, OutageMS: 5, ResolutionMS: 5, TwoOwnersMS: 5, AnsweredLast: true, Hosts: []Host{
				{MAC: one, Answers: 201, FirstMS: 0.1, LastMS: 1000.1}, {MAC: two, Answers: 1, FirstMS: 500.1, LastMS: 500.1}}}},
		{"there and back", observed(1000, [2]int{}, stretch{one, 0, 200}, stretch{two, 205, 400}, stretch{one, 405, 1000}),
			Seen{Asked: 201, Answered: 201, OutageMS: 5, ResolutionMS: 5, AnsweredLast: true, Hosts: []Host{
				{MAC: one, Answers: 161, FirstMS: 0.1, LastMS: 1000.1}, {MAC: two, Answers: 40, FirstMS: 205.1, LastMS: 400.1}}}},
		{"asked late", observed(300, [2]int{}, stretch{one, 100, 300}), Seen{Asked: 61, Answered: 41, OutageMS: 5, ResolutionMS: 5, AnsweredLast: true,
			Hosts: []Host{{MAC: one, Answers: 41, FirstMS: 100.1, LastMS: 300.1}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, Judge(tc.record)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestSteady(t *testing.T) {
	for _, tc := range []struct {
		name   string
		record Record
		want   bool
	}{
		{"nothing asked", Record{}, false},
		{"not asked for long enough", observed(900, [2]int{}, stretch{one, 0, 900}), false},
		{"answered all along", observed(2000, [2]int{}, stretch{one, 0, 2000}), true},
		{"answered since the outage", observed(2000, [2]int{}, stretch{one, 0, 200}, stretch{two, 900, 2000}), true},
		{"not for long enough since", observed(2000, [2]int{}, stretch{one, 0, 200}, stretch{two, 1200, 2000}), false},
		{"not any more", observed(2000, [2]int{}, stretch{one, 0, 1890}), false},
		{"with a break", observed(2000, [2]int{}, stretch{one, 0, 1500}, stretch{one, 1600, 2000}), false},
	} {
		if got := tc.record.Steady(time.Second, 100*time.Millisecond); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
}
