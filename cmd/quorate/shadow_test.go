package main

import (
	"testing"
	"time"

	"github.com/quorate/quorate/internal/shadow"
	"github.com/quorate/quorate/internal/term"
)

// TestShadowText: the summary has what happened in order of time, and fits a screen.
func TestShadowText(t *testing.T) {
	at := func(s float64) time.Time {
		return time.Date(2026, 11, 23, 2, 23, 47, 0, time.UTC).Add(time.Duration(s * float64(time.Second)))
	}
	n1, n2 := "n1 (10.0.0.1, priority 150)", "n2 (10.0.0.2, priority 100)"
	web := shadow.GroupReport{
		Group: "web", Addresses: []string{"10.0.0.200/24"}, Really: n1, Would: "n1", Verdict: "agreed", AgreedMS: 3000, DifferedMS: 5000, Priority: 254,
		Heard:       []shadow.Router{{Address: "10.0.0.1", Node: "n1", Priority: 150}, {Address: "10.0.0.2", Node: "n2", Priority: 100}},
		Changes:     []shadow.Change{{At: at(5), To: n1, Would: "n1"}, {At: at(7), From: n1, To: n2, Would: "n1"}, {At: at(12), From: n2, To: n1, Would: "n1"}},
		Decisions:   []shadow.Decision{{At: at(2), To: "n1", Reason: "first"}},
		Differences: []shadow.Difference{{At: at(7), Until: at(12), Really: n2, Would: "n1"}},
		TwoHosts:    []shadow.TwoHosts{{At: at(11.9), Until: at(12.1), Who: []string{n1, n2}}},
		Left:        2,
	}
	r := shadow.Report{Node: "n3", Cluster: "prod-shadow", Election: "raft", From: at(0), Until: at(15.1), Groups: []shadow.GroupReport{web}}
	own := shadow.GroupReport{Group: "web", Addresses: web.Addresses, Really: "10.0.0.1 (priority 150)", Verdict: "agreed", AgreedMS: 9000,
		Changes: []shadow.Change{{At: at(1), To: "10.0.0.1 (priority 150)"}}}
	router := shadow.Report{Node: "n2", Election: alone, From: at(0), Until: at(10), Groups: []shadow.GroupReport{own}}
	empty := shadow.Report{Node: "n2", Election: alone, From: at(0), Until: at(1)}
	var s term.Screen
	goldenText(t, "shadow", shadowText(s, r)+"\n"+shadowText(s, router)+"\n"+shadowText(s, empty))
}
