package sim_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	mutantsFrom = flag.String("mutants", "near", "where TestMutants begins to look: near the seed in testdata/mutants.txt; "+
		"full: at seed 0; update: at seed 0, and write what was found to testdata/mutants.txt")
	mutantsBudget = flag.Int("mutants-budget", 20000, "how many seeds a mutant is looked for in")
)

const (
	seedsFile = "testdata/mutants.txt"
	// mostRuns is how many one process makes: what a mutant keeps of each is lost then.
	mostRuns = 1600
	// runPatience bounds one run of a mutated binary; one that takes longer hangs.
	runPatience = 10 * time.Minute
)

// TestMutants takes each rule of safety out of the product in turn, and fails unless
// that shows. What shows is a broken promise, in the words of whoever watches the
// runs: a mutant that does not compile, hangs or panics is not caught by that.
func TestMutants(t *testing.T) {
	if os.Getenv(mutantsVar) != "" {
		t.Skip("this binary is a mutant itself")
	}
	t.Parallel()
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	lab := newMutantLab(t, top)
	t.Run("each", func(t *testing.T) {
		for _, m := range mutants {
			t.Run(m.rule, func(t *testing.T) {
				t.Parallel()
				lab.try(t, m)
			})
		}
	})
	if *mutantsFrom == "update" && !t.Failed() {
		lab.writeSeeds(t)
	}
}

// TestMutantsAreTheRules compares what the sources mark, what is taken out, and what
// the tables of docs/lease.md say.
func TestMutantsAreTheRules(t *testing.T) {
	t.Parallel()
	rules := findRules(t, "../..")
	rows := ruleRows(t, "../../docs/lease.md")
	said := map[string][]string{} // by rule: what its row has to say
	for _, m := range mutants {
		if _, twice := said[m.rule]; twice {
			t.Errorf("rule %s has two mutants", m.rule)
		}
		_, test, _ := strings.Cut(m.test, " ")
		said[m.rule] = []string{m.behind, m.script, test}
		if m.script == "" && m.test == "" {
			said[m.rule] = append(said[m.rule], "TestChaos")
		}
		if _, ok := rules[m.rule]; !ok {
			t.Errorf("the mutant of %s has no function marked %s%s", m.rule, ruleMark, m.rule)
		}
	}
	for name, r := range rules {
		if _, listed := said[name]; !listed {
			t.Errorf("rule %s (%s in %s) has no mutant", name, r.fn, r.file)
		}
		row, ok := rows[name]
		if !ok {
			t.Errorf("rule %s (%s in %s) has no row in docs/lease.md", name, r.fn, r.file)
			continue
		}
		for _, word := range append(said[name], r.fn) {
			if !strings.Contains(row, word) {
				t.Errorf("the row of rule %s in docs/lease.md does not say %q:\n%s", name, word, row)
			}
		}
	}
	for name := range rows {
		if _, ok := rules[name]; !ok {
			t.Errorf("docs/lease.md has a row for rule %s, which no function is marked as", name)
		}
	}
}

// ruleRows are the rows of all tables whose first column is headed "id", by that.
func ruleRows(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rows, in := map[string]string{}, false
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		switch {
		case len(cells) < 3:
			in = false
		case strings.TrimSpace(cells[1]) == "id":
			in = true
		case in && strings.Contains(cells[1], "`"):
			rows[strings.Trim(cells[1], " `")] = line
		}
	}
	return rows
}

// A mutantLab has the binaries that can do without any of the rules.
type mutantLab struct {
	top     string
	overlay string
	dir     string
	mu      sync.Mutex
	built   map[string]func() (string, error) // by package
	seeds   map[string]uint64                 // by rule
}

func newMutantLab(t *testing.T, top string) *mutantLab {
	t.Helper()
	ways := map[string]mutant{}
	for _, m := range mutants {
		ways[m.rule] = m
	}
	l := &mutantLab{top: top, dir: t.TempDir(), overlay: writeOverlay(t, top, findRules(t, top), ways),
		built: map[string]func() (string, error){}, seeds: map[string]uint64{}}
	if *mutantsFrom == "near" {
		l.readSeeds(t)
	}
	return l
}

