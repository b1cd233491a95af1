package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// A fakeAdmin notes the orders, and refuses them with err.
type fakeAdmin struct {
	err    error
	orders []string
	stuck  bool // it answers when the context ends
}

func (f *fakeAdmin) note(ctx context.Context, format string, args ...any) error {
	f.orders = append(f.orders, fmt.Sprintf(format, args...))
	if f.stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	return f.err
}

func (f *fakeAdmin) Drain(ctx context.Context, node string, yes bool, user string) error {
	return f.note(ctx, "drain %s %v by %s", node, yes, user)
}

func (f *fakeAdmin) Remove(ctx context.Context, node string, force bool, user string) error {
	return f.note(ctx, "remove %s %v by %s", node, force, user)
}

func (f *fakeAdmin) Apply(ctx context.Context, r ApplyRequest, user string) (Applied, error) {
	return Applied{Before: 1, Revision: 2, DryRun: r.DryRun, Diff: "+x\n", Effects: []string{}, Checked: []string{"n1"}},
		f.note(ctx, "apply %s (%d bytes, seen %d, dry %v) by %s", r.Name, len(r.Text), r.Seen, r.DryRun, user)
}

func (f *fakeAdmin) Rollback(ctx context.Context, r RollbackRequest, user string) (Applied, error) {
	return Applied{Before: 4, Revision: 5}, f.note(ctx, "rollback %+v by %s", r, user)
}

func (f *fakeAdmin) History(ctx context.Context) ([]Revision, error) {
	return []Revision{{Revision: 1, Groups: 1}, {Revision: 2, By: "root@n1", Groups: 2}}, f.note(ctx, "history")
}

func (f *fakeAdmin) Revision(ctx context.Context, n uint64) (Revision, error) {
	return Revision{Revision: n, Document: "vips: {}\n"}, f.note(ctx, "revision %d", n)
}

func (f *fakeAdmin) Explain(ctx context.Context, group string) (fsm.Explanation, error) {
	return fsm.Explanation{Group: group, Owner: "n1"}, f.note(ctx, "explain %s", group)
}

func (f *fakeAdmin) Snapshot(ctx context.Context) (Snapshot, error) {
	s, err := TakeSnapshot(savedState(), "n1", time.Unix(1e9, 0))
	return s, errors.Join(err, f.note(ctx, "snapshot"))
}

func (f *fakeAdmin) Restore(ctx context.Context, s Snapshot, user string) (Restored, error) {
	_, err := s.Open()
	return Restored{Drained: []string{"n2"}}, errors.Join(err, f.note(ctx, "restore of revision %d by %s", s.Revision, user))
}

