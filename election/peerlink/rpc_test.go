package peerlink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// A fakeNode answers with what it was given.
type fakeNode struct {
	hello    election.Hello
	err      error
	block    chan struct{} // calls of Campaign wait for it, or their context
	from     fsm.InstanceID
	pledge   election.Pledge
	command  []byte
	joined   fsm.Node
	entered  chan struct{}
	campaign int
	document fsm.Document
	verdict  Validation
	ended    int // calls of Campaign that returned
}

func (f *fakeNode) Hello(context.Context) (election.Hello, error) { return f.hello, f.err }

func (f *fakeNode) Pledge(_ context.Context, from fsm.InstanceID, p election.Pledge) error {
	f.from, f.pledge = from, p
	return f.err
}

func (f *fakeNode) Propose(_ context.Context, from fsm.InstanceID, command []byte) (Proposed, error) {
	f.from, f.command = from, command
	return Proposed{Index: 42}, f.err
}

func (f *fakeNode) Campaign(ctx context.Context, from fsm.InstanceID) error {
	defer func() { f.ended++ }()
	f.from = from
	f.campaign++
	if f.block != nil {
		close(f.entered)
		select {
		case <-f.block:
		case <-ctx.Done():
			for range 100_000 { // a handler that takes long to return
				runtime.Gosched()
			}
		}
	}
	return f.err
}

func (f *fakeNode) Join(_ context.Context, from fsm.InstanceID, node fsm.Node) error {
	f.from, f.joined = from, node
	return f.err
}

func (f *fakeNode) Validate(_ context.Context, from fsm.InstanceID, d fsm.Document) (Validation, error) {
	f.from, f.document = from, d
	return f.verdict, f.err
}

func (f *fakeNode) Doctor(_ context.Context, from fsm.InstanceID, question json.RawMessage) (json.RawMessage, error) {
	f.from, f.command = from, question
	return question, f.err
}

func (f *fakeNode) Try(_ context.Context, from fsm.InstanceID, question json.RawMessage) (json.RawMessage, error) {
	f.from, f.command = from, question
	return question, f.err
}

func pair(t *testing.T, h Handlers) (caller, callee *node) {
	t.Helper()
	key := parse(t, GenerateKey())
	callee = serve(t, "127.0.0.1", credentials(t, key, 2), identity("prod", 9, 2), h)
	return serve(t, "127.0.0.1", credentials(t, key, 1), identity("prod", 9, 1), &fakeNode{}), callee
}

