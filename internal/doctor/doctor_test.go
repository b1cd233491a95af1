package doctor

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// well is a survey of three healthy nodes with one device each.
func well() Survey {
	s := Survey{Cluster: "demo", Node: "n1", Daemon: true, View: &View{Quorum: true, Leader: "n1",
		Groups: []Group{{Name: "web", Owner: "n1", State: "active", Open: true}}}}
	names := []string{"n1", "n2", "n3"}
	for i, name := range names {
		f := &Facts{Name: name, Instance: "id-" + name, Version: "1", Role: "member", LeaseMS: 250, RenewMS: 83, Datagram: 1300,
			Host: Host{Root: true, Missing: []string{}, Kernel: "6.18.1", AddressProto: true, SockDestroy: Yes, MACs: []string{"02:00:00:00:00:0" + name[1:]},
				Fence: Fence{Want: "bpf", Kind: "tcx", GraceMS: 5, Trials: 5, LateMS: -0.1}, Disk: Disk{Path: "/d", Writes: 9, MedianMS: 1, WorstMS: 4}},
			Devices: []Device{{Name: "eth0", Index: 2 + i, MAC: "02:00:00:00:00:0" + name[1:], MTU: 1500, Up: true, Carrier: true,
				Serves: []string{"10.0.0.200", "2001:db8::200"}, Adverts4: true, Adverts6: true, VMAC: true,
				Sysctls: map[string]int{"arp_ignore": 1, "rp_filter": 2, "promote_secondaries": 1, "arp_announce": 0, "disable_ipv6": 0}}}}
		for k, from := range names {
			if from == name {
				continue
			}
			id := "id-" + from
			for _, kind := range []Kind{Broadcast, Full, Forged, Multicast4, Multicast6, Protocol4, Protocol6} {
				f.Heard = append(f.Heard, Heard{Device: "eth0", From: id, Index: 2 + k, Kind: kind.String(), Count: 5})
			}
			for _, kind := range []Kind{Small, Large} {
				f.Heard = append(f.Heard, Heard{From: id, Kind: kind.String(), Count: 5})
			}
			f.Learnt = append(f.Learnt, Learnt{Device: "eth0", From: id, Changed: true}, Learnt{Device: "eth0", From: id, IPv6: true, Changed: true})
			f.Paths = append(f.Paths, PathTo{To: id, Sent: 25, Answered: 25, MedianMS: 0.3, HighMS: 0.5, WorstMS: 2, RatePPM: 3, RateErrPPM: 50, PathMTU: 1500})
		}
		s.Answers = append(s.Answers, Answer{Name: name, Instance: f.Instance, Facts: f})
		s.View.Members = append(s.View.Members, Member{Name: name, Instance: f.Instance, Role: "member", Voter: true, Alive: true})
	}
	return s
}

// lose forgets what to heard of from.
func lose(s *Survey, from, to int, kinds ...Kind) {
	f := s.Answers[to].Facts
	f.Heard = slices.DeleteFunc(f.Heard, func(h Heard) bool {
		return h.From == s.Answers[from].Instance && slices.ContainsFunc(kinds, func(k Kind) bool { return k.String() == h.Kind })
	})
}

func TestHealthy(t *testing.T) {
	r := Judge(well())
	for _, f := range r.Findings {
		if f.Severity != OK || f.Why != "" || f.Mend != "" {
			t.Errorf("in a healthy cluster: %+v", f)
		}
	}
	for _, id := range []string{"udp", "tcp", "mtu", "rtt", "clock-rate", "clock-wall", "lan", "multicast", "protocol-112", "garp", "na", "forged-mac", "duplicate-address", "vrid-collision"} {
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.ID == id }) {
			t.Errorf("nothing says that %s is well", id)
		}
	}
	if r.Broken != 0 || r.Warnings != 0 || len(r.Nodes) != 3 {
		t.Errorf("%+v", r)
	}
}

