package fsm

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func check(name string) Check {
	return Check{Name: name, TCP: "127.0.0.1:80", Interval: time.Second, Timeout: time.Second, Rise: 2, Fall: 3}
}

// full is a document with everything in it, at the bounds where there are any.
func full() Document {
	one, two, three := web, db, group("mail", "10.0.0.202/24")
	one.Placement, two.Placement = PlacementPriority, PlacementPriority
	one.Priority = map[string]uint8{"n1": 254, "n2": 0}
	one.Preempt = Preempt{Yes: true, Delay: time.Hour}
	two.Preempt = one.Preempt
	one.Together, three.Apart = []string{"db"}, []string{"web", "db"}
	one.Checks = []string{"http", "tcp"}
	one.TrackInterfaces = []Track{{"eth1", -254}, {"a-device-of-15b", 254}}
	one.WhenAllFail, one.OnQuorumLoss = AllFailRelease, QuorumLossHold
	one.Hooks = Hooks{Active: []string{"/usr/local/bin/up", "now"}, Timeout: time.Hour}
	three.Placement, three.Weight = PlacementSpread, 1000
	d := doc(one, two, three)
	d.Hooks = Hooks{Fault: []string{"logger"}, Timeout: 10 * time.Millisecond}
	for _, name := range strings.Fields("http tcp tcp6 icmp command process file systemd") {
		c := check(name)
		c.TCP = ""
		switch name {
		case "http":
			c.HTTP = &HTTPCheck{URL: "https://127.0.0.1/healthz", Host: "www", StatusMin: 100, StatusMax: 599, Match: "ok", CA: "/etc/ca.pem"}
		case "tcp":
			c.TCP = "localhost:65535"
		case "tcp6":
			c.TCP = "[::1]:1"
		case "icmp":
			c.ICMP = "10.0.0.1"
		case "command":
			c.Command = &CommandCheck{Argv: []string{"/bin/true"}, User: "nobody"}
		case "process":
			c.Process = "Web Content"
		case "file":
			c.File = &FileCheck{Path: "/run/ok", Match: "^1$"}
		case "systemd":
			c.Systemd = "nginx.service"
		}
		d.Checks = append(d.Checks, c)
	}
	d.Checks[0].Interval, d.Checks[0].Timeout, d.Checks[0].Rise, d.Checks[0].Weight = 100*time.Millisecond, 10*time.Millisecond, 1, -254
	d.Checks[1].Interval, d.Checks[1].Timeout, d.Checks[1].Fall, d.Checks[1].Weight = time.Hour, 10*time.Minute, 100, 254
	return d
}

func TestFullDocument(t *testing.T) {
	if err := full().Check(); err != nil {
		t.Fatal(err)
	}
}