func TestCallsCarryEverything(t *testing.T) {
	addr := netip.MustParseAddrPort("[2001:db8::1]:7950")
	node := fsm.Node{ID: fsm.InstanceID{15: 3}, Name: "n3", Address: addr, Role: fsm.Member}
	p := election.Pledge{Cluster: fsm.ClusterID{9}, Name: "prod", Former: fsm.InstanceID{15: 1}, Nodes: []fsm.Node{node},
		Document: fsm.Document{Revision: 1, MaxHold: time.Second, Groups: []fsm.Group{{Name: "web",
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.200/24")}, Placement: fsm.PlacementLeader}}}}
	f := &fakeNode{hello: election.Hello{Cluster: "prod", Node: node, Peers: []netip.AddrPort{addr}, HasState: true, Pledge: p,
		ClusterID: fsm.ClusterID{9}, Members: []fsm.Node{node}}} // and no leader: an invalid address must pass
	a, b := pair(t, f)
	c := a.Client()
	got, err := c.Hello(t.Context(), b.peer())
	if err != nil || !reflect.DeepEqual(got, f.hello) {
		t.Errorf("hello: %+v, %v", got, err)
	}
	if err := c.Pledge(t.Context(), b.peer(), p); err != nil || !reflect.DeepEqual(f.pledge, p) {
		t.Errorf("pledge: %v; callee saw %+v", err, f.pledge)
	}
	command, err := fsm.Command{Enrol: &fsm.Enrol{Node: node}, At: time.Unix(1, 0).UTC()}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	proposed, err := c.Propose(t.Context(), b.peer(), command)
	if err != nil || proposed.Index != 42 || !bytes.Equal(f.command, command) {
		t.Errorf("propose: %+v, %v; callee saw %s", proposed, err, f.command)
	}
	if err := c.Campaign(t.Context(), Peer{b.addr, fsm.InstanceID{15: 2}}); err != nil || f.campaign != 1 {
		t.Errorf("campaign: %v, %d", err, f.campaign)
	}
	if err := c.Join(t.Context(), b.peer(), node); err != nil || f.joined != node {
		t.Errorf("join: %v; callee saw %+v", err, f.joined)
	}
	f.verdict = Validation{Errors: []string{"vips.web.interface: no such device"}, Warnings: []string{"b"}}
	if v, err := c.Validate(t.Context(), b.peer(), p.Document); err != nil || !reflect.DeepEqual(v, f.verdict) || !reflect.DeepEqual(f.document, p.Document) {
		t.Errorf("validate: %+v, %v; callee saw %+v", v, err, f.document)
	}
	if got, err := c.Doctor(t.Context(), b.peer(), json.RawMessage(`{"nonce":7}`)); err != nil || string(bytes.TrimSpace(got)) != `{"nonce":7}` || string(f.command) != `{"nonce":7}` {
		t.Errorf("doctor: %s, %v; callee saw %s", got, err, f.command)
	}
	if got, err := c.Try(t.Context(), b.peer(), json.RawMessage(`{"nonce":8}`)); err != nil || string(bytes.TrimSpace(got)) != `{"nonce":8}` || string(f.command) != `{"nonce":8}` {
		t.Errorf("try: %s, %v; callee saw %s", got, err, f.command)
	}
	if want := (fsm.InstanceID{15: 1}); f.from != want {
		t.Errorf("caller = %s", f.from)
	}
}

func TestErrorsCrossTheNetwork(t *testing.T) {
	f := &fakeNode{}
	a, b := pair(t, f)
	for _, c := range errorCodes {
		f.err = fmt.Errorf("assign %q: %w", "web", c.err)
		err := a.Client().Campaign(t.Context(), b.peer())
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), `assign "web": `+c.err.Error()) {
			t.Errorf("%s arrived as %v", c.code, err)
		}
		for _, other := range errorCodes {
			if other.err != c.err && errors.Is(err, other.err) {
				t.Errorf("%s arrived also as %s", c.code, other.code)
			}
		}
	}
	f.err = errors.New("disk on fire")
	err := a.Client().Campaign(t.Context(), b.peer())
	var remote *RemoteError
	if !errors.As(err, &remote) || remote.Code != codeFailed || !strings.Contains(err.Error(), "disk on fire") || remote.Unwrap() != nil {
		t.Errorf("another error arrived as %v", err)
	}
}

func TestCallsOfStrangersAreRefused(t *testing.T) {
	key := parse(t, GenerateKey())
	f := &fakeNode{}
	b := serve(t, "127.0.0.1", credentials(t, key, 2), identity("prod", 9, 2), f)
	for _, tt := range []struct {
		name  string
		creds Credentials
		id    Identity
		to    fsm.InstanceID
		want  Reason
	}{
		{"other key", credentials(t, parse(t, GenerateKey()), 1), identity("prod", 9, 1), fsm.InstanceID{}, OtherKey},
		{"other cluster", credentials(t, key, 1), identity("ünï cödé/\n", 9, 1), fsm.InstanceID{}, OtherCluster},
		{"other formation", credentials(t, key, 1), identity("prod", 8, 1), fsm.InstanceID{}, OtherFormation},
		{"other instance", credentials(t, key, 1), identity("prod", 9, 1), fsm.InstanceID{15: 7}, OtherInstance},
		{"not its certificate", credentials(t, key, 5), identity("prod", 9, 1), fsm.InstanceID{}, BadHello},
	} {
		a := serve(t, "127.0.0.1", tt.creds, tt.id, &fakeNode{})
		err := a.Client().Campaign(t.Context(), Peer{b.addr, tt.to})
		if ReasonOf(err) != tt.want {
			t.Errorf("%s: %v, want reason %s", tt.name, err, tt.want)
		}
		until(t, tt.name+" counted", func() bool { return b.Refusals()[tt.want] == 1 })
	}
	if f.campaign != 0 {
		t.Error("a refused call reached its handler")
	}
}

func TestBadRequests(t *testing.T) {
	f := &fakeNode{}
	a, b := pair(t, f)
	post := func(path, body string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+b.addr.String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		id := a.cfg.Identity()
		r.Header.Set(headerCluster, id.Cluster)
		for _, h := range []string{headerClusterID, headerExpect} {
			r.Header.Set(h, fsm.InstanceID{}.String())
		}
		r.Header.Set(headerInstance, id.Instance.String())
		resp, err := a.Client().http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var buf bytes.Buffer
		buf.ReadFrom(resp.Body)
		return resp.StatusCode, buf.String()
	}
	for _, tt := range []struct {
		name, path, body string
		status           int
		code             string
	}{
		{"unknown field", pathJoin, `{"ID":"00000000000000000000000000000003","Nmae":"x"}`, 400, codeBadRequest},
		{"two values", pathCampaign, `{} {}`, 400, codeBadRequest},
		{"not JSON", pathHello, `hello`, 400, codeBadRequest},
		{"empty", pathHello, ``, 400, codeBadRequest},
		{"too long", pathPropose, `"` + strings.Repeat("x", maxBody) + `"`, 413, codeTooLarge},
		{"no command", pathPropose, `{}`, 400, codeBadRequest},
		{"two commands", pathPropose, `{"Lead":{},"Enrol":{}}`, 400, codeBadRequest},
		{"command with an unknown field", pathPropose, `{"Lead":{"Node":"00000000000000000000000000000003","Why":1}}`, 400, codeBadRequest},
		{"bad id", pathPledge, `{"Cluster":"zz"}`, 400, codeBadRequest},
	} {
		status, body := post(tt.path, tt.body)
		if status != tt.status || !strings.Contains(body, `"code":"`+tt.code+`"`) || !strings.Contains(body, `"error":"`) {
			t.Errorf("%s: %d %s", tt.name, status, body)
		}
	}
	if f.command != nil || f.campaign != 0 {
		t.Error("a bad request reached its handler")
	}
	if err := a.Client().Join(t.Context(), b.peer(), fsm.Node{Name: strings.Repeat("x", maxBody)}); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a request above the bound: %v", err)
	}
}

func TestNotFoundIsNoSentinel(t *testing.T) {
	a, b := pair(t, &fakeNode{})
	err := a.Client().call(t.Context(), b.peer(), "/peer/9/hello", time.Second, struct{}{}, &struct{}{})
	var remote *RemoteError
	if !errors.As(err, &remote) || remote.Unwrap() != nil {
		t.Errorf("a call of a later version: %v", err)
	}
}

func TestStopEndsCalls(t *testing.T) {
	f := &fakeNode{block: make(chan struct{}), entered: make(chan struct{})}
	a, b := pair(t, f)
	called := make(chan error, 1)
	go func() { called <- a.Client().Campaign(t.Context(), b.peer()) }()
	<-f.entered
	b.stop()          // returns only when the handler did
	if f.ended != 1 { // the race detector looks at this line too
		t.Error("Run ended before the handler")
	}
	<-called
	if _, err := net.Dial("tcp", b.addr.String()); err == nil {
		t.Error("the port is still open after Run")
	}
}

func userTimeout(t *testing.T, conn net.Conn) (ms int) {
	t.Helper()
	inner := conn.(interface{ NetConn() net.Conn }).NetConn().(*net.TCPConn)
	raw, err := inner.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		ms, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	})
	if err = errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return ms
}
