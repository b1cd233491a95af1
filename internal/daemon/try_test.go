package daemon

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/try"
)

// three is a healthy cluster of three, and its group on n1.
func three() (core.Status, core.VIPStatus) {
	st := core.Status{Node: "n2", Quorum: true}
	for _, name := range []string{"n1", "n2", "n3"} {
		st.Members = append(st.Members, core.MemberStatus{Name: name, Role: "member", Voter: true, Alive: true, Ready: true})
	}
	return st, core.VIPStatus{Name: "web", Owner: "n1", State: "backup", Open: true}
}

func TestAilments(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*core.Status, *core.VIPStatus)
		kill   bool
		want   []string // a part of each
	}{
		"all is well":          {func(*core.Status, *core.VIPStatus) {}, true, nil},
		"one is lost":          {func(st *core.Status, _ *core.VIPStatus) { st.Members[2].Alive = false }, true, []string{"without n1 1 of 3 voters are there, and 2 are needed (not heard, or not ready: n3)"}},
		"one is not ready":     {func(st *core.Status, _ *core.VIPStatus) { st.Members[2].Ready = false }, true, []string{"without n1 1 of 3"}},
		"one is lost, a move":  {func(st *core.Status, _ *core.VIPStatus) { st.Members[2].Alive = false }, false, nil},
		"two are lost, a move": {func(st *core.Status, _ *core.VIPStatus) { st.Members[2].Alive, st.Members[1].Alive = false, false }, false, []string{"1 of 3 voters are there"}},
		"one has no vote":      {func(st *core.Status, _ *core.VIPStatus) { st.Members[2].Voter = false }, true, []string{"without n1 1 of 2 voters are there, and 2 are needed"}},
		"no quorum":            {func(st *core.Status, _ *core.VIPStatus) { st.Quorum = false }, false, []string{"hears no majority"}},
		"not open":             {func(_ *core.Status, v *core.VIPStatus) { v.Open = false }, false, []string{"does not answer for it now"}},
		"open here":            {func(_ *core.Status, v *core.VIPStatus) { v.Open, v.State = false, "active" }, false, nil},
		"held without proof":   {func(_ *core.Status, v *core.VIPStatus) { v.WithoutProof = true }, true, []string{"on_quorum_loss: hold"}},
	} {
		st, v := three()
		tc.change(&st, &v)
		got := ailments(st, v, tc.kill)
		if !slices.EqualFunc(got, tc.want, strings.Contains) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// TestTooShort: while the lease runs, the kernel answers for a daemon that is dead.
func TestTooShort(t *testing.T) {
	for forMS, want := range map[int64]bool{1858: false, 1857: true, 10_000: false} {
		if got := tooShort(api.TryPlan{WorstMS: 857.5, ForMS: forMS}); (got != nil) != want {
			t.Errorf("for %d ms: %q", forMS, got)
		}
	}
}

func TestNextOwner(t *testing.T) {
	e := fsm.Explanation{Group: "web", Owner: "n1", Candidates: []fsm.Candidate{{Name: "n1", Fit: true}, {Name: "n2", Why: []string{"drained"}}, {Name: "n3", Fit: true}}}
	alone := fsm.Explanation{Group: "web", Owner: "n1", Candidates: e.Candidates[:1]}
	unfit := fsm.Explanation{Group: "web", Owner: "n1", Candidates: e.Candidates[:2]}
	for _, tc := range []struct {
		e          fsm.Explanation
		to         string
		next, want string
	}{
		{e, "", "n3", ""},
		{e, "n3", "n3", ""},
		{e, "n2", "n2", "no other node could take web: n2 drained"},
		{e, "n1", "n1", "n1 owns web already"},
		{e, "n9", "n9", "n9 is no member"},
		{alone, "", "", "no other node could take web"},
		{unfit, "", "", "no other node could take web: n2 drained"},
	} {
		next, why := nextOwner(tc.e, "n1", tc.to)
		if next != tc.next || (why == "") != (tc.want == "") || !strings.HasPrefix(why, tc.want) {
			t.Errorf("to %q: %q, %q; want %q, %q", tc.to, next, why, tc.next, tc.want)
		}
	}
}

func TestJudgeTry(t *testing.T) {
	const before = 17
	good := api.TryReport{TryPlan: api.TryPlan{Group: "web", Fault: "kill", Address: "10.0.0.200", Owner: "n1", WorstMS: 850}, Probe: "n3", NewOwner: "n2", Epoch: 18,
		Seen: try.Seen{OutageMS: 300, AtLeastMS: 290, ResolutionMS: 5, AnsweredLast: true}}
	for name, tc := range map[string]struct {
		change func(*api.TryReport)
		want   []string // a part of each failure
	}{
		"survived":         {func(*api.TryReport) {}, nil},
		"two owners":       {func(r *api.TryReport) { r.TwoOwnersMS = 5 }, []string{"two hosts answered for 10.0.0.200 at once, for 5 ms"}},
		"too long":         {func(r *api.TryReport) { r.OutageMS, r.AtLeastMS = 900, 890 }, []string{"was unanswered for 900 ms, and for at least 890; the configuration allows for 850 ms"}},
		"blind":            {func(r *api.TryReport) { r.ResolutionMS = 900 }, []string{"n3 asked nothing for 900 ms"}},
		"nobody took over": {func(r *api.TryReport) { r.Epoch, r.NewOwner, r.OutageMS = before, "n1", 9000 }, []string{"nobody took over", "was unanswered"}},
		"given to nobody":  {func(r *api.TryReport) { r.NewOwner, r.AnsweredLast = "", false }, []string{"nobody took over"}},
		"nobody answers":   {func(r *api.TryReport) { r.AnsweredLast = false }, []string{"n2 took over, and nobody answers"}},
		"kept":             {func(r *api.TryReport) { r.Epoch, r.NewOwner, r.Kept = before, "n1", true }, nil},
		"nothing measured": {func(r *api.TryReport) { r.Probe, r.Seen = "", try.Seen{} }, []string{"nothing was measured"}},
	} {
		r := good
		tc.change(&r)
		if got := judgeTry(r, before); !slices.EqualFunc(got, tc.want, strings.Contains) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// TestTryQuestions: a question that is not understood, or about what is not there, is refused.
func TestTryQuestions(t *testing.T) {
	n := &node{lookouts: newLookouts(), kill: func() { t.Error("killed") }}
	for question, want := range map[string]string{
		`{`:                      "understand the question",
		`{}`:                     "nothing that this version knows",
		`{"result":{"nonce":7}}`: "does not watch that",
	} {
		if _, err := n.tried(t.Context(), []byte(question)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", question, err, want)
		}
	}
	if _, err := (handlers{&Participant{}}).Try(t.Context(), fsm.InstanceID{1}, nil); err == nil {
		t.Error("a node without a part in this answers")
	}
}

// TestResultOfAWatch: it is waited for, and those who ask may give up.
func TestResultOfAWatch(t *testing.T) {
	n := &node{lookouts: newLookouts()}
	w := newWatch(n, tryWatch{Nonce: 7, Group: "web", Epoch: 3, ForMS: 2000}, netip.MustParseAddr("10.0.0.200"), "eth0")
	n.lookouts.remember(w)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.lookouts.result(ctx, tryResult{Nonce: 7}); !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up is told %v", err)
	}
	w.asked(w.begun)
	w.answered(w.begun.Add(1e6), []byte{2, 0, 0, 0, 0, 1})
	w.own = true
	close(w.done)
	for range 2 {
		got, err := n.lookouts.result(t.Context(), tryResult{Nonce: 7, Stop: true})
		if err != nil || !got.Own || got.Seen == nil || got.Seen.Asked != 1 || got.Seen.Answered != 1 || got.Seen.Hosts[0].MAC != "02:00:00:00:00:01" {
			t.Errorf("%+v, %v", got, err)
		}
	}
	select {
	case <-w.stopped:
	default:
		t.Error("it was not told to end")
	}
}