// TestFindings plants one thing at a time and wants exactly the findings that it makes.
func TestFindings(t *testing.T) {
	facts := func(s *Survey, i int) *Facts { return s.Answers[i].Facts }
	path := func(s *Survey, do func(*PathTo)) { do(&facts(s, 0).Paths[0]) } // n1 to n2
	device := func(s *Survey) *Device { return &facts(s, 1).Devices[0] }
	silence := func(s *Survey, i int) {
		s.Answers[i].Facts, s.Answers[i].Problem = nil, "connection refused"
		s.View.Members[i].Alive = false
	}
	for name, tc := range map[string]struct {
		plant func(*Survey)
		want  []string // "severity id node>to"
	}{
		"a node is silent": {func(s *Survey) { silence(s, 2) }, []string{"broken node-silent n3"}},
		"a witness more is silent": {func(s *Survey) {
			s.View.Members[2].Voter = false
			s.View.Members = append(s.View.Members, voters(2)...)
			silence(s, 2)
		}, []string{"warning node-silent n3", "note voters "}},
		"alive and does not answer": {func(s *Survey) { silence(s, 2); s.View.Members[2].Alive = true },
			[]string{"broken node-silent n3"}},
		"no quorum":         {func(s *Survey) { s.View.Quorum = false }, []string{"broken quorum "}},
		"not formed":        {func(s *Survey) { s.View, s.Unformed = nil, true }, []string{"broken quorum "}},
		"no leader":         {func(s *Survey) { s.View.Leader = "" }, []string{"broken quorum "}},
		"two voters":        {func(s *Survey) { s.View.Members[2].Voter = false }, []string{"broken voters "}},
		"no owner":          {func(s *Survey) { s.View.Groups[0].Owner = "" }, []string{"broken group "}},
		"an owner asleep":   {func(s *Survey) { s.View.Groups[0].Open, s.View.Groups[0].State = false, "backup" }, []string{"broken group "}},
		"a group's problem": {func(s *Survey) { s.View.Groups[0].Problem = "x" }, []string{"warning group "}},
		"no standby": {func(s *Survey) { s.View.Members[1].Drained = true; s.View.Groups[0].Barred = []string{"n3"} },
			[]string{"broken standby "}},
		"versions":         {func(s *Survey) { facts(s, 1).Version = "2" }, []string{"warning versions n2"}},
		"leases":           {func(s *Survey) { facts(s, 1).LeaseMS = 500 }, []string{"note lease-differs n2"}},
		"a problem":        {func(s *Survey) { facts(s, 1).Problems = []string{"x"} }, []string{"warning problem n2"}},
		"capabilities":     {func(s *Survey) { facts(s, 1).Host.Missing = []string{"CAP_NET_RAW"} }, []string{"broken capabilities n2"}},
		"old kernel":       {func(s *Survey) { facts(s, 1).Host.Kernel = "5.4.0-1" }, []string{"broken kernel n2"}},
		"time namespace":   {func(s *Survey) { facts(s, 1).Host.TimeShifted = "x" }, []string{"broken time-namespace n2"}},
		"no address proto": {func(s *Survey) { facts(s, 1).Host.AddressProto = false }, []string{"note address-proto n2"}},
		"no destroying":    {func(s *Survey) { facts(s, 1).Host.SockDestroy = No }, []string{"note sock-destroy n2"}},
		"a cloud":          {func(s *Survey) { facts(s, 1).Host.Fabric = "X" }, []string{"note fabric n2"}},
		"not looked at":    {func(s *Survey) { facts(s, 1).Unknown = []Unlooked{{ID: "garp", Why: "x"}} }, []string{"note unknown n2"}},
		"late fence":       {func(s *Survey) { facts(s, 1).Host.Fence.LateMS = 6 }, []string{"broken fence n2"}},
		"no fence":         {func(s *Survey) { facts(s, 1).Host.Fence.Problem = "x" }, []string{"broken fence n2"}},
		"lifetime":         {func(s *Survey) { facts(s, 1).Host.Fence.Want = "lifetime" }, []string{"warning fence n2"}},
		"slow disk":        {func(s *Survey) { facts(s, 1).Host.Disk.MedianMS = 120 }, []string{"warning disk n2"}},
		"one slow write":   {func(s *Survey) { facts(s, 1).Host.Disk.WorstMS = 600 }, []string{"note disk n2"}},
		"very slow disk":   {func(s *Survey) { facts(s, 1).Host.Disk.MedianMS = 600 }, []string{"broken disk n2"}},
		"hanging disk":     {func(s *Survey) { facts(s, 1).Host.Disk = Disk{Path: "/d", PendingMS: 1200} }, []string{"broken disk n2"}},
		"failing disk":     {func(s *Survey) { facts(s, 1).Host.Disk.Problem = "x" }, []string{"broken disk n2"}},
		"no device":        {func(s *Survey) { device(s).Index = 0 }, []string{"broken device n2"}},
		"device down":      {func(s *Survey) { device(s).Up = false }, []string{"broken device n2"}},
		"no carrier":       {func(s *Survey) { device(s).Carrier = false }, []string{"broken device n2"}},
		"no ARP":           {func(s *Survey) { device(s).NoARP = true }, []string{"broken device n2"}},
		"arp_ignore":       {func(s *Survey) { device(s).Sysctls["arp_ignore"] = 8 }, []string{"broken arp-ignore n2"}},
		"rp_filter":        {func(s *Survey) { device(s).Sysctls["rp_filter"] = 1 }, []string{"note rp-filter n2"}},
		"secondaries":      {func(s *Survey) { device(s).Sysctls["promote_secondaries"] = 0 }, []string{"note promote-secondaries n2"}},
		"no IPv6":          {func(s *Survey) { device(s).Sysctls["disable_ipv6"] = 1 }, []string{"broken ipv6-disabled n2"}},
		"udp":              {func(s *Survey) { lose(s, 0, 1, Small, Large) }, []string{"broken udp n1>n2"}},
		"udp, long":        {func(s *Survey) { lose(s, 0, 1, Large) }, []string{"broken mtu n1>n2"}},
		"tcp":              {func(s *Survey) { path(s, func(p *PathTo) { p.TCPProblem = "timeout" }) }, []string{"broken tcp n1>n2"}},
		"tcp to one who does not answer": {func(s *Survey) { silence(s, 1); path(s, func(p *PathTo) { p.TCPProblem = "timeout" }) },
			[]string{"broken node-silent n2", "broken tcp n1>n2"}},
		"nobody can connect": {func(s *Survey) {
			silence(s, 1)
			path(s, func(p *PathTo) { p.TCPProblem = "refused" })
			facts(s, 2).Paths[1].TCPProblem = "refused"
		}, []string{"broken node-silent n2"}},
		"fragments":    {func(s *Survey) { path(s, func(p *PathTo) { p.PathMTU = 1280 }) }, []string{"warning fragments n1>n2"}},
		"slow":         {func(s *Survey) { path(s, func(p *PathTo) { p.MedianMS, p.HighMS = 100, 110 }) }, []string{"broken rtt n1>n2"}},
		"jitter":       {func(s *Survey) { path(s, func(p *PathTo) { p.HighMS = 130 }) }, []string{"warning rtt n1>n2"}},
		"loss":         {func(s *Survey) { path(s, func(p *PathTo) { p.Answered = 20 }) }, []string{"warning rtt n1>n2"}},
		"much loss":    {func(s *Survey) { path(s, func(p *PathTo) { p.Answered = 10 }) }, []string{"broken rtt n1>n2"}},
		"clock":        {func(s *Survey) { path(s, func(p *PathTo) { p.RatePPM = -1500 }) }, []string{"warning clock-rate n1>n2"}},
		"clock, much":  {func(s *Survey) { path(s, func(p *PathTo) { p.RatePPM = 9000 }) }, []string{"broken clock-rate n1>n2"}},
		"time of day":  {func(s *Survey) { path(s, func(p *PathTo) { p.WallMS = -5000 }) }, []string{"note clock-wall n1>n2"}},
		"no LAN":       {func(s *Survey) { lose(s, 0, 1, Broadcast, Full, Multicast4, Protocol4) }, []string{"broken lan n1>n2"}},
		"frames, long": {func(s *Survey) { lose(s, 0, 1, Full) }, []string{"broken mtu n1>n2"}},
		"MTU":          {func(s *Survey) { device(s).MTU = 9000; lose(s, 1, 0, Full); lose(s, 1, 2, Full) }, []string{"warning mtu-differs n1>n2", "warning mtu-differs n2>n3"}},
		"multicast":    {func(s *Survey) { lose(s, 0, 1, Multicast4, Protocol4) }, []string{"broken multicast n1>n2"}},
		"protocol 112": {func(s *Survey) { lose(s, 0, 1, Protocol6) }, []string{"broken protocol-112 n1>n2"}},
		"forged":       {func(s *Survey) { lose(s, 0, 1, Forged) }, []string{"broken forged-mac n1>n2"}},
		"garp":         {func(s *Survey) { facts(s, 1).Learnt[0].Changed = false }, []string{"broken garp n1>n2"}},
		"na":           {func(s *Survey) { facts(s, 1).Learnt[1].Changed = false }, []string{"broken na n1>n2"}},
		"duplicate":    {func(s *Survey) { claim(s, "0a:00:00:00:00:01") }, []string{"broken duplicate-address n1"}},
		"own claim":    {func(s *Survey) { claim(s, "02:00:00:00:00:02") }, nil},
		"virtual MAC":  {func(s *Survey) { claim(s, "00:00:5e:00:01:33") }, nil},
		"perhaps a duplicate": {func(s *Survey) { claim(s, "0a:00:00:00:00:01"); silence(s, 2) },
			[]string{"broken node-silent n3", "warning duplicate-address n1"}},
		"other addresses": {func(s *Survey) {
			rival(s, Rival{Dialect: "vrrp", Addresses: []string{"10.0.0.9"}, Ours: []string{"10.0.0.200"}})
		},
			[]string{"broken vrid-collision n2"}},
		"same router":    {func(s *Survey) { rival(s, Rival{Dialect: "vrrp", Speaking: true}) }, []string{"note vrrp-differs n2"}},
		"router differs": {func(s *Survey) { rival(s, Rival{Dialect: "vrrp", Differs: []string{"x"}}) }, []string{"broken vrrp-differs n2"}},
		"carp":           {func(s *Survey) { rival(s, Rival{Dialect: "carp"}) }, []string{"note vrid-collision n2"}},
		"carp and vmac":  {func(s *Survey) { rival(s, Rival{Dialect: "carp", VMAC: true}) }, []string{"broken vrid-collision n2"}},
		"no daemon": {func(s *Survey) {
			s.Daemon, s.NoDaemon, s.View, s.Answers = false, "x", nil, s.Answers[:1]
			s.Answers[0].Facts.Paths = nil
		}, []string{"broken daemon n1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := well()
			tc.plant(&s)
			r := Judge(s)
			var got []string
			for _, f := range r.Findings {
				if f.Severity == OK {
					continue
				}
				line := f.Severity.String() + " " + f.ID + " " + f.Node
				if f.To != "" {
					line += ">" + f.To
				}
				got = append(got, line)
				if f.What == "" || f.Why == "" || f.Mend == "" {
					t.Errorf("%s does not say what, why and how to mend it: %+v", f.ID, f)
				}
			}
			slices.Sort(got)
			want := slices.Clone(tc.want)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("found %q, want %q", got, want)
			}
			if broken := slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(w, "broken") }); broken != (r.Broken > 0) {
				t.Errorf("%d broken", r.Broken)
			}
		})
	}
}

