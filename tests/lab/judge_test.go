package lab

import (
	"slices"
	"testing"
	"time"
)

var macA, macB, macC = MAC{0xa}, MAC{0xb}, MAC{0xc}

// script makes a trace out of one word for each question, asked every 5 ms from 1 s on:
// "-" nobody answers, "a" host a after 100 µs, "ab" both, b 30 µs after a; a capital
// letter answers 6 ms late, that is after the next question.
func script(words ...string) Trace {
	t := Trace{Observer: "judge", Period: DefaultPeriod}
	macs := map[rune]MAC{'a': macA, 'b': macB, 'c': macC, 'A': macA, 'B': macB}
	for n, w := range words {
		asked := Instant(time.Second).Add(time.Duration(n) * DefaultPeriod)
		t.Asked = append(t.Asked, asked)
		for i, r := range w {
			if r == '-' {
				continue
			}
			late := 100 * time.Microsecond
			if r < 'a' {
				late = 6 * time.Millisecond
				r += 'a' - 'A'
			}
			t.Answers = append(t.Answers, Answer{
				MAC: macs[r], Host: string(r), Seq: n, Sent: asked,
				At: asked.Add(late + time.Duration(i)*30*time.Microsecond),
			})
		}
	}
	slices.SortStableFunc(t.Answers, func(a, b Answer) int { return int(a.At - b.At) })
	return t
}

func TestOverlaps(t *testing.T) {
	for _, tt := range []struct {
		name  string
		words []string
		want  time.Duration
	}{
		{"one owner", []string{"a", "a", "a", "a"}, 0},
		{"nobody", []string{"-", "-"}, 0},
		{"hand-over with a gap", []string{"a", "a", "-", "-", "b", "b"}, 0},
		{"hand-over without a gap", []string{"a", "a", "b", "b"}, 0},
		{"there and back, slowly", []string{"a", "-", "-", "b", "-", "-", "a"}, 0},
		{"one question, two answers", []string{"a", "ab", "b"}, 5 * time.Millisecond},
		{"one question, two answers, nothing else", []string{"ab"}, 5 * time.Millisecond},
		{"one of b's between two of a's", []string{"a", "b", "a"}, 5 * time.Millisecond},
		{"flapping", []string{"a", "b", "a", "b"}, 10 * time.Millisecond},
		{"both for five questions", []string{"a", "ab", "ab", "ab", "ab", "ab", "b"}, 25 * time.Millisecond},
		{"both, with losses of fewer than a run", []string{"ab", "a", "-", "ab", "b"}, 20 * time.Millisecond},
		{"twice", []string{"ab", "a", "a", "a", "a", "a", "ab"}, 10 * time.Millisecond},
		{"three owners count once", []string{"abc", "abc", "abc"}, 15 * time.Millisecond},
		// a's answer was held up somewhere and overtaken by b's: when a gave it is unknown.
		{"an answer overtaken", []string{"a", "A", "b"}, 0},
		{"answers overtaken", []string{"a", "A", "A", "A", "b", "b", "b"}, 0},
		{"two owners, one of them slow", []string{"Ab", "Ab", "Ab", "Ab", "Ab"}, 15 * time.Millisecond},
		{"one question, one of two answers late", []string{"aB", "-", "-"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Overlaps([]Trace{script(tt.words...)})
			// Hosts answer 30 µs apart, so spans begin and end that much beside a period.
			if d := Total(got).Round(time.Millisecond); d != tt.want {
				t.Errorf("Overlaps(%v) = %v, together %v; want %v", tt.words, got, d, tt.want)
			}
		})
	}
}

// An owner cut off together with an observer is seen only by that one; the judge puts
// both observers' records together.
func TestOverlapsAcrossObservers(t *testing.T) {
	inside := script("a", "a", "a", "a", "a", "-", "-", "-")
	outside := script("-", "-", "b", "b", "b", "b", "b", "b")
	for i := range outside.Answers {
		outside.Answers[i].At += Instant(time.Millisecond)
	}
	got := Total(Overlaps([]Trace{inside, outside}))
	if want := 15 * time.Millisecond; got != want {
		t.Errorf("two observers: %v with two owners, want %v", got, want)
	}
	if d := Total(Overlaps([]Trace{outside})); d != 0 {
		t.Errorf("one observer alone: %v with two owners, want 0", d)
	}
}

func TestOutage(t *testing.T) {
	tr := script("a", "a", "-", "-", "-", "b", "b", "-")
	from, to := tr.Asked[0], tr.Asked[7]
	got := Outage(tr.Answers, from, to)
	want := Span{tr.Answers[1].At, tr.Answers[2].At}
	if got != want {
		t.Errorf("Outage = %v (%v), want %v (%v)", got, got.Length(), want, want.Length())
	}
	if got := Outage(nil, from, to); got != (Span{from, to}) {
		t.Errorf("Outage without answers = %v, want the whole window", got)
	}
	if got := Outage(tr.Answers[:2], from, to); got != (Span{tr.Answers[1].At, to}) {
		t.Errorf("Outage that lasts to the end = %v", got)
	}
	if got := Owners(tr.Answers, from, to); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("Owners = %v", got)
	}
	tr.Asked = slices.Delete(tr.Asked, 2, 5)
	if got := Blind(tr, from, to).Length(); got != 20*time.Millisecond {
		t.Errorf("Blind = %v, want 20ms", got)
	}
}

func TestAskLog_find(t *testing.T) {
	var asked askLog
	for n := range 80 {
		asked.add(Instant(n) * Instant(time.Millisecond))
	}
	for _, tt := range []struct {
		id   int
		at   Instant
		want int
		ok   bool
	}{
		{3, 3_500_000, 3, true},
		{3, 18_900_000, 3, true},  // question 19 has the same id but was not asked yet
		{3, 34_990_000, 35, true}, // a clock reading's width before it
		{31, 30_000_000, 0, false},
		{7, 99_000_000, 71, true},
	} {
		got, ok := asked.find(tt.id, tt.at)
		if got != tt.want || ok != tt.ok {
			t.Errorf("find(id %d, at %d) = %d, %v; want %d, %v", tt.id, tt.at, got, ok, tt.want, tt.ok)
		}
	}
}

func TestMaker(t *testing.T) {
	for name, want := range map[string]int{"qlab-123-1-n1": 123, "qlab-x-1": 0, "other-1-2": 0, "qlab-7": 0, "qlab--3-x": 0} {
		if got, ok := maker(name); ok != (want != 0) || ok && got != want {
			t.Errorf("maker(%q) = %d, %v; want %d", name, got, ok, want)
		}
	}
}
