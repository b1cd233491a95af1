package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/election/gossip"
	"github.com/quorate/quorate/election/peerlink"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/doctor"
	surveyor "github.com/quorate/quorate/internal/doctor/host"
	"github.com/quorate/quorate/vrrpcompat"
)

const (
	// surveySlack is how long a node may take beyond the measuring.
	surveySlack = 3 * time.Second
	connectTime = time.Second // for a connection to another node's port
	// A node that measures for somebody else is asked again so often, and after so long.
	busyTries = 4
	busyPause = 500 * time.Millisecond
	// rivalSlack is how late an advert of a router outside may be.
	rivalSlack = 500 * time.Millisecond
)

// errSurvey means that a node measures for somebody else now.
var errSurvey = errors.New("another quorate doctor is at work")

// A surveyReply is what a node answers to another's question.
type surveyReply struct {
	Busy  bool          `json:"busy,omitempty"`
	Facts *doctor.Facts `json:"facts,omitempty"`
}

// Doctor asks every node, and judges what they say.
func (p apiPort) Doctor(ctx context.Context, req api.DoctorRequest) (doctor.Report, error) {
	begun := Now()
	if p.n.shadow != nil {
		return doctor.Report{}, errShadow
	}
	st, err := p.Status(ctx)
	if err != nil {
		return doctor.Report{}, err
	}
	question := doctor.Request{Nonce: max(rand.Uint64(), 1), Measure: req.Measure(), Nodes: []doctor.Peer{}}
	for _, m := range st.Members {
		if len(question.Nodes) < doctor.MaxNodes {
			question.Nodes = append(question.Nodes, doctor.Peer{Instance: m.Instance, Name: m.Name, Address: m.Address})
		}
	}
	survey := doctor.Survey{Cluster: st.Cluster, Node: st.Node, Daemon: true, Unformed: st.ClusterID == "" && !p.n.alone()}
	if st.ClusterID != "" {
		survey.View = viewOf(st, p.n.document())
	}
	survey.Answers, err = p.n.askAll(ctx, st, question)
	for tries := 1; tries < busyTries && errors.Is(err, errSurvey); tries++ {
		select {
		case <-ctx.Done():
			return doctor.Report{}, err
		case <-time.After(busyPause + rand.N(busyPause)): // two that hinder each other must not stay in step
		}
		question.Nonce++
		survey.Answers, err = p.n.askAll(ctx, st, question)
	}
	if err != nil {
		return doctor.Report{}, err
	}
	survey.TookMS = millis(Now().Sub(begun))
	return doctor.Judge(survey), nil
}

// askAll has every node measure at the same time, this one included.
func (n *node) askAll(ctx context.Context, st core.Status, question doctor.Request) ([]doctor.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, question.Measure+surveySlack)
	defer cancel()
	answers := []doctor.Answer{{Name: st.Node, Instance: st.Instance}} // first, and alone without a cluster
	for _, m := range question.Nodes {
		if m.Instance != st.Instance {
			answers = append(answers, doctor.Answer{Name: m.Name, Instance: m.Instance})
		}
	}
	errs := make([]error, len(answers))
	var asking sync.WaitGroup
	for i := range answers {
		a := &answers[i]
		asking.Go(func() {
			if a.Instance == st.Instance {
				var f doctor.Facts
				if f, errs[i] = n.examine(ctx, question); errs[i] == nil {
					a.Facts = &f
				}
			} else if a.Facts, errs[i] = n.part.askFacts(ctx, a.Instance, question); errs[i] != nil {
				a.Problem = errs[i].Error()
			}
			if errors.Is(errs[i], errSurvey) {
				cancel() // who measures without that one measures for nothing
			}
		})
	}
	asking.Wait()
	for i, err := range errs {
		if errors.Is(err, errSurvey) {
			return nil, fmt.Errorf("%s: %w; try again in %s", answers[i].Name, err, doctor.MaxMeasure)
		}
	}
	return answers, errs[0]
}