func savedState() *fsm.State {
	return &fsm.State{Cluster: fsm.ClusterID{9}, Name: "prod", Index: 17, Term: 3, Drained: map[fsm.InstanceID]bool{{1}: true},
		Nodes:    map[fsm.InstanceID]fsm.Node{{1}: {ID: fsm.InstanceID{1}, Name: "n1", Address: netip.MustParseAddrPort("10.0.0.1:7950"), Role: fsm.Member}},
		Document: fsm.Document{Revision: 2, MaxHold: time.Second, Groups: []fsm.Group{{Name: "web", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.200/24")}}}}}
}

func TestAdminRoutes(t *testing.T) {
	const from = "192.0.2.1:1234" // httptest's; the socket has a user's name there
	large := `{"text":"` + strings.Repeat("x", maxDocument) + `"}`
	for _, tc := range []struct {
		method, path, body string
		code               int
		want               string // in the body
		order              string
	}{
		{"POST", "/v1/drain", ``, 200, `{"node":"n1","drained":true,"groups":["web"]}`, "drain n1 true by " + from},
		{"POST", "/v1/drain", `{"node":"n2"}`, 200, `{"node":"n2","drained":true,"groups":[]}`, "drain n2 true by " + from},
		{"POST", "/v1/undrain", `{"node":"n2"}`, 200, `"drained":false`, "drain n2 false by " + from},
		{"POST", "/v1/drain", `{"node":"n2","force":true}`, 400, `/v1/remove only`, ""},
		{"GET", "/v1/drain", ``, 405, `takes POST`, ""},
		{"POST", "/v1/remove", `{}`, 400, `must name the node`, ""},
		{"POST", "/v1/remove", `{"node":"n3"}`, 200, `{"node":"n3","voters":1}`, "remove n3 false by " + from},
		{"POST", "/v1/remove", `{"node":"n3","force":true}`, 200, `"node":"n3"`, "remove n3 true by " + from},
		{"POST", "/v1/apply", `{"name":"f"}`, 400, `must have the configuration file`, ""},
		{"POST", "/v1/apply", `{"text":"vips: {}","seen":3,"dry_run":true}`, 200, `"dry_run":true`, "apply the document (8 bytes, seen 3, dry true) by " + from},
		{"POST", "/v1/apply", `{"text":"` + strings.Repeat("x", maxBody) + `"}`, 200, `"revision":2`, "apply the document (65536 bytes, seen 0, dry false) by " + from},
		{"POST", "/v1/apply", large, 413, `longer than 3145728 bytes`, ""},
		{"POST", "/v1/rollback", `{}`, 400, `must name the revision`, ""},
		{"POST", "/v1/rollback", `{"revision":3}`, 200, `"revision":5`, "rollback {Revision:3 Seen:0 DryRun:false} by " + from},
		{"GET", "/v1/history", ``, 200, `{"revisions":[{"revision":1,`, "history"},
		{"GET", "/v1/history/2", ``, 200, `"document":"vips: {}\n"`, "revision 2"},
		{"GET", "/v1/history/0", ``, 400, `is no revision`, ""},
		{"GET", "/v1/history/two", ``, 400, `\"two\" is no revision`, ""},
		{"GET", "/v1/history/", ``, 404, `there is no`, ""},
		{"GET", "/v1/explain/web", ``, 200, `"group":"web"`, "explain web"},
		{"GET", "/v1/explain/", ``, 404, `there is no`, ""},
		{"GET", "/v1/explain/web/x", ``, 404, `there is no`, ""},
		{"POST", "/v1/explain/web", ``, 405, `takes GET`, ""},
		{"GET", "/v1/snapshot", ``, 200, `"format":"quorate-snapshot"`, "snapshot"},
		{"POST", "/v1/restore", `{}`, 409, `this is no snapshot of quorate's`, "restore of revision 0 by " + from},
	} {
		admin := &fakeAdmin{}
		st := healthy()
		st.Members = []core.MemberStatus{{Name: "n1", Voter: true}, {Name: "n3", Voter: true}, {Name: "n4"}}
		got, body := ask(t, &fakeAgent{Admin: admin, status: answers(st)}, tc.method, tc.path, tc.body)
		if got != tc.code || !strings.Contains(body, tc.want) {
			t.Errorf("%s %s %.60s: got %d %.200s; want %d with %s", tc.method, tc.path, tc.body, got, body, tc.code, tc.want)
		}
		if orders := strings.Join(admin.orders, ", "); orders != tc.order {
			t.Errorf("%s %s %.60s: orders %q, want %q", tc.method, tc.path, tc.body, orders, tc.order)
		}
	}
}

func TestAdminRefusals(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code int
	}{
		{fmt.Errorf("the document is at revision 3: %w", fsm.ErrStale), 409},
		{fsm.ErrNotFormed, 503},
		{core.ErrNoCluster, 409},
	} {
		agent := &fakeAgent{Admin: &fakeAdmin{err: tc.err}, status: answers(healthy())}
		got, body := ask(t, agent, "POST", pathApply, `{"name":"f.yaml","text":"vips: {}"}`)
		var p problem
		if err := json.Unmarshal([]byte(body), &p); err != nil || got != tc.code || p.Error != "apply f.yaml: "+tc.err.Error() {
			t.Errorf("%v: %d %s", tc.err, got, body)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		agent := &fakeAgent{Admin: &fakeAdmin{stuck: true}, status: answers(healthy())}
		if got, body := ask(t, agent, "POST", pathRemove, `{"node":"n3"}`); got != 504 || time.Since(began) != AdminTime {
			t.Errorf("stuck: %d %s after %s", got, body, time.Since(began))
		}
	})
}

// TestAdminClient goes all the way over a real socket, whose user is who runs the test.
func TestAdminClient(t *testing.T) {
	admin := &fakeAdmin{}
	c := client(t, serve(t, &fakeAgent{Admin: admin, status: answers(healthy())}))
	ctx := t.Context()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if d, err := c.Drain(ctx, "", true); err != nil || !cmp.Equal(d, Drained{Node: "n1", Drained: true, Groups: []string{"web"}}) {
		t.Errorf("drain: %+v, %v", d, err)
	}
	if d, err := c.Drain(ctx, "n2", false); err != nil || d.Node != "n2" || d.Drained {
		t.Errorf("undrain: %+v, %v", d, err)
	}
	if r, err := c.Remove(ctx, "n3", true); err != nil || r.Node != "n3" {
		t.Errorf("remove: %+v, %v", r, err)
	}
	if a, err := c.Apply(ctx, ApplyRequest{Name: "f", Text: "vips:", Seen: 1}); err != nil || a.Revision != 2 || a.Diff != "+x\n" {
		t.Errorf("apply: %+v, %v", a, err)
	}
	if a, err := c.Rollback(ctx, RollbackRequest{Revision: 3}); err != nil || a.Before != 4 {
		t.Errorf("rollback: %+v, %v", a, err)
	}
	if h, err := c.History(ctx); err != nil || len(h) != 2 || h[1].By != "root@n1" {
		t.Errorf("history: %+v, %v", h, err)
	}
	if r, err := c.Revision(ctx, 7); err != nil || r.Revision != 7 || r.Document == "" {
		t.Errorf("revision: %+v, %v", r, err)
	}
	if e, err := c.Explain(ctx, "web"); err != nil || e.Group != "web" {
		t.Errorf("explain: %+v, %v", e, err)
	}
	s, err := c.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Restore(ctx, s); err != nil || len(r.Drained) != 1 {
		t.Errorf("restore: %+v, %v", r, err)
	}
	by := me.Username
	if os.Getuid() == 0 {
		by = Root
	}
	want := []string{"drain n1 true by " + by, "drain n2 false by " + by, "remove n3 true by " + by, "apply f (5 bytes, seen 1, dry false) by " + by,
		"rollback {Revision:3 Seen:0 DryRun:false} by " + by, "history", "revision 7", "explain web", "snapshot", "restore of revision 2 by " + by}
	if d := cmp.Diff(want, admin.orders); d != "" {
		t.Errorf("orders (-want +got)\n%s", d)
	}
}

// TestUserIsTheKernels: another user than the daemon's is named, and cannot name itself.
func TestUserIsTheKernels(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root, to become nobody")
	}
	admin := &fakeAdmin{}
	path := serve(t, &fakeAgent{Admin: admin, status: answers(healthy())})
	for p := path; p != "/tmp" && p != "/"; p = p[:strings.LastIndexByte(p, '/')] {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	c := client(t, path)
	tr := c.http.Transport.(*http.Transport)
	dial := tr.DialContext
	tr.DialContext = func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		// The kernel notes the effective user of the thread that connects.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		seteuid(t, 65534)
		defer seteuid(t, 0)
		return dial(ctx, network, addr)
	}
	if _, err := c.Drain(t.Context(), "n2", true); err != nil {
		t.Fatal(err)
	}
	nobody, err := user.LookupId("65534")
	if err != nil {
		t.Skip("SKIPPED: this host has no user 65534:", err)
	}
	if want := "drain n2 true by " + nobody.Username; len(admin.orders) != 1 || admin.orders[0] != want {
		t.Errorf("orders %q, want %q", admin.orders, want)
	}
}

// seteuid changes the user of this thread alone.
func seteuid(t *testing.T, uid uintptr) {
	t.Helper()
	const same = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uid, same); errno != 0 {
		t.Fatal(errno)
	}
}

func TestSnapshot(t *testing.T) {
	st := savedState()
	s, err := TakeSnapshot(st, "n1", time.Unix(1e9, 5))
	if err != nil {
		t.Fatal(err)
	}
	indented, err := json.MarshalIndent(s, "", "    ")
	if err != nil {
		t.Fatal(err)
	}
	var back Snapshot
	if err := json.Unmarshal(indented, &back); err != nil {
		t.Fatal(err)
	}
	got, err := back.Open()
	if err != nil || got.Cluster != st.Cluster || got.Document.Groups[0].Name != "web" || !got.Drained[fsm.InstanceID{1}] || back.Index != 17 {
		t.Errorf("opened %+v, %v", got, err)
	}
	for name, tc := range map[string]struct {
		damage func(*Snapshot)
		want   string
	}{
		"another format": {func(s *Snapshot) { s.Format = "tar" }, "no snapshot of quorate's"},
		"newer":          {func(s *Snapshot) { s.Version = 2 }, "version 2, and this quorate reads version 1"},
		"one bit":        {func(s *Snapshot) { s.State = []byte(strings.Replace(string(s.State), "10.0.0.200", "10.0.0.201", 1)) }, "is damaged: its state has the checksum"},
		"cut off":        {func(s *Snapshot) { s.State = s.State[:len(s.State)/2] }, "is damaged"},
		"no state":       {func(s *Snapshot) { s.State = nil }, "is damaged"},
		"relabelled":     {func(s *Snapshot) { s.ClusterID = fsm.ClusterID{8}.String() }, "is damaged: it says cluster 08"},
	} {
		bad := s
		bad.State = append([]byte(nil), s.State...)
		tc.damage(&bad)
		if _, err := bad.Open(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