// binary builds the tests of a package, once.
func (l *mutantLab) binary(t *testing.T, pkg string) string {
	t.Helper()
	l.mu.Lock()
	build := l.built[pkg]
	if build == nil {
		to := filepath.Join(l.dir, fmt.Sprintf("%d.test", len(l.built)))
		build = sync.OnceValues(func() (string, error) {
			c := exec.Command("go", "test", "-c", "-overlay", l.overlay, "-o", to, pkg)
			c.Dir = l.top
			if out, err := c.CombinedOutput(); err != nil {
				return "", fmt.Errorf("build the mutants of %s: %w\n%s", pkg, err, out)
			}
			return to, nil
		})
		l.built[pkg] = build
	}
	l.mu.Unlock()
	file, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// run runs a test without the rules named and returns what it printed, and whether
// it passed. What neither passes nor fails in an orderly way fails t.
func (l *mutantLab) run(t *testing.T, without []string, of proof, args ...string) (output string, passed bool) {
	t.Helper()
	test, sub, _ := strings.Cut(of.test, "/")
	pattern := "^" + test + "$"
	if sub != "" {
		pattern += "/^" + sub + "$"
	}
	ctx, cancel := context.WithTimeout(t.Context(), runPatience)
	defer cancel()
	c := exec.CommandContext(ctx, l.binary(t, of.pkg), append([]string{"-test.run", pattern, "-test.v"}, args...)...)
	c.Dir = filepath.Join(l.top, of.pkg)
	c.Env = append(os.Environ(), mutantsVar+"="+strings.Join(without, ","), "GOMAXPROCS=1")
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	output = out.String()
	var exit *exec.ExitError
	switch {
	case err == nil && strings.Contains(output, "--- PASS: "+test):
		return output, true
	case errors.As(err, &exit) && exit.ExitCode() == 1 && strings.Contains(output, "--- FAIL: "+test) && !strings.Contains(output, "\npanic: "):
		return output, false
	}
	t.Fatalf("without %v: %s of %s neither passes nor fails: %v\n%s", without, of.test, of.pkg, err, tail(output))
	return "", false
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// try asks for proof that the product needs m's rule: a run, or a test, in which
// nothing is amiss but without the rule. For a second line, nothing is amiss without
// it either, nor without its first line, but without both.
func (l *mutantLab) try(t *testing.T, m mutant) {
	t.Helper()
	of := m.proof()
	l.mu.Lock()
	first := l.seeds[m.rule]
	l.mu.Unlock()
	last := first + uint64(*mutantsBudget)
	if of.runs == "" {
		last = first + 1
	}
	for seed := first; seed < last; seed++ {
		var said string
		seed, said = l.hunt(t, of, m.without(), seed)
		if m.behind != "" && (!l.passes(t, of, seed, m.rule) || !l.passes(t, of, seed, m.behind)) {
			continue // one of them is enough for this run
		}
		if !l.passes(t, of, seed) {
			t.Fatalf("the product itself breaks a promise in %s at seed %d", of.test, seed)
		}
		t.Logf("%s, seed %d: %s", m, seed, said)
		l.mu.Lock()
		l.seeds[m.rule] = seed
		l.mu.Unlock()
		return
	}
	t.Fatalf("%s: each run of %d needs one of the two alone", m, last-first)
}

// A proof is where the lack of a rule shows.
type proof struct {
	pkg, test string
	runs      string // the flag that says how many seeds; empty: there are none
}

func (m mutant) proof() proof {
	switch {
	case m.test != "":
		pkg, test, _ := strings.Cut(m.test, " ")
		return proof{pkg, test, ""}
	case m.script != "":
		return proof{"./tests/sim", "TestAmbush/" + m.script, "-ambushes"}
	}
	return proof{"./tests/sim", "TestChaos", "-seeds"}
}

func (m mutant) without() []string {
	if m.behind == "" {
		return []string{m.rule}
	}
	return []string{m.rule, m.behind}
}

// String says what is taken out, and where that shows.
func (m mutant) String() string {
	return "without " + strings.Join(m.without(), " and ") + ", by " + m.proof().test
}

// complaint is how a test reports a broken promise.
var complaint = regexp.MustCompile(`(?m)seed (\d+): (.*)$`)

// hunt looks for the first seed, from the given one, at which a promise is broken.
func (l *mutantLab) hunt(t *testing.T, of proof, without []string, first uint64) (seed uint64, said string) {
	t.Helper()
	if of.runs == "" {
		out, passed := l.run(t, without, of)
		if passed {
			t.Fatalf("%s passes without %s", of.test, strings.Join(without, " and "))
		}
		return 0, firstComplaint(out)
	}
	for tried, runs := 0, 25; tried < *mutantsBudget; tried, runs = tried+runs, min(2*runs, mostRuns) {
		out, passed := l.run(t, without, of, of.runs, strconv.Itoa(runs), "-first", strconv.FormatUint(first+uint64(tried), 10))
		if passed {
			continue
		}
		found := complaint.FindStringSubmatch(out)
		if found == nil {
			t.Fatalf("%s fails without %s and names no seed:\n%s", of.test, strings.Join(without, " and "), tail(out))
		}
		seed, err := strconv.ParseUint(found[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return seed, found[2]
	}
	t.Fatalf("without %s, no promise is broken in %d runs of %s from seed %d: is the rule needed, or are the runs too tame?",
		strings.Join(without, " and "), *mutantsBudget, of.test, first)
	return 0, ""
}

func firstComplaint(output string) string {
	for line := range strings.Lines(output) {
		if strings.Contains(line, "_test.go:") {
			return strings.TrimSpace(line)
		}
	}
	return "(it says nothing)"
}

// passes makes one run.
func (l *mutantLab) passes(t *testing.T, of proof, seed uint64, without ...string) bool {
	t.Helper()
	var args []string
	if of.runs != "" {
		args = []string{of.runs, "1", "-first", strconv.FormatUint(seed, 10)}
	}
	_, passed := l.run(t, without, of, args...)
	return passed
}

func (l *mutantLab) readSeeds(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(seedsFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var rule string
		var seed uint64
		if _, err := fmt.Sscan(line, &rule, &seed); err != nil {
			t.Fatalf("%s: %q: want a rule and a seed: %v", seedsFile, line, err)
		}
		l.seeds[rule] = seed
	}
}

func (l *mutantLab) writeSeeds(t *testing.T) {
	t.Helper()
	var lines []string
	for rule, seed := range l.seeds {
		lines = append(lines, fmt.Sprintf("%s %d\n", rule, seed))
	}
	slices.Sort(lines)
	if err := os.WriteFile(seedsFile, []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
}
