package hooks

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
)

// A record is what programs wrote down, and what was logged.
type record struct {
	dir string
	mu  sync.Mutex
	log strings.Builder
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func (r *record) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// argv is a program that runs a line of shell, with $OUT as the file of the record.
func (r *record) argv(script string) []string {
	return []string{"/bin/sh", "-c", "OUT=" + r.dir + "/out\n" + script}
}

// say is a program that notes a word with the group and state.
func (r *record) say(word string) []string {
	return r.argv(`echo ` + word + ` $QUORATE_GROUP $QUORATE_PREVIOUS-$QUORATE_STATE >>$OUT`)
}

func (r *record) lines() []string {
	b, err := os.ReadFile(filepath.Join(r.dir, "out"))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// await returns what the programs noted once that is n lines.
func (r *record) await(t *testing.T, n int) []string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if l := r.lines(); len(l) >= n {
			return l
		}
	}
	t.Fatalf("noted %q, want %d lines; log:\n%s", r.lines(), n, r.logged())
	return nil
}

// begin runs a Runner; end stops it and waits.
func begin(t *testing.T, change func(*Runner)) (r *Runner, rec *record, end func()) {
	t.Helper()
	rec = &record{dir: t.TempDir()}
	r = New(Options{Cluster: "prod", Node: "n1", FIFO: "", Priority: func(fsm.Group) uint8 { return 150 }, Log: slog.New(slog.NewTextHandler(rec, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if change != nil {
		change(r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(end)
	return r, rec, end
}

func group(name string, h fsm.Hooks) fsm.Group {
	if h.Timeout == 0 {
		h.Timeout = 20 * time.Second
	}
	return fsm.Group{Name: name, Hooks: h}
}

func to(group, from, state string) Transition {
	return Transition{Group: group, From: from, To: state, Epoch: 7, Reason: "owner-lost", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24"), netip.MustParsePrefix("2001:db8::1/64")}}
}

func TestWhatAProgramIsTold(t *testing.T) {
	r, rec, _ := begin(t, nil)
	r.Update(fsm.Document{Groups: []fsm.Group{group("web", fsm.Hooks{Active: rec.argv(`cat >>$OUT; env | grep ^QUORATE_ | sort >>$OUT`)})}})
	r.Transition(to("web", Backup, Active))
	got := rec.await(t, 9)
	var m map[string]any
	if err := json.Unmarshal([]byte(got[0]), &m); err != nil {
		t.Fatalf("%q: %v", got[0], err)
	}
	want := `{"cluster":"prod","node":"n1","group":"web","state":"active","previous":"backup","epoch":7,"reason":"owner-lost","addresses":["192.0.2.10/24","2001:db8::1/64"]}`
	if got[0] != want {
		t.Errorf("stdin %s\nwant  %s", got[0], want)
	}
	env := []string{
		"QUORATE_ADDRESSES=192.0.2.10/24 2001:db8::1/64", "QUORATE_CLUSTER=prod", "QUORATE_EPOCH=7", "QUORATE_GROUP=web", "QUORATE_NODE=n1",
		"QUORATE_PREVIOUS=backup", "QUORATE_REASON=owner-lost", "QUORATE_STATE=active",
	}
	if !slices.Equal(got[1:], env) {
		t.Errorf("environment %q\nwant %q", got[1:], env)
	}
}

// In order within a group, its own before the cluster's; nothing for what has no hook.
func TestOrder(t *testing.T) {
	r, rec, _ := begin(t, nil)
	own := fsm.Hooks{Active: rec.argv(`sleep 0.05; echo own $QUORATE_PREVIOUS-$QUORATE_STATE >>$OUT`), Fault: rec.say("fault")}
	r.Update(fsm.Document{Groups: []fsm.Group{group("web", own)}, Hooks: fsm.Hooks{
		Active: rec.argv(`echo all $QUORATE_PREVIOUS-$QUORATE_STATE >>$OUT`), Backup: rec.argv(`echo all $QUORATE_PREVIOUS-$QUORATE_STATE >>$OUT`), Timeout: 20 * time.Second}})
	for _, s := range [][2]string{{"", Backup}, {Backup, Active}, {Active, Active}, {Active, Fault}, {Fault, Backup}} {
		r.Transition(to("web", s[0], s[1]))
	}
	want := []string{"all -backup", "own backup-active", "all backup-active", "own active-active", "all active-active", "fault web active-fault", "all fault-backup"}
	if got := rec.await(t, len(want)); !slices.Equal(got, want) {
		t.Errorf("noted %q\nwant  %q", got, want)
	}
}

// A hook that does not end delays what its own group does next, and no other group.
func TestOneThatWaits(t *testing.T) {
	r, rec, _ := begin(t, nil)
	r.Update(fsm.Document{Groups: []fsm.Group{
		group("web", fsm.Hooks{Active: rec.argv(`echo begun >>$OUT; until [ -e $OUT.go ]; do sleep 0.01; done`), Backup: rec.say("after")}),
		group("db", fsm.Hooks{Active: rec.say("other")}),
	}})
	r.Transition(to("web", Backup, Active))
	rec.await(t, 1)
	r.Transition(to("web", Active, Backup))
	r.Transition(to("db", Backup, Active))
	rec.await(t, 2)
	if err := os.WriteFile(filepath.Join(rec.dir, "out.go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := []string{"begun", "other db backup-active", "after web active-backup"}
	if got := rec.await(t, 3); !slices.Equal(got, want) {
		t.Errorf("noted %q, want %q", got, want)
	}
}

// One that never ends is killed, with the children that it waits for.
func TestOneThatNeverEnds(t *testing.T) {
	r, rec, _ := begin(t, nil)
	r.Update(fsm.Document{Groups: []fsm.Group{group("web", fsm.Hooks{Active: rec.argv(`sleep 1000 & wait`), Timeout: 100 * time.Millisecond})},
		Hooks: fsm.Hooks{Active: rec.say("after"), Timeout: 20 * time.Second}})
	r.Transition(to("web", Backup, Active))
	rec.await(t, 1)
	if got := rec.logged(); !strings.Contains(got, "hook was killed") {
		t.Errorf("nothing of it in the log:\n%s", got)
	}
}

// What cannot be run, or fails, is said, and the next goes on.
func TestBadPrograms(t *testing.T) {
	r, rec, _ := begin(t, nil)
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Update(fsm.Document{Groups: []fsm.Group{
		group("web", fsm.Hooks{Active: []string{"/nowhere/hook"}, Backup: []string{plain}, Fault: rec.argv(`echo no cloud; exit 4`)}),
	}, Hooks: fsm.Hooks{Active: rec.say("on"), Backup: rec.say("on"), Fault: rec.argv("yes | head -c 64M; echo on >>$OUT"), Timeout: 20 * time.Second}})
	r.Transition(to("web", Backup, Active))
	r.Transition(to("web", Active, Backup))
	r.Transition(to("web", Backup, Fault))
	rec.await(t, 3)
	for _, want := range []string{"it is not on this node; install it", "chmod +x", `error="exit status 4" printed="no cloud"`} {
		if !strings.Contains(rec.logged(), want) {
			t.Errorf("no %q in the log:\n%s", want, rec.logged())
		}
	}
}

// A group that leaves the document is told the end by the hooks that it had.
func TestGroupThatIsGone(t *testing.T) {
	r, rec, _ := begin(t, nil)
	r.Update(fsm.Document{Groups: []fsm.Group{group("web", fsm.Hooks{Backup: rec.say("own")}), group("db", fsm.Hooks{Backup: rec.say("own")})}})
	r.Transition(to("web", Backup, Active))
	r.Transition(to("web", Active, Fault))
	r.Update(fsm.Document{Revision: 2})
	r.Update(fsm.Document{Revision: 3})
	r.Transition(to("web", Fault, Backup))
	rec.await(t, 1)
	if len(r.gone)+len(r.open) > 0 {
		t.Errorf("kept: %v, %v", r.gone, r.open)
	}
	// It comes back as another.
	r.Update(fsm.Document{Revision: 4, Groups: []fsm.Group{group("web", fsm.Hooks{Backup: rec.say("new")})}})
	r.Transition(to("web", Active, Backup))
	if got, want := rec.await(t, 2), []string{"own web fault-backup", "new web active-backup"}; !slices.Equal(got, want) {
		t.Errorf("noted %q, want %q", got, want)
	}
}

// What was asked for before the end is still done.
func TestStopWaits(t *testing.T) {
	r, rec, end := begin(t, nil)
	r.Update(fsm.Document{Groups: []fsm.Group{group("web", fsm.Hooks{Active: rec.argv(`sleep 0.1; echo first >>$OUT`), Backup: rec.say("last")})}})
	r.Transition(to("web", Backup, Active))
	r.Transition(to("web", Active, Backup))
	end()
	if got, want := rec.lines(), []string{"first", "last web active-backup"}; !slices.Equal(got, want) {
		t.Errorf("noted %q, want %q", got, want)
	}
}

// But not for ever.
func TestStopKills(t *testing.T) {
	r, rec, end := begin(t, func(r *Runner) { r.stopWait = 50 * time.Millisecond })
	r.Update(fsm.Document{Groups: []fsm.Group{group("web", fsm.Hooks{Active: rec.argv(`echo begun >>$OUT; sleep 1000`), Backup: rec.say("never"), Timeout: time.Hour})}})
	r.Transition(to("web", Backup, Active))
	r.Transition(to("web", Active, Backup))
	rec.await(t, 1)
	end()
	if got := rec.lines(); len(got) != 1 {
		t.Errorf("noted %q", got)
	}
	if got := rec.logged(); !strings.Contains(got, "have not ended in time and are killed") {
		t.Errorf("log:\n%s", got)
	}
}

// Many groups at once run beside each other, and all of them run.
func TestManyGroups(t *testing.T) {
	r, rec, end := begin(t, nil)
	var doc fsm.Document
	for i := range 3 * maxRunning {
		doc.Groups = append(doc.Groups, group(fmt.Sprint("g", i), fsm.Hooks{Active: rec.say("up")}))
	}
	r.Update(doc)
	for _, g := range doc.Groups {
		r.Transition(to(g.Name, Backup, Active))
	}
	rec.await(t, len(doc.Groups))
	end()
	if len(r.queues) > 0 {
		t.Errorf("%d queues are left", len(r.queues))
	}
}

func TestQueueLeavesOutTheMiddle(t *testing.T) {
	var q queue
	states := []string{Active, Backup}
	for i := range maxWaiting {
		if n := q.add(job{t: Transition{To: states[i%2], From: states[(i+1)%2], Epoch: uint64(i)}}); n != 0 {
			t.Fatalf("job %d: %d left out", i, n)
		}
	}
	if n := q.add(job{t: Transition{To: Fault, From: Backup, Epoch: 99}}); n != maxWaiting-1 {
		t.Errorf("%d left out, want %d", n, maxWaiting-1)
	}
	first, _ := q.next()
	last, _ := q.next()
	if first.t.Epoch != 0 || first.skipped != 0 {
		t.Errorf("the next is %+v", first)
	}
	if last.t.Epoch != 99 || last.t.From != Active || last.skipped != maxWaiting-1 {
		t.Errorf("the latest is %+v", last)
	}
	if j, ok := q.next(); ok {
		t.Errorf("another is left: %+v", j)
	}
	// What is left out twice is counted once.
	q = queue{}
	for i := range 10 * maxWaiting {
		q.add(job{t: Transition{Epoch: uint64(i)}})
		if len(q.waiting) > maxWaiting {
			t.Fatalf("%d wait", len(q.waiting))
		}
	}
	left := 0
	for j, ok := q.next(); ok; j, ok = q.next() {
		left += 1 + j.skipped
	}
	if left != 10*maxWaiting {
		t.Errorf("%d transitions are accounted for, want %d", left, 10*maxWaiting)
	}
}
