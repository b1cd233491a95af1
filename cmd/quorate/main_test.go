package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/daemon"
	"github.com/quorate/quorate/internal/doctor"
)

var update = flag.Bool("update", false, "write the golden files anew; the diff is the review")

// quorate runs a command line.
func quorate(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err strings.Builder
	code = execute(t.Context(), args, &out, &err)
	return code, out.String(), err.String()
}

// golden runs a command line and compares all that came of it with a file in
// testdata. What differs from run to run is replaced: dir by DIR, and times taken.
func golden(t *testing.T, name, dir string, args ...string) {
	t.Helper()
	code, stdout, stderr := quorate(t, args...)
	stdout = strings.ReplaceAll(stdout, "\x1b", "ESC") // so that colours can be read
	got := fmt.Sprintf("$ quorate %s\n%s", strings.Join(args, " "), stdout)
	if stderr != "" {
		got += "--- stderr\n" + stderr
	}
	got += fmt.Sprintf("--- exit %d\n", code)
	got = strings.ReplaceAll(got, dir, "DIR")
	got = regexp.MustCompile(`in \d+ ms`).ReplaceAllString(got, "in N ms")
	got = regexp.MustCompile(`open for \d\S+ m?s`).ReplaceAllString(got, "open for TIME")
	got = regexp.MustCompile(`(FENCE|TIME) +(EXPIRES|in )`).ReplaceAllString(got, "$1  $2")
	got = regexp.MustCompile(`in (1h|59m)\S+`).ReplaceAllString(got, "in TIME")
	got = regexp.MustCompile(`"took_ms": \d+`).ReplaceAllString(got, `"took_ms": N`)
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

// A fakeAgent is a node behind a real socket.
type fakeAgent struct {
	api.Admin
	mu      sync.Mutex
	state   core.Status
	move    func(s *core.Status, group, node string) error // may change the state
	release func(s *core.Status)
	vrrp    api.VRRP
	report  doctor.Report // of the doctor; zero: nothing is wrong
	try     func(api.TryRequest) (api.TryReport, error)
	next    []func(s *core.Status) // changes of the state, one before each later status
}

func (f *fakeAgent) Status(context.Context) (core.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.next) > 0 {
		f.next[0](&f.state)
		f.next = f.next[1:]
	}
	s := f.state
	s.VIPs = append([]core.VIPStatus{}, s.VIPs...)
	return s, nil
}

func (f *fakeAgent) VRRP(context.Context) (api.VRRP, error) { return f.vrrp, nil }

func (f *fakeAgent) Doctor(context.Context, api.DoctorRequest) (doctor.Report, error) {
	if f.report.Node != "" {
		return f.report, nil
	}
	return doctor.Report{Cluster: "prod", Node: "n1", Daemon: true, Findings: []doctor.Finding{},
		Nodes: []doctor.Asked{{Name: "n1", Answered: true}, {Name: "n2", Answered: true}}}, nil
}

func (f *fakeAgent) Try(_ context.Context, req api.TryRequest, _ string) (api.TryReport, error) {
	if f.try == nil {
		return api.TryReport{}, errors.New("the test expects no fault")
	}
	return f.try(req)
}

func (f *fakeAgent) Move(_ context.Context, group, node string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.move == nil {
		return errors.New("the test expects no move")
	}
	return f.move(&f.state, group, node)
}

func (f *fakeAgent) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.release != nil {
		f.release(&f.state)
	}
}

// startDaemon serves the agent on DIR/s until the test ends.
func startDaemon(t *testing.T, f *fakeAgent) (dir, socket string) {
	t.Helper()
	dir = t.TempDir()
	socket = filepath.Join(dir, "s")
	serveOn(t, f, socket)
	return dir, socket
}