func TestCheckOfGroups(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(web, db, mail *Group)
		want   string
	}{
		"placement":             {func(g, _, _ *Group) { g.Placement = 4 }, `group "web": unknown placement(4)`},
		"when all fail":         {func(g, _, _ *Group) { g.WhenAllFail = 3 }, "unknown all-fail(3)"},
		"quorum loss":           {func(g, _, _ *Group) { g.OnQuorumLoss = 3 }, "unknown quorum-loss(3)"},
		"weight below":          {func(g, _, _ *Group) { g.Weight = -1 }, "weight is -1, want 1 to 1000"},
		"weight above":          {func(g, _, _ *Group) { g.Weight = 1001 }, "weight is 1001, want 1 to 1000"},
		"delay above":           {func(g, _, _ *Group) { g.Preempt.Delay = time.Hour + 1 }, "a delay of 1h0m0.000000001s, want 0 to 1h0m0s"},
		"delay below":           {func(g, _, _ *Group) { g.Preempt.Delay = -1 }, "a delay of -1ns, want 0 to 1h0m0s"},
		"delay of nothing":      {func(g, _, _ *Group) { g.Preempt.Yes = false }, "no preemption to delay"},
		"priority above":        {func(g, _, _ *Group) { g.Priority = map[string]uint8{"n1": 255} }, `priority of node "n1" is 255`},
		"priority of no name":   {func(g, _, _ *Group) { g.Priority = map[string]uint8{"": 1} }, "want a node's name"},
		"unknown check":         {func(g, _, _ *Group) { g.Checks = []string{"nosuch"} }, `there is no check "nosuch"`},
		"check twice":           {func(g, _, _ *Group) { g.Checks = []string{"tcp", "tcp"} }, `"tcp" is there twice`},
		"device without name":   {func(g, _, _ *Group) { g.TrackInterfaces = []Track{{}} }, `"" is no name of a device`},
		"device with long name": {func(g, _, _ *Group) { g.TrackInterfaces = []Track{{Interface: "sixteen-bytes-16"}} }, "no name of a device"},
		"device with slash":     {func(g, _, _ *Group) { g.TrackInterfaces = []Track{{Interface: "a/b"}} }, "no name of a device"},
		"device twice":          {func(g, _, _ *Group) { g.TrackInterfaces = []Track{{"eth1", 0}, {"eth1", 1}} }, `"eth1" is there twice`},
		"device's weight":       {func(g, _, _ *Group) { g.TrackInterfaces = []Track{{"eth1", 255}} }, `the weight of "eth1" is 255`},
		"hook without program":  {func(g, _, _ *Group) { g.Hooks.Backup = []string{""} }, "hooks: backup: 1 words, want 1 to 256"},
		"hook of many words":    {func(g, _, _ *Group) { g.Hooks.Fault = make([]string, 257) }, "hooks: fault: 257 words"},
		"hook with zero byte":   {func(g, _, _ *Group) { g.Hooks.Active = []string{"up", "a\x00"} }, "word 1 is longer"},
		"hook with long word":   {func(g, _, _ *Group) { g.Hooks.Active = []string{strings.Repeat("x", 4097)} }, "word 0 is longer than 4096"},
		"hook without timeout":  {func(g, _, _ *Group) { g.Hooks.Timeout = 0 }, "hooks: timeout is 0s, want 10ms to 1h0m0s"},
		"hook with long one":    {func(g, _, _ *Group) { g.Hooks.Timeout = time.Hour + 1 }, "hooks: timeout is 1h"},
		"apart from unknown":    {func(_, _, g *Group) { g.Apart = []string{"nosuch"} }, `group "mail": apart: there is no group "nosuch"`},
		"apart from itself":     {func(_, _, g *Group) { g.Apart = []string{"mail"} }, `"mail" is there twice or is the group itself`},
		"apart twice":           {func(_, _, g *Group) { g.Apart = []string{"db", "db"} }, `"db" is there twice`},
		"apart from many":       {func(_, _, g *Group) { g.Apart = make([]string, 101) }, "101 groups, want at most 100"},
		"together with unknown": {func(_, _, g *Group) { g.Together = []string{"nosuch"} }, `group "mail": together: there is no group "nosuch"`},
		"together with itself":  {func(g, _, _ *Group) { g.Together = []string{"web"} }, `"web" is there twice or is the group itself`},
		"both":                  {func(_, g, _ *Group) { g.Apart = []string{"web"} }, `group "db" is to be apart from "web" and`},
		"both, by way of others": {func(_, g, h *Group) {
			g.Together, h.Apart = []string{"mail"}, []string{"web"}
			h.Placement, h.Preempt = g.Placement, g.Preempt
		}, `group "mail" is to be apart from "web" and, directly or by way of others, together`},
		"together, placed otherwise":    {func(_, g, _ *Group) { g.Placement = PlacementLeader }, "their placement is priority and leader"},
		"together, preempted otherwise": {func(_, g, _ *Group) { g.Preempt.Delay = 0 }, "their preempt differs"},
	} {
		d := full()
		tt.change(&d.Groups[0], &d.Groups[1], &d.Groups[2])
		if err := d.Check(); !errors.Is(err, ErrBadDocument) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q in it", name, err, tt.want)
		}
	}
}

func TestCheckOfChecks(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Check)
		want   string
	}{
		"nothing":           {func(c *Check) { c.TCP = "" }, `check "c": it tests nothing`},
		"several":           {func(c *Check) { c.ICMP, c.Systemd = "a", "b" }, `it has tcp and icmp and systemd`},
		"no name":           {func(c *Check) { c.Name = "" }, `check name ""`},
		"long name":         {func(c *Check) { c.Name = strings.Repeat("x", 64) }, "longer than 63"},
		"interval below":    {func(c *Check) { c.Interval = 99 * time.Millisecond }, "interval is 99ms, want 100ms to 1h0m0s"},
		"interval above":    {func(c *Check) { c.Interval = 61 * time.Minute }, "interval is 1h1m0s"},
		"timeout below":     {func(c *Check) { c.Timeout = 9 * time.Millisecond }, "timeout is 9ms, want 10ms to 10m0s"},
		"timeout above":     {func(c *Check) { c.Timeout = 11 * time.Minute }, "timeout is 11m0s"},
		"rise":              {func(c *Check) { c.Rise = 0 }, "rise is 0 and fall is 3, want 1 to 100"},
		"fall":              {func(c *Check) { c.Fall = 101 }, "rise is 2 and fall is 101"},
		"weight above":      {func(c *Check) { c.Weight = 255 }, "weight is 255, want -254 to 254"},
		"weight below":      {func(c *Check) { c.Weight = -255 }, "weight is -255"},
		"tcp without port":  {func(c *Check) { c.TCP = "localhost" }, "want host:port"},
		"tcp without host":  {func(c *Check) { c.TCP = ":80" }, "want host:port"},
		"tcp port 0":        {func(c *Check) { c.TCP = "a:0" }, `the port is "0", want 1 to 65535`},
		"tcp port name":     {func(c *Check) { c.TCP = "a:http" }, `the port is "http"`},
		"tcp big port":      {func(c *Check) { c.TCP = "a:65536" }, `the port is "65536"`},
		"tcp bare IPv6":     {func(c *Check) { c.TCP = "::1:80" }, "in brackets"},
		"tcp two words":     {func(c *Check) { c.TCP = "a b:80" }, "want host:port"},
		"icmp two words":    {func(c *Check) { c.TCP, c.ICMP = "", "a b" }, "icmp: \"a b\""},
		"process two lines": {func(c *Check) { c.TCP, c.Process = "", "a\nb" }, "process: "},
		"systemd two words": {func(c *Check) { c.TCP, c.Systemd = "", "a b" }, "systemd: "},
		"command of none":   {func(c *Check) { c.TCP, c.Command = "", &CommandCheck{} }, "command: 0 words"},
		"command's user":    {func(c *Check) { c.TCP, c.Command = "", &CommandCheck{[]string{"x"}, "a b"} }, `user "a b"`},
		"file not absolute": {func(c *Check) { c.TCP, c.File = "", &FileCheck{Path: "run/ok"} }, `"run/ok" is no absolute path`},
		"file's match":      {func(c *Check) { c.TCP, c.File = "", &FileCheck{"/x", strings.Repeat("x", 4097)} }, "match has 4097 bytes"},
	} {
		d := doc(web)
		d.Checks = []Check{check("c")}
		tt.change(&d.Checks[0])
		if err := d.Check(); !errors.Is(err, ErrBadDocument) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q in it", name, err, tt.want)
		}
	}
	d := doc(web)
	d.Checks = []Check{check("c"), check("c")}
	if err := d.Check(); err == nil || !strings.Contains(err.Error(), `check name "c" is empty, longer than 63 bytes, or there twice`) {
		t.Errorf("twice: %v", err)
	}
	d = doc(web)
	d.Hooks = Hooks{Active: []string{"up"}}
	if err := d.Check(); err == nil || !strings.Contains(err.Error(), "hooks of the cluster: timeout is 0s") {
		t.Errorf("hooks of the cluster: %v", err)
	}
}

