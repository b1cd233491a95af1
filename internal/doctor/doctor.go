// Package doctor judges whether a failover of a cluster would work: facts that its
// nodes measured go in, findings for people come out.
//
// It measures nothing itself; internal/doctor/host and internal/daemon do.
package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// A Severity says what a finding means for the next failover.
type Severity uint8

const (
	_       Severity = iota
	OK               // looked at, and well
	Note             // good to know; nothing need be done
	Warning          // a failover may be slower or incomplete
	Broken           // a failover would fail, or has failed
)

var severityNames = [...]string{"", "ok", "note", "warning", "broken"}

// String is the severity's word in JSON and in tables.
func (s Severity) String() string {
	if int(s) < len(severityNames) && s != 0 {
		return severityNames[s]
	}
	return fmt.Sprintf("severity(%d)", uint8(s))
}

// MarshalText and UnmarshalText make it that word in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *Severity) UnmarshalText(b []byte) error {
	for i, name := range severityNames {
		if i > 0 && name == string(b) {
			*s = Severity(i)
			return nil
		}
	}
	return fmt.Errorf("severity %q: want ok, note, warning or broken", b)
}

// A Finding is one thing that was looked at. ID never changes its meaning; Node and To
// name where it is: one node, or what goes from the one to the other.
type Finding struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	Node     string   `json:"node,omitempty"`   // empty: the cluster
	To       string   `json:"to,omitempty"`     // of a pair: who should have got it
	Device   string   `json:"device,omitempty"` // on the node that looked
	What     string   `json:"what"`
	Why      string   `json:"why,omitempty"`  // why it matters; empty where nothing is wrong
	Mend     string   `json:"mend,omitempty"` // what to do
}

// A Report is what `quorate doctor` shows.
type Report struct {
	Cluster  string    `json:"cluster,omitempty"`
	Node     string    `json:"node"`    // which asked the others
	Daemon   bool      `json:"daemon"`  // false: none answered, and this host's own facts are all there is
	TookMS   float64   `json:"took_ms"` // from the question to the last answer
	Nodes    []Asked   `json:"nodes"`
	Findings []Finding `json:"findings"` // the gravest first
	Broken   int       `json:"broken"`   // how many findings would break a failover
	Warnings int       `json:"warnings"`
}

// Asked is one node and whether its facts are in the report.
type Asked struct {
	Name     string `json:"name"`
	Answered bool   `json:"answered"`
	Problem  string `json:"problem,omitempty"` // why not
}

// Of returns the report with the findings about one node only, pairs included; false if
// the report knows no such node.
func (r Report) Of(node string) (Report, bool) {
	known := r.Node == node || slices.ContainsFunc(r.Nodes, func(a Asked) bool { return a.Name == node })
	if !known {
		return r, false
	}
	r.Findings = slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return f.Node != node && f.To != node })
	r.count()
	return r, true
}

// count sorts the findings and counts the grave ones.
func (r *Report) count() {
	r.Broken, r.Warnings = 0, 0
	for _, f := range r.Findings {
		switch f.Severity {
		case Broken:
			r.Broken++
		case Warning:
			r.Warnings++
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Node, b.Node), cmp.Compare(a.To, b.To),
			cmp.Compare(a.Device, b.Device))
	})
}

// Bounds of the time that is spent on measuring between the nodes.
const (
	DefaultMeasure = 3 * time.Second
	MinMeasure     = 2 * time.Second // announcements have to reach past a neighbour's lock of one second
	MaxMeasure     = 8 * time.Second
)

// Judge turns what was asked and answered into a report.
func Judge(in Survey) Report {
	j := &judge{in: in, byID: map[string]*Facts{}}
	for i := range in.Answers {
		if f := in.Answers[i].Facts; f != nil {
			j.byID[f.Instance] = f
			j.facts = append(j.facts, f)
		}
	}
	if !in.Daemon {
		j.find(Broken, "daemon", in.Node, "", "", "%s", in.NoDaemon)
	}
	if in.Unformed {
		j.find(Broken, "quorum", "", "", "", "the cluster is not formed yet")
	}
	if in.View != nil {
		j.cluster(*in.View)
	}
	for _, f := range j.facts {
		j.host(f)
	}
	j.pairs()
	j.lan()
	j.summaries()
	r := Report{Cluster: in.Cluster, Node: in.Node, Daemon: in.Daemon, TookMS: in.TookMS, Nodes: []Asked{}, Findings: j.findings}
	for _, a := range in.Answers {
		r.Nodes = append(r.Nodes, Asked{Name: a.Name, Answered: a.Facts != nil, Problem: a.Problem})
	}
	r.count()
	return r
}

// A judge collects findings.
type judge struct {
	in       Survey
	facts    []*Facts
	byID     map[string]*Facts // by instance
	findings []Finding
	looked   map[string]int // how often a check of pairs was made, by id
}

// find adds a finding with the reasons that its id has.
func (j *judge) find(s Severity, id, node, to, device, format string, args ...any) {
	f := Finding{ID: id, Severity: s, Node: node, To: to, Device: device, What: fmt.Sprintf(format, args...)}
	if s > OK {
		f.Why, f.Mend = catalogue[id].why, catalogue[id].mend
	}
	j.findings = append(j.findings, f)
}

// look counts that a pair was looked at.
func (j *judge) look(id string) {
	if j.looked == nil {
		j.looked = map[string]int{}
	}
	j.looked[id]++
}

// summaries says of each check of pairs or addresses that found nothing what it looked at.
func (j *judge) summaries() {
	for _, id := range []string{"udp", "tcp", "mtu", "rtt", "clock-rate", "clock-wall", "lan", "multicast", "protocol-112", "garp", "na",
		"forged-mac", "duplicate-address", "vrid-collision"} {
		n := j.looked[id]
		if n == 0 || slices.ContainsFunc(j.findings, func(f Finding) bool { return f.ID == id }) {
			continue
		}
		j.find(OK, id, "", "", "", "%s (%d looked at)", catalogue[id].well, n)
	}
}
