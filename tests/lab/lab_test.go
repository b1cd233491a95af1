package lab

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

var testVIP = netip.MustParsePrefix("10.0.0.200/24")

// newLab makes a lab that goes with the test, after removing what killed runs left.
func newLab(t *testing.T) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: this test makes network namespaces and needs root")
	}
	if _, err := Sweep(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "quorate-lab-test-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("logs and configurations: %s", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return l
}

func addHost(t *testing.T, l *Lab, name string, n int) *Host {
	t.Helper()
	h, err := l.AddHost(name, n)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until polls for a condition of the real kernel.
func until(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// answering says whether the observer got an answer sent after since.
func answering(tr func() Trace, since Instant) bool {
	a := tr().Answers
	return len(a) > 0 && a[len(a)-1].Sent >= since
}

// silent waits for a stretch in which questions were asked and none was answered.
func silent(t *testing.T, what string, tr func() Trace) {
	t.Helper()
	since := Now().Add(50 * time.Millisecond) // what is on its way may arrive
	until(t, what+": 30 questions", 10*time.Second, func() bool {
		asked := tr().Asked
		return len(asked) > 30 && asked[len(asked)-30] > since
	})
	if answering(tr, since) {
		t.Errorf("%s: answered all the same", what)
	}
}

func TestFaults_atPort(t *testing.T) {
	l := newLab(t)
	a, judge, user := addHost(t, l, "a", 1), addHost(t, l, "judge", 12), addHost(t, l, "user", 13)
	must(t, a.ServeEcho())
	p4, err := judge.StartProbe(a.IPv4, DefaultPeriod, 0)
	must(t, err)
	p6, err := judge.StartProbe(a.IPv6, DefaultPeriod, 1)
	must(t, err)
	c4, err := user.StartClient(a.IPv4, DefaultPeriod)
	must(t, err)
	c6, err := user.StartClient(a.IPv6, DefaultPeriod)
	must(t, err)

	observers := map[string]func() Trace{"ARP": p4.Trace, "NDP": p6.Trace, "UDP4": c4.Trace, "UDP6": c6.Trace}
	allAnswer := func(when string) {
		t.Helper()
		since := Now()
		for name, tr := range observers {
			until(t, name+" is answered "+when, 10*time.Second, func() bool { return answering(tr, since) })
		}
	}
	noneAnswers := func(when string) {
		t.Helper()
		for name, tr := range observers {
			silent(t, name+" "+when, tr)
		}
	}
	allAnswer("at first")

	must(t, a.Cut())
	noneAnswers("in a cut")
	if !carrier(t, a) {
		t.Error("a silent cut took the carrier away")
	}
	must(t, a.Mend())
	allAnswer("after mending")

	must(t, a.CutOneWay(Inbound))
	noneAnswers("with frames to the host lost")
	must(t, a.CutOneWay(Outbound))
	noneAnswers("with frames from the host lost")
	must(t, a.Mend())
	must(t, a.Mend())
	allAnswer("after mending twice")

	must(t, a.Lossy(50))
	since := Now()
	until(t, "200 questions", 10*time.Second, func() bool { return len(p4.Trace().Between(since, Now()).Asked) >= 200 })
	// Each of question and answer gets through half the time: a quarter of 200 is 50.
	if got := len(p4.Trace().Between(since, Now()).Answers); got < 10 || got > 120 {
		t.Errorf("with half of the frames lost each way, %d of 200 questions were answered", got)
	}
	if err := a.Lossy(101); err == nil {
		t.Error("a loss of 101 percent was accepted")
	}
	must(t, a.Mend())
	allAnswer("after a lossy time")

	must(t, a.Pull())
	until(t, "carrier gone", 5*time.Second, func() bool { return !carrier(t, a) })
	noneAnswers("with the cable out")
	must(t, a.Replug())
	until(t, "carrier back", 5*time.Second, func() bool { return carrier(t, a) })
	allAnswer("after plugging in")

	must(t, l.Partition(a, judge))
	silent(t, "user across a partition", c4.Trace)
	since = Now()
	until(t, "judge inside the partition is answered", 5*time.Second, func() bool { return answering(p4.Trace, since) })
	must(t, l.Heal())
	allAnswer("after healing")

	must(t, l.Block(a, user))
	must(t, l.Block(a, user))
	silent(t, "user, to whom a's frames are lost", c4.Trace)
	since = Now()
	until(t, "judge is answered beside that", 5*time.Second, func() bool { return answering(p4.Trace, since) })
	must(t, l.Unblock(a, user))
	silent(t, "user, with one of two blocks undone", c4.Trace)
	must(t, l.Unblock(a, user))
	if err := l.Unblock(a, user); err == nil {
		t.Error("what is not blocked was unblocked")
	}
	allAnswer("after unblocking")

	for _, ans := range p4.Trace().Answers {
		if ans.MAC != a.MAC || ans.Host != "a" || ans.Seq < 0 {
			t.Fatalf("ARP answer %+v: want one of host a (%v) with its question", ans, a.MAC)
		}
	}
	for _, p := range []*Probe{p4, p6} {
		must(t, p.Err())
	}
}

func carrier(t *testing.T, h *Host) (up bool) {
	t.Helper()
	must(t, h.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err == nil {
			up = ifi.Flags&net.FlagRunning != 0
		}
		return err
	}))
	return up
}