func voters(n int) (out []Member) {
	for i := range n {
		out = append(out, Member{Name: "w" + string(rune('1'+i)), Role: "witness", Voter: true, Alive: true})
	}
	return out
}

func claim(s *Survey, mac string) {
	f := s.Answers[0].Facts
	f.Claims = append(f.Claims, Claim{Device: "eth0", Address: "10.0.0.200", MAC: mac}, Claim{Device: "eth0", Address: "10.0.0.200", MAC: mac})
}

func rival(s *Survey, r Rival) {
	r.Device, r.Group, r.VRID, r.From = "eth0", "web", 51, "10.0.0.77"
	s.Answers[1].Facts.Rivals = append(s.Answers[1].Facts.Rivals, r)
}

func TestOf(t *testing.T) {
	s := well()
	lose(&s, 0, 1, Broadcast)
	r := Judge(s)
	if of, ok := r.Of("n2"); !ok || of.Broken != 1 || of.Findings[0].ID != "lan" {
		t.Errorf("n2: %v %+v", ok, of)
	}
	if of, ok := r.Of("n3"); !ok || of.Broken != 0 {
		t.Errorf("n3: %v %+v", ok, of)
	}
	if _, ok := r.Of("n4"); ok {
		t.Error("a node that there is not")
	}
}

