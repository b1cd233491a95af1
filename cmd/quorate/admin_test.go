package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
)

// An admin is a cluster that does as it is told. What it is told is in asked.
type admin struct {
	f       *fakeAgent // its status changes with the orders; nil: it stays
	asked   []string
	err     error
	applied api.Applied
	explain fsm.Explanation
}

func (a *admin) Drain(_ context.Context, node string, yes bool, _ string) error {
	if a.err != nil {
		return a.err
	}
	if yes && a.f != nil {
		a.f.mu.Lock()
		defer a.f.mu.Unlock()
		for i := range a.f.state.VIPs {
			if v := &a.f.state.VIPs[i]; v.Owner == node {
				v.Owner, v.State, v.Open = "n2", "backup", true
				if node == "n2" {
					v.Owner, v.State = "n1", "active"
				}
			}
		}
	}
	return nil
}

func (a *admin) Remove(_ context.Context, node string, force bool, _ string) error { return a.err }

func (a *admin) Apply(_ context.Context, r api.ApplyRequest, _ string) (api.Applied, error) {
	a.asked = append(a.asked, r.Text)
	out := a.applied
	out.DryRun = r.DryRun
	return out, a.err
}

func (a *admin) Rollback(_ context.Context, r api.RollbackRequest, _ string) (api.Applied, error) {
	out := a.applied
	out.DryRun = r.DryRun
	return out, a.err
}

func (a *admin) History(context.Context) ([]api.Revision, error) {
	return []api.Revision{{Revision: 1, Groups: 1}, {Revision: 2, At: time.Date(2026, 11, 22, 21, 54, 40, 0, time.Local), By: "root@n2", Groups: 2}}, a.err
}

func (a *admin) Revision(_ context.Context, n uint64) (api.Revision, error) {
	return api.Revision{Revision: n, By: "root@n2", Groups: 1, Document: "vips:\n  web:\n    addresses: [10.0.0.200/24]\n"}, a.err
}

func (a *admin) Events(after uint64) (api.Events, error) {
	e := happened()
	e.Events = slices.DeleteFunc(e.Events, func(e api.Event) bool { return e.Index <= after })
	return e, a.err
}

func (a *admin) Explain(context.Context, string) (fsm.Explanation, error) { return a.explain, a.err }

func (a *admin) Snapshot(context.Context) (api.Snapshot, error) {
	return api.TakeSnapshot(savedState(), "n1", time.Unix(1e9, 0))
}

func (a *admin) Restore(_ context.Context, s api.Snapshot, _ string) (api.Restored, error) {
	_, err := s.Open()
	return api.Restored{Applied: a.applied, Drained: []string{"n2"}, Gone: []string{"n7"}}, errors.Join(err, a.err)
}

func savedState() *fsm.State {
	return &fsm.State{Cluster: fsm.ClusterID{9}, Name: "prod", Index: 17, Document: fsm.Document{Revision: 2, MaxHold: 5 * time.Second,
		Groups: []fsm.Group{{Name: "web", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.200/24")}, Placement: fsm.PlacementLeader,
			Announce: fsm.Announce{Repeat: 5, Refresh: time.Minute}}}}}
}

var changed = api.Applied{Before: 3, Revision: 4, Diff: "@@ vips.web @@\n vips:\n   web:\n-    addresses: [10.0.0.200/24]\n+    addresses: [10.0.0.201/24]\n",
	Effects: []string{"web: 10.0.0.200/24 goes, 10.0.0.201/24 comes; its owner stays, and proves its lease anew"}, Checked: []string{"n1", "n2"}, Unheard: []string{"n3"},
	Warnings: []string{"n2: vips.web.vrrp.interval: too short"}}

// webExplained is web on n1, which n2 could not take.
var webExplained = fsm.Explanation{Group: "web", Placement: "priority", Owner: "n1", Epoch: 17, Reason: "first", Together: []string{"mail"},
	Candidates: []fsm.Candidate{{Name: "n1", Score: 150, Fit: true, Why: []string{"owns it"}},
		{Name: "n2", Score: 80, Why: []string{"fails a check of it"}}, {Name: "n3", Why: []string{"is a witness and never holds an address"}}},
	Next: []string{"if n1 is lost, it stays without an owner"}}