// Two hosts with one address: the plainest case of what the judge is for.
func TestJudge_seesDuplicateAddress(t *testing.T) {
	l := newLab(t)
	a, b, judge := addHost(t, l, "a", 1), addHost(t, l, "b", 2), addHost(t, l, "judge", 12)
	vip6 := netip.MustParsePrefix("2001:db8::200/64")
	p4, err := judge.StartProbe(testVIP.Addr(), DefaultPeriod, 0)
	must(t, err)
	p6, err := judge.StartProbe(vip6.Addr(), DefaultPeriod, 0)
	must(t, err)
	give := func(h *Host, verb string) {
		t.Helper()
		must(t, run("ip", "-n", h.Namespace(), "addr", verb, testVIP.String(), "dev", "eth0"))
		must(t, run("ip", "-n", h.Namespace(), "addr", verb, vip6.String(), "dev", "eth0", "nodad"))
	}
	give(a, "replace")
	until(t, "a answers", 5*time.Second, func() bool { return len(p4.Trace().Answers) > 20 && len(p6.Trace().Answers) > 20 })
	if got := Overlaps([]Trace{p4.Trace()}); len(got) != 0 {
		t.Errorf("one owner: Overlaps = %v", got)
	}
	give(b, "replace")
	at := Now()
	until(t, "both answer for 200 ms", 5*time.Second, func() bool { return Now().Sub(at) > 200*time.Millisecond })
	give(a, "del")
	for name, p := range map[string]*Probe{"ARP": p4, "NDP": p6} {
		since := Now()
		until(t, name+": b answers", 5*time.Second, func() bool { return answering(p.Trace, since) })
		tr := p.Trace()
		if got := Total(Overlaps([]Trace{tr})); got < 150*time.Millisecond {
			t.Errorf("%s: %v with two owners, want at least 150ms; owners %v", name, got, Owners(tr.Answers, 0, Now()))
		}
		must(t, p.Err())
	}
}

// Hand-overs as close as two calls of the kernel: never two owners, and none imagined.
func TestJudge_seesHandOvers(t *testing.T) {
	l := newLab(t)
	hosts := [2]*Host{addHost(t, l, "a", 1), addHost(t, l, "b", 2)}
	judge := addHost(t, l, "judge", 12)
	p, err := judge.StartProbe(testVIP.Addr(), DefaultPeriod, 0)
	must(t, err)
	addr, err := netlink.ParseAddr(testVIP.String())
	must(t, err)
	link := func(h *Host) netlink.Link {
		return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "eth0", Index: h.ifi.Index}}
	}
	must(t, hosts[0].nl.AddrAdd(link(hosts[0]), addr))
	for n := range 50 {
		old, next := hosts[n%2], hosts[(n+1)%2]
		since := Now()
		until(t, old.Name+" answers", 5*time.Second, func() bool { return answering(p.Trace, since) })
		pause(20*time.Millisecond + time.Duration(n)*100*time.Microsecond)
		must(t, old.nl.AddrDel(link(old), addr))
		must(t, next.nl.AddrAdd(link(next), addr))
	}
	must(t, p.Err())
	tr := p.Trace()
	if got := Overlaps([]Trace{tr}); len(got) != 0 {
		t.Errorf("Overlaps = %v, want none", got)
	}
	if got := Owners(tr.Answers, 0, Now()); len(got) < 50 {
		t.Errorf("%d owners one after the other, want at least 50", len(got))
	}
}

// TestStepWall steps the time of day of a process that tells it, ahead and back, while its
// other clock and everybody else's go on as they were.
func TestStepWall(t *testing.T) {
	l := newLab(t)
	self, err := os.Executable()
	must(t, err)
	p, err := addHost(t, l, "a", 1).Start(Command{Name: "time", Args: []string{self}, Env: []string{tellTime + "=1"}})
	must(t, err)
	told := func() (wall time.Time, monotonic Instant) {
		lines := strings.Fields(output(t, p))
		if len(lines) < 2 {
			return wall, 0
		}
		unix, err1 := strconv.ParseInt(lines[len(lines)/2*2-2], 10, 64)
		boot, err2 := strconv.ParseInt(lines[len(lines)/2*2-1], 10, 64)
		must(t, errors.Join(err1, err2))
		return time.Unix(unix, 0), Instant(boot)
	}
	for _, by := range []time.Duration{0, 40 * time.Hour, 10 * time.Hour, -50 * time.Hour} {
		err := p.StepWall(by)
		if errors.Is(err, ErrNoWallStep) {
			t.Skip("SKIPPED: ", err)
		}
		must(t, err)
		want := map[time.Duration]time.Duration{0: 0, 40 * time.Hour: 40 * time.Hour, 10 * time.Hour: 50 * time.Hour, -50 * time.Hour: 0}[by]
		until(t, "the process is "+want.String()+" ahead", 5*time.Second, func() bool {
			wall, boot := told()
			ahead := time.Until(wall)
			return ahead > want-time.Minute && ahead < want+time.Minute && Now().Sub(boot) < time.Minute
		})
	}
	must(t, p.Kill())
	must(t, p.StepWall(time.Hour))
}

