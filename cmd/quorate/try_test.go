package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/try"
)

// survived is a fault that went as it should.
func survived(req api.TryRequest) (api.TryReport, error) {
	r := api.TryReport{TryPlan: api.TryPlan{Group: req.Group, Fault: "move", Address: "10.0.0.200", Owner: "n1", Next: "n2",
		Groups: []string{req.Group}, Probes: []string{"n3", "n2"}, ForMS: req.ForMS, WorstMS: 857.6}}
	if req.Kill {
		r.Fault, r.Groups = "kill", []string{"web", "database", "mail"}
	}
	if r.Epoch = 17; req.DryRun {
		r.Seen.Hosts = []try.Host{}
		return r, nil
	}
	waited, bound, announced, outage := 251.2, 1.4, 0.3, 262.9
	r.Passed, r.Probe, r.NewOwner, r.Epoch = true, "n3", "n2", 18
	r.Seen = try.Seen{Asked: 360, Answered: 308, OutageMS: 265.1, AtLeastMS: 255, ResolutionMS: 5.2, AnsweredLast: true, Hosts: []try.Host{
		{MAC: "02:00:00:00:00:01", Node: "n1", Answers: 50, FirstMS: 0.1, LastMS: 245.1}, {MAC: "02:00:00:00:00:02", Node: "n2", Answers: 258, FirstMS: 510.2, LastMS: 1795.1}}}
	r.Event = &api.Event{Index: 18, Kind: "owner", Group: req.Group, From: "n1", To: "n2", Reason: "lost", OutageMS: &outage,
		Phases: &api.Phases{DetectedMS: 251, ElectedMS: 9.5, WaitedMS: &waited, BoundMS: &bound, AnnouncedMS: &announced}}
	return r, nil
}

func TestTry(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		try  func(api.TryRequest) (api.TryReport, error)
	}{
		"move": {[]string{"--move", "web", "--yes"}, survived},
		"kill": {[]string{"--kill", "web", "--yes", "--for", "2s"}, survived},
		"json": {[]string{"--kill", "web", "--yes", "--json"}, survived},
		"refused": {[]string{"--kill", "web", "--yes"}, func(api.TryRequest) (api.TryReport, error) {
			return api.TryReport{}, errors.New("nothing was done, because the fault would not be survived, or not be measured:\n" +
				"  without n1 1 of 3 voters are there, and 2 are needed (not heard, or not ready: n3)\n--force does it all the same")
		}},
		"failed": {[]string{"--move", "web", "--force", "--yes"}, func(req api.TryRequest) (api.TryReport, error) {
			r, err := survived(req)
			r.Against = []string{"no other node could take web: n2 does not pass its checks"}
			if !req.DryRun {
				r.Passed, r.TwoOwnersMS, r.Event = false, 105, nil
				r.Failures, r.Notes = []string{"two hosts answered for 10.0.0.200 at once, for 105 ms: find out at once which they are"}, []string{"n2 could not measure: gone"}
			}
			return r, err
		}},
		"kept": {[]string{"--kill", "web", "--yes"}, func(req api.TryRequest) (api.TryReport, error) {
			r, err := survived(req)
			if !req.DryRun {
				r.Kept, r.NewOwner, r.Event, r.OutageMS, r.AtLeastMS, r.Hosts = true, "n1", nil, 5.1, 0, r.Hosts[:1]
			}
			return r, err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, socket := startDaemon(t, &fakeAgent{state: formed(), try: tc.try})
			golden(t, "try-"+name, dir, append([]string{"try", "--socket", socket}, tc.args...)...)
		})
	}
}

// TestTryArguments: what is wrong with the command line is said before anything is asked.
func TestTryArguments(t *testing.T) {
	for args, want := range map[string]string{
		"try":                           "one of --move GROUP and --kill GROUP",
		"try --move web --kill web":     "one of --move GROUP and --kill GROUP",
		"try --kill web --to n2 --yes":  "leave out the node",
		"try --move web --for 1m --yes": "watching for 1m0s: want 2s to 10s",
		"try web":                       "takes no arguments, got 1 argument",
		"try --move web --yes --socket a --config b": "both say which daemon",
	} {
		if code, _, stderr := quorate(t, strings.Fields(args)...); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("quorate %s: exit %d, %s; want %q", args, code, stderr, want)
		}
	}
}

// TestTryAsks has the prompt on a terminal answered.
func TestTryAsks(t *testing.T) {
	for typed, want := range map[string]struct {
		code int
		text string
	}{"yes\n": {exitDone, "passed:"}, "y\n": {exitFailed, "nothing was done"}, "\n": {exitFailed, "nothing was done"}} {
		r := newExampleRun(t, example{"quorate try", "quorate try --move web"})
		seen, master := r.startOnTerminal()
		seen.wait(t, "Type yes to go on: ", 1)
		if _, err := master.WriteString(typed); err != nil {
			t.Fatal(err)
		}
		err := r.cmd.Wait()
		seen.wait(t, want.text, 1)
		if code := r.cmd.ProcessState.ExitCode(); code != want.code {
			t.Errorf("%q: exit %d, %v\n%s", typed, code, err, seen.String())
		}
	}
}

// TestTryForLength: what is asked for on the command line arrives.
func TestTryForLength(t *testing.T) {
	var asked []api.TryRequest
	_, socket := startDaemon(t, &fakeAgent{state: formed(), try: func(req api.TryRequest) (api.TryReport, error) {
		asked = append(asked, req)
		return survived(req)
	}})
	if code, _, stderr := quorate(t, "try", "--socket", socket, "--move", "web", "--to", "n2", "--for", "3s", "--force", "--yes"); code != exitDone {
		t.Fatal(stderr)
	}
	want := api.TryRequest{Group: "web", To: "n2", ForMS: (3 * time.Second).Milliseconds(), Force: true, DryRun: true}
	if len(asked) != 2 || asked[0] != want {
		t.Fatalf("asked for %+v, want first %+v", asked, want)
	}
	if want.DryRun, want.Seen = false, 17; asked[1] != want {
		t.Errorf("asked for %+v, want %+v", asked[1], want)
	}
}