func TestAdminCommands(t *testing.T) {
	nothing := api.Applied{Before: 3, Revision: 3, Checked: []string{}, Effects: []string{}}
	for name, tc := range map[string]struct {
		admin admin
		still bool // orders change nothing
		args  []string
	}{
		"drain":            {args: []string{"drain"}},
		"drain-idle":       {args: []string{"drain", "n3"}},
		"drain-stays":      {still: true, admin: admin{explain: webExplained}, args: []string{"drain", "n1", "--timeout", "20ms"}},
		"drain-unknown":    {admin: admin{err: errors.New(`there is no node "n9"; quorate members lists them`)}, args: []string{"drain", "n9"}},
		"move-json":        {args: []string{"move", "web", "n1", "--json"}},
		"drain-json":       {args: []string{"drain", "--json"}},
		"undrain-json":     {args: []string{"undrain", "n2", "--json"}},
		"remove-json":      {args: []string{"remove", "n3", "--json"}},
		"restore-json":     {admin: admin{applied: changed}, args: []string{"snapshot", "restore", "DIR/snap.json", "--json"}},
		"undrain":          {args: []string{"undrain", "n2"}},
		"remove":           {args: []string{"remove", "n3"}},
		"remove-refused":   {admin: admin{err: errors.New("node n2 is alive and owns database")}, args: []string{"remove", "n2", "--force"}},
		"apply":            {admin: admin{applied: changed}, args: []string{"apply", "DIR/f.yaml"}},
		"apply-dry":        {admin: admin{applied: changed}, args: []string{"apply", "--dry-run", "DIR/f.yaml"}},
		"apply-json":       {admin: admin{applied: changed}, args: []string{"apply", "--json", "DIR/f.yaml"}},
		"apply-same":       {admin: admin{applied: nothing}, args: []string{"apply", "DIR/f.yaml"}},
		"apply-refused":    {admin: admin{err: errors.New("the document is at revision 4, applied by bob@n2")}, args: []string{"apply", "--seen", "3", "DIR/f.yaml"}},
		"apply-no-file":    {args: []string{"apply", "DIR/none.yaml"}},
		"apply-empty":      {args: []string{"apply", "DIR/empty.yaml"}},
		"diff":             {admin: admin{applied: changed}, args: []string{"diff", "DIR/f.yaml"}},
		"diff-exit":        {admin: admin{applied: changed}, args: []string{"diff", "--exit-code", "DIR/f.yaml"}},
		"diff-same":        {admin: admin{applied: nothing}, args: []string{"diff", "--exit-code", "DIR/f.yaml"}},
		"history":          {args: []string{"history"}},
		"history-json":     {args: []string{"history", "1", "--json"}},
		"history-one":      {args: []string{"history", "2"}},
		"rollback":         {admin: admin{applied: changed}, args: []string{"rollback", "2"}},
		"explain":          {admin: admin{explain: webExplained}, args: []string{"explain", "web"}},
		"explain-json":     {admin: admin{explain: webExplained}, args: []string{"explain", "web", "--json"}},
		"snapshot-restore": {admin: admin{applied: changed}, args: []string{"snapshot", "restore", "DIR/snap.json"}},
		"snapshot-damaged": {args: []string{"snapshot", "restore", "DIR/damaged.json"}},
		"snapshot-other":   {args: []string{"snapshot", "restore", "DIR/f.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeAgent{state: formed(), Admin: &tc.admin, move: func(s *core.Status, _, _ string) error {
				s.VIPs[0].Epoch++
				return nil
			}}
			if !tc.still {
				tc.admin.f = f
			}
			dir, socket := startDaemon(t, f)
			writeFiles(t, dir)
			args := []string{}
			for _, a := range tc.args {
				args = append(args, strings.ReplaceAll(a, "DIR", dir))
			}
			golden(t, name, dir, append(args, "--socket", socket)...)
		})
	}
}

// snapshotExample is a snapshot as a file has it.
func snapshotExample(t *testing.T) string {
	t.Helper()
	s, err := api.TakeSnapshot(savedState(), "n1", time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func writeFiles(t *testing.T, dir string) {
	t.Helper()
	b := snapshotExample(t)
	for name, text := range map[string]string{
		"f.yaml": "vips: {web: {addresses: [10.0.0.201/24]}}\n", "empty.yaml": "\n", "snap.json": b,
		"damaged.json": strings.Replace(b, "10.0.0.200", "10.0.0.99", 1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestApplyReadsInput: a document comes as it was written, also by a pipe.
func TestApplyReadsInput(t *testing.T) {
	a := &admin{applied: changed}
	_, socket := startDaemon(t, &fakeAgent{state: formed(), Admin: a})
	root := newRootCommand()
	root.SetArgs([]string{"apply", "-", "--socket", socket})
	root.SetIn(strings.NewReader("vips: {}\n"))
	root.SetOut(&strings.Builder{})
	if err := root.ExecuteContext(t.Context()); err != nil || len(a.asked) != 1 || a.asked[0] != "vips: {}\n" {
		t.Errorf("asked for %q, %v", a.asked, err)
	}
}

// TestSnapshotFile: what was saved is whole, private, and can be read without a daemon.
func TestSnapshotFile(t *testing.T) {
	dir, socket := startDaemon(t, &fakeAgent{state: formed(), Admin: &admin{}})
	file := filepath.Join(dir, "snap.json")
	golden(t, "snapshot-save", dir, "snapshot", "save", file, "--socket", socket)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	golden(t, "snapshot-print", dir, "snapshot", "print", file)
	if code, _, stderr := quorate(t, "snapshot", "save", filepath.Join(dir, "no", "file"), "--socket", socket); code != exitFailed || !strings.Contains(stderr, "no such file") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestVotersLeft(t *testing.T) {
	for n, want := range map[int]string{1: "nobody takes over", 2: "when either fails", 3: "3 voters are left: 1 may fail", 5: "2 may fail"} {
		if got := votersLeft(n); !strings.Contains(got, want) {
			t.Errorf("%d: %q", n, got)
		}
	}
}

func TestMembersRemoved(t *testing.T) {
	s := core.Status{Node: "n3", State: "removed", Election: "raft", Problems: []string{"this node was removed from the cluster: stop it"}}
	if got := findings(s); len(got) != 1 {
		t.Errorf("findings %v, want the one", got)
	}
}