func TestReportIsJSON(t *testing.T) {
	s := well()
	lose(&s, 0, 1, Broadcast)
	want := Judge(s)
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Report
	if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v: %s", err, b)
	}
	if !strings.Contains(string(b), `"id":"lan","severity":"broken","node":"n1","to":"n2","device":"eth0"`) {
		t.Errorf("%s", b)
	}
	if err := json.Unmarshal([]byte(`{"findings":[{"severity":"bad"}]}`), &got); err == nil {
		t.Error("an unknown severity passes")
	}
}

// TestDocumented: every id has its place in the documentation.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	for id := range catalogue {
		if !strings.Contains(string(text), "| `"+id+"` |") {
			t.Errorf("docs/doctor.md does not have %s", id)
		}
	}
}

func TestClockRate(t *testing.T) {
	sample := func(at, trip int64, ppm float64) ClockSample {
		middle := at + trip/2
		return ClockSample{Sent: at, Received: at + trip, Theirs: 7e15 + middle + int64(float64(middle)*ppm/1e6)}
	}
	for _, ppm := range []float64{0, 250, -9000} {
		var all []ClockSample
		for i := range int64(30) {
			trip := int64(300_000)
			if i%4 == 0 {
				trip = 40_000_000 // a busy moment
			}
			all = append(all, sample(i*60_000_000, trip, ppm))
		}
		got, slack, ok := ClockRate(all)
		if !ok || got < ppm-slack || got > ppm+slack || slack > 300 {
			t.Errorf("%v ppm: measured %v ± %v, %v", ppm, got, slack, ok)
		}
	}
	if _, _, ok := ClockRate(make([]ClockSample, 5)); ok {
		t.Error("five samples are enough")
	}
	if _, _, ok := ClockRate(make([]ClockSample, 9)); ok {
		t.Error("nine samples of one instant are enough")
	}
}
