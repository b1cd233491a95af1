package model

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// The bounds under which a rule shows, as defines of lease.pml. Each is searched
// whole, also with no rule taken out.
var (
	smallest  = ""
	leases    = "TWO_LEASES LEASE=2 DRIFT=0" // questions that ask for leases of different length
	freezes   = "FREEZE_BEFORE_WRITE"        // between computing a deadline and writing it
	documents = "EPOCHS=3 DOCUMENTS"         // the address moves between groups
	epochs    = "EPOCHS=3"                   // who is named is learned late
	majority  = "VOTERS=3 PROMPT"
	three     = "OWNERS=3"
)

// A taking is what is taken out at once: a second line goes with its first.
type taking struct {
	bounds string
	rules  []string
}

var takings = []taking{
	{smallest, []string{"WITHOUT_ANEW"}},
	{smallest, []string{"WITHOUT_ANSWER_SINCE"}},
	{smallest, []string{"WITHOUT_BLOCKED"}},
	{smallest, []string{"WITHOUT_BOOTS_BLOCK"}},
	{smallest, []string{"WITHOUT_CLAIM_FROM_RECEIPT"}},
	{smallest, []string{"WITHOUT_CLOCK_BOUND"}},
	{smallest, []string{"WITHOUT_DRAINED_FIRST"}},
	{smallest, []string{"WITHOUT_DRIFT"}},
	{smallest, []string{"WITHOUT_GONE_FIRST"}},
	{smallest, []string{"WITHOUT_GRACE_COUNTS"}},
	{smallest, []string{"WITHOUT_LET_GO_FROM_SENDING"}},
	{smallest, []string{"WITHOUT_NOTE"}},
	{smallest, []string{"WITHOUT_NOTE_PER_ADDRESS"}},
	{smallest, []string{"WITHOUT_ONE_ANSWER"}},
	{smallest, []string{"WITHOUT_RELEASE_FORGETS"}},
	{smallest, []string{"WITHOUT_RELEASE_ORDER"}},
	{smallest, []string{"WITHOUT_RELEASE_VOIDS"}},
	{smallest, []string{"WITHOUT_RESTART_WAIT"}},
	{smallest, []string{"WITHOUT_START_AFTER_BLOCKED"}},
	{smallest, []string{"WITHOUT_THIS_LIFE"}},
	{smallest, []string{"WITH_RESTART_WAIT_SANS_GRACE"}},
	{leases, []string{"WITHOUT_STATED_LEASE"}},
	{leases, []string{"WITHOUT_LONGEST_WRITTEN_FIRST"}},
	{leases, []string{"WITHOUT_NOTE_MAX", "WITHOUT_ASKED_IN_ORDER"}},
	{leases, []string{"WITH_RESTART_WAIT_OF_TODAY"}},
	{freezes, []string{"WITH_RELATIVE_DEADLINE"}},
	{freezes, []string{"WITH_TWO_WRITERS"}},
	{documents, []string{"WITHOUT_APPLIED_ONLY"}},
	{documents, []string{"WITHOUT_NEVER_SUPERSEDED"}},
	{epochs, []string{"WITHOUT_LOG_REPLAYED", "WITHOUT_ANEW"}},
	{epochs, []string{"WITHOUT_ANSWER_EPOCH", "WITHOUT_EPOCH_FORGETS", "WITHOUT_ANEW"}},
	{majority, []string{"WITHOUT_MAJORITY"}},
	{majority, []string{"WITHOUT_EVERY_MEMBER"}},
}

// TestExclusion searches every state within the bounds: at no instant two hosts answer.
func TestExclusion(t *testing.T) {
	for _, bounds := range []string{smallest, leases, freezes, documents, epochs, majority, three} {
		t.Run("bounds "+bounds, func(t *testing.T) {
			t.Parallel()
			out := search(t, bounds)
			if !strings.Contains(out, "errors: 0") || strings.Contains(out, "Search not completed") || strings.Contains(out, "max search depth too small") {
				t.Fatalf("not every state was searched, or two hosts answer:\n%s", out)
			}
			t.Log(states.FindString(out))
		})
	}
}

// TestRules takes each rule out and demands two hosts that answer.
func TestRules(t *testing.T) {
	for _, k := range takings {
		t.Run(strings.Join(k.rules, " and "), func(t *testing.T) {
			t.Parallel()
			if out := search(t, k.bounds, k.rules...); !strings.Contains(out, "assertion violated") || !strings.Contains(out, "errors: 1") {
				t.Fatalf("no two hosts answer:\n%s", out)
			}
		})
	}
}

// Every rule that can be taken out of the model is taken out.
func TestEveryRuleIsTakenOut(t *testing.T) {
	text, err := os.ReadFile("lease.pml")
	if err != nil {
		t.Fatal(err)
	}
	there, listed := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#if") || strings.HasPrefix(line, "#elif") {
			for _, r := range condition.FindAllString(line, -1) {
				there[r] = true
			}
		}
	}
	for _, k := range takings {
		for _, r := range k.rules {
			listed[r] = true
			if !there[r] {
				t.Errorf("lease.pml has no %s", r)
			}
		}
	}
	for r := range there {
		if !listed[r] {
			t.Errorf("%s is in lease.pml and is never set here", r)
		}
	}
}

var (
	condition = regexp.MustCompile(`\bWITH(OUT)?_[A-Z_]*[A-Z]\b`)
	states    = regexp.MustCompile(`\d+ states, stored`)
	// turns keeps the searches from sharing a processor.
	turns = make(chan struct{}, runtime.NumCPU())
)

// search has Spin make a verifier of the model, runs it, and returns what that says.
func search(t *testing.T, bounds string, rules ...string) string {
	t.Helper()
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: %s is not installed (apt-get install %s)", tool, tool)
		}
	}
	turns <- struct{}{}
	defer func() { <-turns }()
	model, err := filepath.Abs("lease.pml")
	if err != nil {
		t.Fatal(err)
	}
	dir, args := t.TempDir(), []string{"-a"}
	for _, d := range append(strings.Fields(bounds), rules...) {
		args = append(args, "-D"+d)
	}
	run(t, dir, "spin", append(args, model)...)
	run(t, dir, "gcc", "-w", "-O2", "-DSAFETY", "-DNOREDUCE", "-DNOBOUNDCHECK", "-DMEMLIM=3000", "-o", "pan", "pan.c")
	return run(t, dir, "./pan", "-n", "-m2000000", "-w22")
}

// run returns what a command prints. That a verifier finds an error is no failure of it.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatal(fmt.Errorf("%s %v: %w\n%s", name, args, err, out))
	}
	return string(out)
}