// askFacts asks one other node.
func (n *Participant) askFacts(ctx context.Context, instance string, question doctor.Request) (*doctor.Facts, error) {
	id, err := fsm.ParseInstanceID(instance)
	if err != nil {
		return nil, err
	}
	peer, ok := n.raft.State().Nodes[id]
	if !ok {
		return nil, fsm.ErrUnknown // removed between the two looks
	}
	b, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	answer, err := n.link.Client().Doctor(ctx, peerlink.Peer{Address: peer.Address, Instance: id}, b)
	if err != nil {
		return nil, err
	}
	reply, err := decodeFacts(answer)
	switch {
	case err != nil:
		return nil, err
	case reply.Busy:
		return nil, errSurvey
	case reply.Facts == nil || reply.Facts.Instance != instance:
		return nil, errors.New("its answer has no facts about it")
	}
	return reply.Facts, nil
}

// decodeFacts reads another node's answer. Fields of a later version are ignored.
func decodeFacts(b []byte) (r surveyReply, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("understand its facts: %w", err)
	}
	return r, nil
}

// Doctor answers another node that asks for this one's part in a survey.
func (h handlers) Doctor(ctx context.Context, _ fsm.InstanceID, question json.RawMessage) (json.RawMessage, error) {
	var req doctor.Request
	if err := json.Unmarshal(question, &req); err != nil {
		return nil, fmt.Errorf("understand the question: %w", err)
	}
	if err := req.Check(); err != nil {
		return nil, err
	}
	if h.n.examine == nil {
		return nil, errors.New("this node takes no part in surveys")
	}
	var reply surveyReply
	switch f, err := h.n.examine(ctx, req); {
	case errors.Is(err, errSurvey):
		reply.Busy = true
	case err != nil:
		return nil, err
	default:
		reply.Facts = &f
	}
	return json.Marshal(reply)
}

// examine is this node's part in a survey.
func (n *node) examine(ctx context.Context, req doctor.Request) (doctor.Facts, error) {
	if n.shadow != nil {
		return doctor.Facts{}, errShadow
	}
	if !n.surveying.TryLock() {
		return doctor.Facts{}, errSurvey
	}
	defer n.surveying.Unlock()
	st, err := n.agent.Status(ctx)
	if err != nil {
		return doctor.Facts{}, err
	}
	f := doctor.Facts{Name: n.cfg.Node, Version: n.opt.Version, Role: n.cfg.Role.String(), Instance: st.Instance, Problems: st.Problems,
		LeaseMS: st.LeaseMS, RenewMS: st.RenewMS}
	if n.alone() {
		f.Role, f.LeaseMS, f.RenewMS = fsm.Member.String(), 0, 0
	}
	if n.cfg.Role != fsm.Witness {
		f.Devices = surveyor.Describe(surveyor.Uses(n.document(), n.kernel.LinkFor))
	}
	ctx, cancel := context.WithTimeout(ctx, req.Measure)
	defer cancel()
	var work sync.WaitGroup
	work.Go(func() { f.Host = surveyor.Gather(ctx, gathering(n.cfg)) })
	survey := surveyor.Survey{Request: req, Devices: f.Devices}
	if !n.alone() {
		survey.Self = n.part.self.ID
		work.Go(func() { n.part.measure(ctx, req, &f) })
	}
	var found surveyor.Results
	work.Go(func() { found = survey.Run(ctx) })
	work.Wait()
	if n.cfg.Role != fsm.Witness {
		f.Rivals = n.rivals()
	}
	f.Heard, f.Learnt, f.Claims, f.Unknown = append(f.Heard, found.Heard...), found.Learnt, found.Claims, found.Unknown
	if now, err := n.agent.Status(context.WithoutCancel(ctx)); err == nil {
		f.Claims = append(f.Claims, claimed(now, req.Measure)...)
	}
	return f, nil
}

// claimed are the claims of others that this node heard within a time to what it holds:
// who made them may not answer when it is asked.
func claimed(st core.Status, within time.Duration) (out []doctor.Claim) {
	for _, v := range st.VIPs {
		for _, c := range v.Claims {
			if c.LastAgoMS < millis(within) {
				out = append(out, doctor.Claim{Address: c.Address, MAC: c.MAC})
			}
		}
	}
	return out
}