// serveOn serves the agent on a socket until stop, or the test's end.
func serveOn(t *testing.T, f *fakeAgent, socket string) (stop func()) {
	t.Helper()
	s, err := api.Listen(socket, f, api.Options{Version: version, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

const (
	instance1 = "0123456789abcdef0123456789abcdef"
	instance2 = "123456789abcdef0123456789abcdef0"
	instance3 = "23456789abcdef0123456789abcdef01"
)

// formed is a healthy cluster of three as n1 sees it, which owns web.
func formed() core.Status {
	return core.Status{
		Cluster: "prod", ClusterID: "fedcba9876543210fedcba9876543210", Node: "n1", Instance: instance1, Leader: "n2",
		Quorum: true, Ready: true, Fence: "bpf", LeaseMS: 250, RenewMS: 83.333, State: "running", Election: "raft", SingleOwner: true,
		Members: []core.MemberStatus{
			{Name: "n1", Instance: instance1, Address: "10.0.0.1:7950", Role: "member", Voter: true, Alive: true, Ready: true},
			{Name: "n2", Instance: instance2, Address: "10.0.0.2:7950", Role: "member", Voter: true, Alive: true, Ready: true},
			{Name: "n3", Instance: instance3, Address: "10.0.0.3:7950", Role: "witness", Voter: true, Alive: true, Ready: true},
		},
		VIPs: []core.VIPStatus{
			{Name: "web", Addresses: []string{"10.0.0.200/24", "2001:db8::200/64"}, Owner: "n1", Epoch: 17, Reason: "first", Since: time.Date(2026, 11, 22, 21, 54, 40, 0, time.Local),
				State: "active", Open: true, Held: true, LeaseRemainingMS: 231.402, VRRP: &core.VRRPStatus{ID: 51, State: "Active", Priority: 254}},
			{Name: "database", Addresses: []string{"10.0.0.201/24"}, Owner: "n2", Epoch: 4, Reason: "move",
				State: "backup", Open: true, VRRP: &core.VRRPStatus{ID: 52, State: "Backup", Priority: 254}},
			{Name: "mail", Addresses: []string{"10.0.0.202/24"}, Owner: "n2", Epoch: 5, Reason: "first", State: "backup", Open: true},
		},
	}
}

// enterNetns puts the test's thread, which ends with the test, into a network
// namespace of its own with a device eth0 that has 10.0.0.1/24.
func enterNetns(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root, to make a network namespace; run: sudo go test")
	}
	runtime.LockOSThread() // for good
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "wire"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lo", "wire", "eth0"} {
		l, err := netlink.LinkByName(name)
		if err == nil && name != "lo" {
			const none = 1 // IN6_ADDR_GEN_MODE_NONE: link-local addresses would come at any moment
			err = netlink.LinkSetIP6AddrGenMode(l, none)
		}
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err == nil && name == "eth0" {
			var a *netlink.Addr
			if a, err = netlink.ParseAddr("10.0.0.1/24"); err == nil {
				err = netlink.AddrAdd(l, a)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// configure writes a configuration that fits enterNetns, with other lines after
// it, and a key. All paths are in dir.
func configure(t *testing.T, dir, more string) (file string) {
	t.Helper()
	key := filepath.Join(dir, "key")
	if code, _, stderr := quorate(t, "keygen", "--out", key); code != exitDone {
		t.Fatal(stderr)
	}
	file = filepath.Join(dir, "quorate.yaml")
	if !strings.Contains(more, "vips:") {
		more += "vips: {web: {addresses: [10.0.0.200/24], interface: eth0}}\n"
	}
	text := fmt.Sprintf("cluster: prod\nnode: n1\naddress: 10.0.0.1:7950\npeers: [10.0.0.1:7950, 10.0.0.2:7950, 10.0.0.3:7950]\n"+
		"key_file: %s\ndata_dir: %s\nsocket: %s\n%s", key, filepath.Join(dir, "data"), filepath.Join(dir, "s"), more)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args string
		want string // on stderr
	}{
		{"", "quorate: no command given"},
		{"staus", "Did you mean this?\n\tstatus"},
		{"status --jsn", "unknown flag: --jsn"},
		{"status now", "quorate: status takes no arguments, got 1 argument\nsee: quorate status --help"},
		{"status --socket a --config b", "--socket and --config both say which daemon"},
		{"members x", "takes no arguments"},
		{"move web", "move takes a group and a node, got 1 argument"},
		{"move web n1 n2", "got 3 arguments"},
		{"move web n1 --timeout soon", "invalid argument"},
		{"move web n1 --timeout 0s", "--timeout must be more than 0, got 0s"},
		{"release now", "takes no arguments"},
		{"drain n1 n2", "drain takes at most a node, got 2 arguments"},
		{"drain --timeout 0s", "--timeout must be more than 0, got 0s"},
		{"remove", "remove takes a node, got 0 arguments"},
		{"apply", "apply takes a file, or - for the standard input, got 0 arguments"},
		{"history 1 2", "history takes at most a revision, got 2 arguments"},
		{"history x --socket s", `"x" is no revision`},
		{"rollback 0 --socket s", `"0" is no revision`},
		{"explain", "explain takes a group, or timing, got 0 arguments"},
		{"watch now", "takes no arguments"},
		{"status --color sometimes", `must be auto, always or never, got "sometimes"`},
		{"snapshot", "snapshot takes save, restore or print, and a file"},
		{"snapshot drop f", "snapshot takes save, restore or print, and a file"},
		{"snapshot save", "save takes a file, got 0 arguments"},
		{"recover n2", "takes no arguments"},
		{"check", "check takes a configuration file, or - for the standard input, got 0 arguments"},
		{"keygen x", "takes no arguments"},
		{"version x", "takes no arguments"},
		{"completion", "completion takes a shell: bash, zsh, fish or powershell"},
		{"completion klingon", "completion takes a shell: bash, zsh, fish or powershell"},
	} {
		code, stdout, stderr := quorate(t, strings.Fields(tc.args)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, tc.want) {
			t.Errorf("quorate %s: exit %d, stdout %q, stderr %q; want exit %d and %q", tc.args, code, stdout, stderr, exitUsage, tc.want)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"help", "move"}, {"release", "-h"}, {"completion", "bash"}} {
		if code, stdout, stderr := quorate(t, args...); code != exitDone || stdout == "" || stderr != "" {
			t.Errorf("quorate %s: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}

func TestVersion(t *testing.T) {
	if code, stdout, _ := quorate(t, "version"); code != exitDone || stdout != fmt.Sprintf("quorate %s (%s %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH) {
		t.Errorf("exit %d, %q", code, stdout)
	}
	code, stdout, _ := quorate(t, "version", "--json")
	want := fmt.Sprintf("{\n  \"version\": %q,\n  \"go\": %q,\n  \"os\": %q,\n  \"arch\": %q\n}\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if code != exitDone || stdout != want {
		t.Errorf("exit %d, %s", code, stdout)
	}
}

// TestFullDisk: output that did not arrive is a failure.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("SKIPPED: no /dev/full:", err)
	}
	defer full.Close()
	_, socket := startDaemon(t, &fakeAgent{state: formed()})
	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"members"}} {
		var stderr strings.Builder
		if code := execute(t.Context(), append(args, "--socket", socket), full, &stderr); code != exitFailed || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%s: exit %d, %q", args, code, stderr.String())
		}
	}
}

// TestFenceTag: another tag would not find the fence of an earlier life.
func TestFenceTag(t *testing.T) {
	if got := daemon.FenceTag("prod"); got != "6754af" {
		t.Errorf("FenceTag(prod) = %s", got)
	}
}