func TestCheckOfHTTP(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*HTTPCheck)
		want   string
	}{
		"as it is":        {func(*HTTPCheck) {}, ""},
		"plain":           {func(h *HTTPCheck) { h.URL = "http://a" }, ""},
		"insecure":        {func(h *HTTPCheck) { h.Insecure = true }, ""},
		"other scheme":    {func(h *HTTPCheck) { h.URL = "ftp://a" }, `url is "ftp://a"`},
		"no host":         {func(h *HTTPCheck) { h.URL = "https://" }, "has no host"},
		"two words":       {func(h *HTTPCheck) { h.URL = "https://a b" }, "has a space"},
		"host":            {func(h *HTTPCheck) { h.Host = "a b" }, `host "a b"`},
		"status below":    {func(h *HTTPCheck) { h.StatusMin = 99 }, "status 99 to 299, want 100 to 599"},
		"status above":    {func(h *HTTPCheck) { h.StatusMax = 600 }, "status 200 to 600"},
		"status backward": {func(h *HTTPCheck) { h.StatusMax = 199 }, "status 200 to 199"},
		"match":           {func(h *HTTPCheck) { h.Match = strings.Repeat("x", 4097) }, "match has 4097 bytes"},
		"plain with ca":   {func(h *HTTPCheck) { h.URL, h.CA = "http://a", "/ca" }, "not encrypted"},
		"plain insecure":  {func(h *HTTPCheck) { h.URL, h.Insecure = "http://a", true }, "not encrypted"},
		"ca and insecure": {func(h *HTTPCheck) { h.CA, h.Insecure = "/ca", true }, "take one out"},
		"ca not absolute": {func(h *HTTPCheck) { h.CA = "ca" }, "no absolute path"},
	} {
		h := HTTPCheck{URL: "https://127.0.0.1/", StatusMin: 200, StatusMax: 299}
		tt.change(&h)
		c := check("c")
		c.TCP, c.HTTP = "", &h
		d := doc(web)
		d.Checks = []Check{c}
		switch err := d.Check(); {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: error %v, want %q in it", name, err, tt.want)
		}
	}
}

func TestCheckNodes(t *testing.T) {
	s := formed(t, web)
	d := full()
	if err := s.CheckNodes(d); err != nil {
		t.Fatal(err)
	}
	d.Groups[0].Priority = map[string]uint8{"n1": 1, "n9": 2}
	err := s.CheckNodes(d)
	if !errors.Is(err, ErrBadDocument) || !strings.Contains(err.Error(), `node "n9", which the cluster does not have; its nodes are n1, n2, w`) {
		t.Fatalf("error %v", err)
	}
}

func TestHeads(t *testing.T) {
	d := doc(web, db, group("a", "10.0.0.3/24"), group("b", "10.0.0.4/24"), group("c", "10.0.0.5/24"))
	d.Groups[3].Together = []string{"c", "nosuch"}
	d.Groups[4].Together = []string{"db"}
	if got := d.heads(); !slices.Equal(got, []int{0, 1, 2, 1, 1}) {
		t.Fatalf("heads %v", got)
	}
}
