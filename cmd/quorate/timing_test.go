package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/term"
)

// goldenText compares a text with a file in testdata.
func goldenText(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got)\n%s", file, d)
	}
}

func timed() fsm.Document {
	return fsm.Document{MaxHold: 5 * time.Second, Groups: []fsm.Group{
		{Name: "web", Announce: fsm.Announce{Repeat: 5, Refresh: time.Minute}, VRRP: fsm.VRRP{ID: 51, Version: 3, Priority: 254, Interval: time.Second}},
		{Name: "fast", Announce: fsm.Announce{Repeat: 1}, VRRP: fsm.VRRP{ID: 52, Version: 3, Priority: 254, Interval: 100 * time.Millisecond}},
		{Name: "mail", Announce: fsm.Announce{Repeat: 2, Refresh: time.Minute}},
	}}
}

func TestExplainTiming(t *testing.T) {
	st := formed()
	r := newTiming(st, timed())
	for _, width := range []int{0, 40, 80, 120} {
		goldenText(t, fmt.Sprintf("timing-%d", width), r.text(term.Screen{Width: width}))
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	goldenText(t, "timing-json", string(b)+"\n")
	st.Fence, st.LeaseMS, st.RenewMS = "lifetime", 3000, 1000
	goldenText(t, "timing-lifetime", newTiming(st, timed()).text(term.Screen{}))
}

// TestExplainTimingAsked: the command gets its figures from the daemon.
func TestExplainTimingAsked(t *testing.T) {
	f := &fakeAgent{state: formed(), Admin: &admin{}}
	_, socket := startDaemon(t, f)
	code, stdout, stderr := quorate(t, "explain", "timing", "--socket", socket)
	if code != exitDone || !strings.Contains(stdout, "max-hold") || !strings.Contains(stdout, "5 s") {
		t.Errorf("exit %d, %s%s", code, stdout, stderr)
	}
	f.state.Election = alone
	if code, _, stderr := quorate(t, "explain", "timing", "--socket", socket); code != exitFailed || !strings.Contains(stderr, "no lease to explain") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

// TestLeasesThatAreCompared: each is one that a file may have.
func TestLeasesThatAreCompared(t *testing.T) {
	dir := t.TempDir()
	for lifetime, leases := range candidates {
		for _, l := range leases {
			more := fmt.Sprintf("lease: %s\n", l)
			if lifetime {
				more += "fence: lifetime\n"
			}
			if _, err := config.Load(configure(t, dir, more)); err != nil {
				t.Errorf("lease %s: %v", l, err)
			}
			os.Remove(filepath.Join(dir, "key"))
		}
	}
}
