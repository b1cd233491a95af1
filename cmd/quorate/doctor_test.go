package main

import (
	"strings"
	"testing"

	"github.com/quorate/quorate/internal/doctor"
)

// ailing is a report with a finding of each severity.
func ailing() doctor.Report {
	note := func(node string) doctor.Finding {
		return doctor.Finding{ID: "promote-secondaries", Severity: doctor.Note, Node: node, Device: "eth0", What: "promote_secondaries is 0 on eth0",
			Why: "the kernel removes other addresses too", Mend: "sysctl -w net.ipv4.conf.all.promote_secondaries=1"}
	}
	return doctor.Report{Cluster: "prod", Node: "n1", Daemon: true, TookMS: 3051.5, Broken: 1, Warnings: 1,
		Nodes: []doctor.Asked{{Name: "n1", Answered: true}, {Name: "n2", Answered: true}, {Name: "n3", Problem: "connection refused"}},
		Findings: []doctor.Finding{
			{ID: "protocol-112", Severity: doctor.Broken, Node: "n1", To: "n2", Device: "eth0", What: "protocol 112 to 224.0.0.18 from n1 does not arrive at n2, and UDP does",
				Why: "routers behind it do not hear who is Active", Mend: "allow protocol 112"},
			{ID: "disk", Severity: doctor.Warning, Node: "n2", What: "a write takes 120.0 ms", Why: "a change of owner is a commit", Mend: "another disk"},
			note("n1"), note("n2"),
			{ID: "udp", Severity: doctor.OK, What: "datagrams arrive (2 looked at)"},
			{ID: "fence", Severity: doctor.OK, Node: "n1", What: "tcx"}, {ID: "fence", Severity: doctor.OK, Node: "n2", What: "tcx"},
		}}
}

func TestDoctor(t *testing.T) {
	dir, socket := startDaemon(t, &fakeAgent{report: ailing()})
	golden(t, "doctor", dir, "doctor", "--socket", socket)
	golden(t, "doctor-json", dir, "doctor", "--json", "--socket", socket)
	golden(t, "doctor-node", dir, "doctor", "--node", "n2", "--socket", socket)
	golden(t, "doctor-unknown", dir, "doctor", "--node", "n9", "--socket", socket)
	golden(t, "doctor-time", dir, "doctor", "--time", "1m", "--socket", socket)
	dir, socket = startDaemon(t, &fakeAgent{})
	golden(t, "doctor-well", dir, "doctor", "--socket", socket)
}

// TestDoctorAlone: without a daemon there is something to say all the same, and without a
// configuration there is not.
func TestDoctorAlone(t *testing.T) {
	code, _, stderr := quorate(t, "doctor", "--socket", t.TempDir()+"/none")
	if code != exitFailed || !strings.Contains(stderr, "--config") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