// gathering is what of this host the doctor is to look at.
func gathering(cfg *config.Config) surveyor.Options {
	if cfg.Election == config.ElectVRRP {
		return surveyor.Options{}
	}
	return surveyor.Options{DataDir: cfg.DataDir, Fence: cfg.Fence.String(), GraceMS: millis(cfg.Grace())}
}

// measure finds out about the ways by the nodes' own port.
func (n *Participant) measure(ctx context.Context, req doctor.Request, f *doctor.Facts) {
	d := &datagrams{nonce: req.Nonce, self: n.self.ID, send: n.gossip.SendSurvey, to: map[fsm.InstanceID]netip.AddrPort{},
		heard: map[fsm.InstanceID]map[doctor.Kind]int{}, trips: map[fsm.InstanceID][]doctor.ClockSample{},
		wall: map[fsm.InstanceID][]time.Duration{}, sent: map[fsm.InstanceID]int{}}
	for id, node := range n.raft.State().Nodes {
		asked := slices.ContainsFunc(req.Nodes, func(p doctor.Peer) bool { return p.Instance == id.String() })
		if id != n.self.ID && asked {
			d.to[id] = node.Address
		}
	}
	n.survey.Store(d)
	defer n.survey.Store(nil)
	var mu sync.Mutex
	refused := map[fsm.InstanceID]string{}
	var work sync.WaitGroup
	for id, to := range d.to {
		work.Go(func() {
			if err := n.connects(ctx, to); err != nil {
				mu.Lock()
				defer mu.Unlock()
				refused[id] = err.Error()
			}
		})
	}
	work.Go(func() { d.run(ctx, req.Measure) })
	work.Wait()
	d.results(f, refused)
	f.Datagram = gossip.PacketLength(n.cfg.Cluster, n.cfg.Address.Addr(), election.MaxDatagram)
}

// connects reports whether another node's port can be connected to, by a new connection:
// one that is there already may pass where a new one does not.
func (n *Participant) connects(ctx context.Context, to netip.AddrPort) error {
	dial := net.Dialer{Timeout: connectTime, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(n.cfg.Address.Addr(), 0))}
	conn, err := dial.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	return conn.Close()
}

// rivals are the routers outside that speak with a virtual router id of this node: those
// that did not miss three adverts.
func (n *node) rivals() []doctor.Rival {
	var out []doctor.Rival
	v := n.vrrp.view(vrrpcompat.Instant(Now()))
	for _, h := range v.Neighbours {
		if h.Insider || h.VRID == 0 || h.LastAgoMS > 3*h.IntervalMS+millis(rivalSlack) {
			continue
		}
		for _, r := range v.Routers {
			if r.Device != h.Device || r.Family != h.Family || r.VRID != h.VRID {
				continue
			}
			rival := doctor.Rival{Device: h.Device, Group: r.Group, VRID: int(h.VRID), From: h.Address, Dialect: h.Dialect, Speaking: h.Speaking,
				VMAC: r.MAC != "", Addresses: h.Addresses, Ours: r.Addresses}
			for _, d := range h.Differences {
				if d.Breaks && d.Group == r.Group {
					rival.Differs = append(rival.Differs, d.Field+": "+d.Advice)
				}
			}
			out = append(out, rival)
		}
	}
	return out
}

// viewOf is the cluster as the doctor wants it.
func viewOf(st core.Status, doc fsm.Document) *doctor.View {
	v := &doctor.View{Quorum: st.Quorum, Leader: st.Leader}
	for _, m := range st.Members {
		v.Members = append(v.Members, doctor.Member{Name: m.Name, Instance: m.Instance, Role: m.Role, Voter: m.Voter, Alive: m.Alive, Drained: m.Drained})
	}
	for _, s := range st.VIPs {
		g := doctor.Group{Name: s.Name, Owner: s.Owner, State: s.State, Open: s.Open, Problem: s.Problem}
		if len(s.Claims) > 0 {
			g.Problem = "" // who has it says so in its facts
		}
		if def, ok := doc.Group(s.Name); ok {
			for name, priority := range def.Priority {
				if priority == 0 {
					g.Barred = append(g.Barred, name)
				}
			}
		}
		v.Groups = append(v.Groups, g)
	}
	return v
}
