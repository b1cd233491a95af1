package main

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/quorate/quorate/internal/agent/core"
)

func TestStatus(t *testing.T) {
	for name, change := range map[string]func(*core.Status){
		"status":      func(*core.Status) {},
		"status-solo": func(s *core.Status) { s.VIPs, s.Members = []core.VIPStatus{}, s.Members[:1] },
		"status-forming": func(s *core.Status) {
			*s = core.Status{Cluster: "prod", Node: "n1", Instance: instance1, Fence: "bpf", LeaseMS: 250, State: "pledging",
				Problems: []string{"10.0.0.3:7950 does not answer: all of peers must be reached once"}, VIPs: []core.VIPStatus{}, Members: []core.MemberStatus{}}
		},
		"status-alone": func(s *core.Status) {
			s.Quorum, s.Leader = false, ""
			s.Members[1].Alive, s.Members[2].Alive = false, false
			for i := range s.VIPs {
				v := &s.VIPs[i]
				v.Open, v.LeaseRemainingMS = false, 0
				if v.Owner == s.Node {
					v.State, v.VRRP.State = "waiting", "Backup"
				}
			}
		},
		"status-vrrp": func(s *core.Status) {
			*s = core.Status{Node: "n1", Election: "vrrp", State: "running", Members: []core.MemberStatus{}, VIPs: []core.VIPStatus{
				{Name: "web", Addresses: []string{"10.0.0.200/24"}, State: "active", Held: true, VRRP: &core.VRRPStatus{ID: 51, State: "Active", Priority: 150}},
				{Name: "database", Addresses: []string{"10.0.0.201/24"}, State: "backup", VRRP: &core.VRRPStatus{ID: 52, State: "Backup", Priority: 100}},
				{Name: "mail", Addresses: []string{"10.0.0.202/24"}, State: "fault", Problem: "no carrier", VRRP: &core.VRRPStatus{ID: 53, State: "Backup", Priority: 100,
					Routers: []core.RouterStatus{{Link: "eth1", Family: "ipv4", VRID: 53, State: "Initialize", Priority: 100}}}},
			}}
		},
		"status-yielded": func(s *core.Status) {
			for i, state := range []string{"yielded", "backup"} {
				v := &s.VIPs[i]
				v.State, v.Open, v.LeaseRemainingMS = state, false, 0
				v.Problem = "router 10.0.0.8 (priority 255) has the better claim"
				v.VRRP = &core.VRRPStatus{ID: uint8(51 + i), State: "Backup", Priority: 254, Routers: []core.RouterStatus{
					{Link: "eth0", Family: "ipv4", State: "Backup", Priority: 254, Outranked: &core.RivalStatus{From: "10.0.0.8", Priority: 255}}}}
			}
		},
		"status-claimed": func(s *core.Status) {
			s.VIPs[0].Claims = []core.ClaimStatus{{Address: "10.0.0.200", MAC: "02:00:00:00:00:09", Count: 7, LastAgoMS: 1200},
				{Address: "2001:db8::200", MAC: "02:00:00:00:00:09", Count: 1, LastAgoMS: 3_600_000}}
		},
		"status-shadow": func(s *core.Status) {
			s.Cluster, s.Shadow, s.VIPs[0].Really = "prod-shadow", true, "n2 (10.0.0.2, priority 100)"
		},
		"status-problems": func(s *core.Status) {
			s.Ready, s.Leader, s.State = false, "", "stopping"
			s.Problems = []string{"the clock is being slewed by 83000 ppm, the lease allows ±4000"}
			s.VIPs[0] = core.VIPStatus{Name: "web", Addresses: []string{"10.0.0.200/24"}, Owner: "n1", Epoch: 17, State: "fault",
				Problem: "10.0.0.200 is on another host already, 02:00:00:00:00:09"}
			s.VIPs[1] = core.VIPStatus{Name: "database", Addresses: []string{"10.0.0.201/24"}, State: "unowned"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeAgent{state: formed()}
			change(&f.state)
			dir, socket := startDaemon(t, f)
			golden(t, name, dir, "status", "--socket", socket)
			if f.state.Election == alone {
				golden(t, name+"-json", dir, "status", "--json", "--socket", socket)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	dir, socket := startDaemon(t, &fakeAgent{state: formed()})
	golden(t, "status-json", dir, "status", "--json", "--socket", socket)
	golden(t, "members-json", dir, "members", "--json", "--socket", socket)
}

func TestMembers(t *testing.T) {
	f := &fakeAgent{state: formed()}
	dir, socket := startDaemon(t, f)
	golden(t, "members", dir, "members", "--socket", socket)
	f.state.Leader = "n1"
	f.state.Members[2] = core.MemberStatus{Name: "n3", Instance: instance3, Address: "10.0.0.3:7950", Role: "member", Drained: true}
	golden(t, "members-lost", dir, "members", "--socket", socket)
	f.state = core.Status{Node: "n1"}
	golden(t, "members-forming", dir, "members", "--socket", socket)
	f.state = core.Status{Node: "n1", Election: "vrrp"}
	golden(t, "members-vrrp", dir, "members", "--socket", socket)
}

// TestStatusWidths: no line is wider than the terminal, and none says less for it.
func TestStatusWidths(t *testing.T) {
	for name, change := range map[string]func(*core.Status){
		"ok": func(*core.Status) {},
		"lost": func(s *core.Status) {
			s.Members[2].Alive, s.Members[2].Ready = false, false
			s.VIPs[1].Open = false
		},
	} {
		f := &fakeAgent{state: formed()}
		change(&f.state)
		dir, socket := startDaemon(t, f)
		for _, width := range []string{"40", "80", "120"} {
			t.Setenv("COLUMNS", width)
			golden(t, "status-"+name+"-"+width, dir, "status", "--socket", socket)
			golden(t, "status-"+name+"-"+width+"-colour", dir, "status", "--color=always", "--socket", socket)
			_, out, _ := quorate(t, "status", "--socket", socket)
			limit, _ := strconv.Atoi(width)
			for line := range strings.Lines(out) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > limit {
					t.Errorf("%s at %s columns: %d in %q", name, width, n, line)
				}
			}
			golden(t, "members-"+name+"-"+width, dir, "members", "--socket", socket)
		}
	}
}

// TestColours: never means never, and a pipe has none by itself.
func TestColours(t *testing.T) {
	_, socket := startDaemon(t, &fakeAgent{state: formed()})
	for args, want := range map[string]bool{"status": false, "status --color=never": false, "status --color=auto": false, "status --color=always": true} {
		if _, out, _ := quorate(t, append(strings.Fields(args), "--socket", socket)...); strings.Contains(out, "\x1b[") != want {
			t.Errorf("%s: colours %t, want %t", args, !want, want)
		}
	}
}

// TestNoDaemon: the reading commands say what to do.
func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	golden(t, "no-socket", dir, "status", "--socket", dir+"/s")
	golden(t, "no-socket-json", dir, "status", "--json", "--socket", dir+"/s")
	golden(t, "no-config", dir, "members", "--config", dir+"/quorate.yaml")
}

// TestConfigNamesSocket: --config finds the daemon.
func TestConfigNamesSocket(t *testing.T) {
	dir, _ := startDaemon(t, &fakeAgent{state: formed()})
	file := configure(t, dir, "")
	if code, stdout, stderr := quorate(t, "members", "--config", file); code != exitDone || stdout == "" {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