func TestProcess(t *testing.T) {
	l := newLab(t)
	a := addHost(t, l, "a", 1)
	inode := func(c Command) string {
		t.Helper()
		p, err := a.Start(c)
		must(t, err)
		must(t, p.Wait(10*time.Second))
		out, err := os.ReadFile(p.Log)
		must(t, err)
		return strings.TrimSpace(string(out))
	}
	link := []string{"readlink", "/proc/self/ns/net", "/proc/self/ns/mnt"}
	mine, err := exec.Command(link[0], link[1:]...).Output()
	must(t, err)
	own := strings.Fields(string(mine))
	plain := strings.Fields(inode(Command{Name: "plain", Args: link}))
	apart := strings.Fields(inode(Command{Name: "apart", Args: link, OwnMounts: true}))
	if plain[0] == own[0] || plain[1] != own[1] {
		t.Errorf("plain start: namespaces %v, the test's own %v; want another net and the same mnt", plain, own)
	}
	if apart[0] != plain[0] || apart[1] == own[1] {
		t.Errorf("start with own mounts: namespaces %v; want net %s and another mnt than %s", apart, plain[0], own[1])
	}

	// A family: the shell's child leaves the group, and is to be reached all the same.
	p, err := a.Start(Command{Name: "family", Args: []string{"sh", "-c", "setsid sleep 1000 & sleep 1000 & wait"}})
	must(t, err)
	until(t, "the family is complete", 5*time.Second, func() bool { return len(descendants(p.Pid())) == 2 && len(p.strays()) == 1 })
	family := append(descendants(p.Pid()), p.Pid())
	states := func() string {
		var s strings.Builder
		for _, pid := range family {
			s.WriteString(state(pid))
		}
		return s.String()
	}
	must(t, p.Freeze())
	until(t, "all frozen", 5*time.Second, func() bool { return states() == "TTT" })
	must(t, p.Thaw())
	until(t, "all thawed", 5*time.Second, func() bool { return !strings.Contains(states(), "T") })
	must(t, p.Freeze())
	must(t, p.Kill())
	until(t, "all gone", 5*time.Second, func() bool { return strings.Trim(states(), "-Z") == "" })
	must(t, p.Kill())
	must(t, p.Stop(time.Second))
}

// state gives the letter of /proc/PID/stat, or "-" when there is no such process.
func state(pid int) string {
	data, err := os.ReadFile("/proc/" + itoa(pid) + "/stat")
	if err != nil {
		return "-"
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return rest[:1]
}

func TestClose_removesAll(t *testing.T) {
	l := newLab(t)
	a := addHost(t, l, "a", 1)
	p, err := a.Start(Command{Name: "sleep", Args: []string{"sleep", "1000"}})
	must(t, err)
	must(t, l.Close())
	must(t, l.Close())
	if p.Running() {
		t.Error("a process outlived its lab")
	}
	entries, err := os.ReadDir(netnsDir)
	must(t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), l.id) {
			t.Errorf("namespace %s outlived its lab", e.Name())
		}
	}
	if _, err := a.Start(Command{Name: "late", Args: []string{"true"}}); err == nil {
		t.Error("a closed lab started a process")
	}
}

// TestSweep leaves behind what a killed run leaves, under a pid that is gone.
func TestSweep(t *testing.T) {
	newLab(t)
	ended := exec.Command("true")
	must(t, ended.Run())
	name := namePrefix + "-" + itoa(ended.ProcessState.Pid()) + "-1-x"
	must(t, run("ip", "netns", "add", name))
	left := exec.Command("ip", "netns", "exec", name, "sleep", "1000")
	must(t, left.Start())
	until(t, "the left-over runs inside", 5*time.Second, func() bool {
		comm, err := os.ReadFile("/proc/" + itoa(left.Process.Pid) + "/comm")
		return err == nil && strings.TrimSpace(string(comm)) == "sleep"
	})
	swept, err := Sweep()
	must(t, err)
	if len(swept) != 1 || swept[0] != name {
		t.Errorf("Sweep = %v, want %v (is another lab being made on this machine?)", swept, name)
		must(t, left.Process.Kill()) // it may have been swept by somebody before it was inside
	}
	if err := left.Wait(); err == nil {
		t.Error("the left-over process ended by itself")
	}
}

func TestAddHost_refuses(t *testing.T) {
	l := newLab(t)
	for _, tt := range []struct {
		name string
		n    int
	}{{"A", 1}, {"with-dash", 1}, {"", 1}, {"averyverylongname", 1}, {"ok", 0}, {"ok", 128}} {
		if _, err := l.AddHost(tt.name, tt.n); err == nil {
			t.Errorf("AddHost(%q, %d) was accepted", tt.name, tt.n)
		}
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
