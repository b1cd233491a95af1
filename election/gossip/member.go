package gossip

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/quorate/quorate/fsm"
)

// A Meta is what a node tells the others about itself. Its encoded form is
// bounded to 512 bytes; names of up to 63 and versions of up to 32 bytes fit.
type Meta struct {
	Instance fsm.InstanceID
	Name     string
	Role     fsm.Role
	Cluster  fsm.ClusterID // zero: not formed, as far as the node knows
	HasState bool          // its data_dir holds a Raft log
	Version  string        // of the program

	life uint64 // random per process: tells a restart
}

// metaWire is the form on the network. Unknown fields of later versions are
// ignored: nodes of two versions share a cluster while it is upgraded.
type metaWire struct {
	Instance fsm.InstanceID `json:"i"`
	Name     string         `json:"n"`
	Role     fsm.Role       `json:"r"`
	Cluster  fsm.ClusterID  `json:"c"`
	HasState bool           `json:"s"`
	Version  string         `json:"v"`
	Life     uint64         `json:"l"`
}

func (m Meta) encode() ([]byte, error) {
	if m.Instance.IsZero() || m.Name == "" {
		return nil, fmt.Errorf("node %q of instance %s: both must be set", m.Name, m.Instance.Short())
	}
	b, err := json.Marshal(metaWire{m.Instance, m.Name, m.Role, m.Cluster, m.HasState, m.Version, m.life})
	if err != nil {
		return nil, fmt.Errorf("encode what other nodes are to know: %w", err)
	}
	if len(b) > memberlist.MetaMaxSize { // memberlist would panic
		return nil, fmt.Errorf("what other nodes are to know has %d bytes, at most %d can be sent: shorten the node's name %q (%d bytes)",
			len(b), memberlist.MetaMaxSize, m.Name, len(m.Name))
	}
	return b, nil
}

func newLife() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:]) | 1
}

// A Member is another node, as it describes itself.
type Member struct {
	Meta
	Address netip.AddrPort
}

func memberOf(n *memberlist.Node) (Member, error) {
	var w metaWire
	if err := json.NewDecoder(bytes.NewReader(n.Meta)).Decode(&w); err != nil {
		return Member{}, fmt.Errorf("what it says about itself: %w", err)
	}
	if w.Instance.String() != n.Name || w.Name == "" {
		return Member{}, fmt.Errorf("it says that it is instance %s with the name %q", w.Instance, w.Name)
	}
	ip, ok := netip.AddrFromSlice(n.Addr)
	if !ok {
		return Member{}, fmt.Errorf("its address has %d bytes", len(n.Addr))
	}
	return Member{
		Meta:    Meta{w.Instance, w.Name, w.Role, w.Cluster, w.HasState, w.Version, w.Life},
		Address: netip.AddrPortFrom(ip.Unmap(), n.Port),
	}, nil
}

// A ChangeKind says what happened to a member.
type ChangeKind uint8

const (
	_             ChangeKind = iota
	Joined                   // it was found, or found again
	Gone                     // it left, or does not answer
	Updated                  // it says something else about itself
	Restarted                // it is a new process of the same instance
	NameClash                // Other has the same name: one of them is misconfigured or replaced
	InstanceClash            // Other claims the same instance at another address: a copied data_dir, or a node that moved
)

var changeNames = [...]string{"", "joined", "gone", "updated", "restarted", "name-clash", "instance-clash"}

// String is the kind as logs have it.
func (k ChangeKind) String() string {
	if int(k) < len(changeNames) && k != 0 {
		return changeNames[k]
	}
	return fmt.Sprintf("change(%d)", uint8(k))
}

// A Change is one thing that happened to a member. All of it is a hint.
type Change struct {
	Kind   ChangeKind
	Member Member
	Other  Member // for the clashes; may be this node itself
}

// clashEvery is how often one clash of instances is reported: memberlist sees it
// with every message about either.
const clashEvery = time.Minute

// A table keeps the members from memberlist's notices. memberlist's own list is
// written to while one reads it.
type table struct {
	changed chan struct{} // has something while pending is not empty

	mu      sync.Mutex
	self    Member
	alive   map[fsm.InstanceID]Member
	lives   map[fsm.InstanceID]uint64 // the last process seen of each, also of the gone
	clashes map[fsm.InstanceID]time.Time
	pending []Change
}

func newTable(self Member) *table {
	return &table{
		changed: make(chan struct{}, 1),
		self:    self,
		alive:   map[fsm.InstanceID]Member{},
		lives:   map[fsm.InstanceID]uint64{},
		clashes: map[fsm.InstanceID]time.Time{},
	}
}

// NotifyJoin is for memberlist, which holds its lock meanwhile; so are the others.
func (t *table) NotifyJoin(n *memberlist.Node) { t.seen(n, Joined) }

// NotifyUpdate is for memberlist.
func (t *table) NotifyUpdate(n *memberlist.Node) { t.seen(n, Updated) }

// NotifyLeave is for memberlist. It does not say whether the node left or died.
func (t *table) NotifyLeave(n *memberlist.Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, err := fsm.ParseInstanceID(n.Name)
	if err != nil {
		return
	}
	if m, ok := t.alive[id]; ok {
		delete(t.alive, id)
		t.add(Change{Kind: Gone, Member: m})
	}
}

// NotifyConflict is for memberlist: one instance at two addresses.
func (t *table) NotifyConflict(existing, other *memberlist.Node) {
	a, errA := memberOf(existing)
	b, errB := memberOf(other)
	if errA != nil || errB != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if last, ok := t.clashes[a.Instance]; ok && now.Sub(last) < clashEvery {
		return
	}
	t.clashes[a.Instance] = now
	t.add(Change{Kind: InstanceClash, Member: a, Other: b})
}

func (t *table) seen(n *memberlist.Node, kind ChangeKind) {
	m, err := memberOf(n)
	if err != nil {
		return // NotifyAlive refused it before
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.Instance == t.self.Instance {
		return
	}
	before, had := t.alive[m.Instance]
	life, known := t.lives[m.Instance]
	if known && life != m.life {
		kind = Restarted
	}
	if !known && len(t.lives) >= 256 { // a cluster has seven nodes; only their replacements add up
		clear(t.lives)
	}
	t.alive[m.Instance], t.lives[m.Instance] = m, m.life
	t.add(Change{Kind: kind, Member: m})
	if had && before.Name == m.Name && kind == Updated {
		return // its clash was reported when it took the name
	}
	if m.Name == t.self.Name {
		t.add(Change{Kind: NameClash, Member: m, Other: t.self})
	}
	for _, other := range t.alive {
		if other.Name == m.Name && other.Instance != m.Instance {
			t.add(Change{Kind: NameClash, Member: m, Other: other})
		}
	}
}

// add needs the lock.
func (t *table) add(c Change) {
	t.pending = append(t.pending, c)
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

func (t *table) take() []Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.pending
	t.pending = nil
	return out
}

func (t *table) renameSelf(m Meta) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.self.Meta = m
}

func (t *table) members() []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Member, 0, len(t.alive))
	for _, m := range t.alive {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int { return bytes.Compare(a.Instance[:], b.Instance[:]) })
	return out
}

// missing returns the peers at whose address nobody is known to live.
func (t *table) missing(peers []netip.AddrPort) (out []netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range peers {
		p = unmap(p)
		there := p == t.self.Address
		for _, m := range t.alive {
			there = there || m.Address == p
		}
		if !there {
			out = append(out, p)
		}
	}
	return out
}
