package metrics

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/internal/agent/core"
)

// descriptions are all families that are made anew for each scrape.
var descriptions []*prometheus.Desc

func family(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("quorate_"+name, help, labels, nil)
	descriptions = append(descriptions, d)
	return d
}

var (
	buildInfo = family("build_info", "The version of the daemon; always 1.", "version")
	up        = family("up", "Whether the daemon's loop answers within a second.")

	quorum      = family("quorum", "Whether this node hears a majority of the voters.")
	ready       = family("ready", "Whether this node's vote counts; rolling restarts wait for it.")
	leaseLength = family("lease_seconds", "The configured length of a lease.")
	revision    = family("document_revision", "The revision of the document that this node has applied.")
	problems    = family("problems", "How many problems the status names of the node as a whole.")
	memberAlive = family("member_alive", "Whether this node hears the other one.", "member")
	refused     = family("connections_refused_total", "Connections between nodes that were refused, by reason.", "reason")
	foreign     = family("foreign_datagrams_total", "Datagrams that were not of this cluster, by reason.", "reason")

	vipActive    = family("vip_active", "Whether this node holds the group.", "vip")
	vipProblem   = family("vip_problem", "Whether the status names a problem of the group on this node.", "vip")
	withoutProof = family("without_proof", "Whether this node holds the group although no majority confirms it (on_quorum_loss: hold).", "vip")
	leaseLeft    = family("lease_remaining_seconds", "For how long this node may still hold the group; 0 where it does not.", "vip")
	fenceDrops   = family("fence_drops_total", "Frames that the fence dropped for the addresses of the group.", "vip")
	claimsTotal  = family("foreign_claims_total", "ARP and NA by which other hosts claimed an address of the group while it was held here.", "vip", "mac")

	vrrpAdverts = family("vrrp_adverts_total", "VRRP adverts, by direction, virtual router and result.", "dir", "vrid", "result")

	raftLeader      = family("raft_leader", "Whether this node is the Raft leader.")
	raftTerm        = family("raft_term", "The Raft term.")
	raftLast        = family("raft_last_index", "The index of the last entry of the log.")
	raftCommitted   = family("raft_commit_index", "The index of the last entry that is known to be committed.")
	raftApplied     = family("raft_applied_index", "The index of the last entry that was applied.")
	raftLastContact = family("raft_last_contact_seconds", "Since when the leader was not heard; 0 on the leader.")
	raftWrites      = family("raft_write_seconds", "How long it took to make Raft's entries and votes durable.")
	raftCommits     = family("raft_commit_seconds", "How long it took to commit what was proposed on this node as the leader.")
)

// A writer hands out what one scrape finds.
type writer struct{ ch chan<- prometheus.Metric }

func (w writer) gauge(d *prometheus.Desc, v float64, labels ...string) {
	w.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (w writer) counter(d *prometheus.Desc, n uint64, labels ...string) {
	w.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (w writer) yes(d *prometheus.Desc, yes bool, labels ...string) {
	v := 0.0
	if yes {
		v = 1
	}
	w.gauge(d, v, labels...)
}

func (w writer) latency(d *prometheus.Desc, l raftnode.Latency) {
	classes := make(map[float64]uint64, len(l.Classes))
	for i, n := range l.Classes {
		classes[raftnode.LatencyBounds[i].Seconds()] = n
	}
	w.ch <- prometheus.MustNewConstHistogram(d, l.Count, l.Sum.Seconds(), classes)
}

// alone is the election of a node without a cluster, of which a part has no meaning.
const alone = "vrrp"

func (m *Metrics) node(out writer, st core.Status) {
	out.yes(ready, st.Ready)
	out.gauge(problems, float64(len(st.Problems)))
	if st.Election == alone {
		return
	}
	out.yes(quorum, st.Quorum)
	out.gauge(leaseLength, st.LeaseMS/1000)
	out.gauge(revision, float64(st.Revision))
	for _, n := range st.Members {
		out.yes(memberAlive, n.Alive, n.Name)
	}
	for reason, n := range st.Refused {
		out.counter(refused, n, reason)
	}
	for reason, n := range st.Foreign {
		out.counter(foreign, n, reason)
	}
}

func (m *Metrics) vip(out writer, st core.Status, v core.VIPStatus) {
	out.yes(vipActive, v.State == "active", v.Name)
	out.yes(vipProblem, v.Problem != "", v.Name)
	if st.Election != alone {
		out.yes(withoutProof, v.WithoutProof, v.Name)
		out.gauge(leaseLeft, v.LeaseRemainingMS/1000, v.Name)
		out.counter(fenceDrops, dropped(st, v), v.Name)
	}
	c := m.claims[v.Name]
	if c == nil {
		c = newClaims()
		m.claims[v.Name] = c
	}
	c.take(v.Claims)
	for mac, n := range c.total {
		out.counter(claimsTotal, n, v.Name, mac)
	}
}

// dropped is what the fence dropped for all addresses of a group.
func dropped(st core.Status, v core.VIPStatus) (n uint64) {
	for _, a := range v.Addresses {
		addr, _, _ := strings.Cut(a, "/")
		n += st.FenceDrops[addr]
	}
	return n
}

func raft(out writer, s raftnode.Stats) {
	out.yes(raftLeader, s.State == "leader")
	out.gauge(raftTerm, float64(s.Term))
	out.gauge(raftLast, float64(s.LastIndex))
	out.gauge(raftCommitted, float64(s.CommitIndex))
	out.gauge(raftApplied, float64(s.Applied))
	out.gauge(raftLastContact, s.LastContact.Seconds())
	out.latency(raftWrites, s.Writes)
	out.latency(raftCommits, s.Commits)
}

func direction(out bool) string {
	if out {
		return "out"
	}
	return "in"
}

// vrid is the label of a virtual router. Those that are none of this node's share one, or
// whoever is on the LAN could make 255 of them.
func vrid(id uint8) string {
	if id == 0 {
		return "other"
	}
	return strconv.Itoa(int(id))
}
