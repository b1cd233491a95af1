package api

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/doctor"
)

// A fakeAgent answers with what it is given.
type fakeAgent struct {
	Admin
	status func(context.Context) (core.Status, error)
	move   func(group, node string) error
	doctor func(DoctorRequest) (doctor.Report, error)
	try    func(TryRequest) (TryReport, error)

	mu       sync.Mutex
	released int
}

func (f *fakeAgent) Status(ctx context.Context) (core.Status, error) { return f.status(ctx) }

// VRRP fails as the status does.
func (f *fakeAgent) VRRP(ctx context.Context) (VRRP, error) {
	st, err := f.status(ctx)
	return VRRP{Node: st.Node}, err
}

func (f *fakeAgent) Move(_ context.Context, group, node string) error { return f.move(group, node) }

func (f *fakeAgent) Doctor(_ context.Context, req DoctorRequest) (doctor.Report, error) {
	return f.doctor(req)
}

func (f *fakeAgent) Try(_ context.Context, req TryRequest, _ string) (TryReport, error) {
	return f.try(req)
}

func (f *fakeAgent) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.released++
}

// healthy is a node of a formed cluster that owns web.
func healthy() core.Status {
	return core.Status{
		Cluster: "prod", ClusterID: "c1", Node: "n1", Instance: "i1", Leader: "n1", Quorum: true, Ready: true,
		Fence: "bpf", LeaseMS: 250, RenewMS: 83.333, State: "running", Members: []core.MemberStatus{},
		VIPs: []core.VIPStatus{{Name: "web", Addresses: []string{"10.0.0.200/24"}, Owner: "n1", Epoch: 7, State: "active", Open: true}},
	}
}

func answers(st core.Status) func(context.Context) (core.Status, error) {
	return func(context.Context) (core.Status, error) { return st, nil }
}

// frozen is a loop that does not answer.
func frozen(ctx context.Context) (core.Status, error) {
	<-ctx.Done()
	return core.Status{}, ctx.Err()
}

func options() Options { return Options{Version: "1.2.3", Log: slog.New(slog.DiscardHandler)} }

// serve runs a server until the test ends, and returns the path of its socket.
func serve(t *testing.T, agent Agent) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	s, err := Listen(path, agent, options())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return path
}

func client(t *testing.T, path string) *Client {
	c := NewClient(path, "1.2.3")
	t.Cleanup(c.Close)
	return c
}

// code returns the HTTP status of an answer that says no; zero for other errors.
func code(err error) int {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return 0
}
