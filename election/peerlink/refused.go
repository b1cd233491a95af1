package peerlink

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// A Reason says why two nodes do not talk to each other.
type Reason uint8

// The numbers travel between nodes of different versions: append only.
const (
	_              Reason = iota
	OtherKey              // another key_file, or certificates of another authority
	BadCertificate        // the right authority, but expired or not for this use
	OtherVersion          // a version of the protocol that this one does not know
	OtherCluster          // another cluster name
	OtherFormation        // the same cluster name, formed another time
	OtherInstance         // another instance than expected has that address
	BadHello              // not a node, or one that contradicts its own certificate
	TooSlow               // the handshake did not end in time
	TooMany               // too many handshakes at once
	NotAdmitted           // an instance that this node may not speak Raft with now
)

var reasonNames = [...]string{"", "other-key", "bad-certificate", "other-version", "other-cluster", "other-formation",
	"other-instance", "bad-hello", "too-slow", "too-many", "not-admitted"}

// String is the reason as logs, metrics and JSON have it.
func (r Reason) String() string {
	if int(r) < len(reasonNames) && r != 0 {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

func reasonNamed(name string) (Reason, bool) {
	for i, n := range reasonNames {
		if i > 0 && n == name {
			return Reason(i), true
		}
	}
	return 0, false
}

// Refused is the error of a connection or call that one side refused for what the
// other is. Trying again without a change of configuration gives the same.
type Refused struct {
	Reason Reason
	Detail string         // for people
	Peer   netip.AddrPort // the other side; its port is arbitrary when it dialled
	ByPeer bool           // the other side refused us, not we it
}

// Error says who refused whom and why.
func (r *Refused) Error() string {
	if r.ByPeer {
		return fmt.Sprintf("the node at %s refuses this one: %s: %s", r.Peer, r.Reason, r.Detail)
	}
	return fmt.Sprintf("refused the node at %s: %s: %s", r.Peer, r.Reason, r.Detail)
}

// ReasonOf returns the reason of the *Refused in err's chain, or zero.
func ReasonOf(err error) Reason {
	var r *Refused
	if errors.As(err, &r) {
		return r.Reason
	}
	return 0
}

// handshakeError names the reasons in what crypto/tls returns: our own refusal
// comes through as it is, the other side's as an alert.
func handshakeError(err error, peer netip.AddrPort, authority string) error {
	var r *Refused
	if errors.As(err, &r) {
		named := *r
		named.Peer = peer
		return &named
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" && isCertificateAlert(op.Err) {
		return &Refused{Reason: OtherKey, Peer: peer, ByPeer: true,
			Detail: "it does not accept this node's certificate: it has another " + authority}
	}
	return err
}

// isCertificateAlert matches texts, as crypto/tls does not export its alert type
// for connections other than QUIC.
func isCertificateAlert(err error) bool {
	text := err.Error()
	return strings.HasSuffix(text, "bad certificate") || strings.HasSuffix(text, "unknown certificate authority") ||
		strings.HasSuffix(text, "certificate required")
}

// tallyEvery is how often one reason is logged for one peer.
const tallyEvery = time.Minute

// A tally counts refusals and logs each kind once in a while: a node with the
// wrong key tries several times a second, for days.
type tally struct {
	log *slog.Logger

	mu     sync.Mutex
	counts [len(reasonNames)]uint64
	logged map[tallyKey]time.Time
}

type tallyKey struct {
	reason Reason
	peer   netip.Addr
	byPeer bool
}

func newTally(log *slog.Logger) *tally {
	return &tally{log: log, logged: map[tallyKey]time.Time{}}
}

// note counts r; it may be called concurrently.
func (t *tally) note(r *Refused) {
	t.mu.Lock()
	if int(r.Reason) < len(t.counts) {
		t.counts[r.Reason]++
	}
	now := time.Now()
	key := tallyKey{r.Reason, r.Peer.Addr(), r.ByPeer}
	last, seen := t.logged[key]
	due := !seen || now.Sub(last) >= tallyEvery
	if due {
		if len(t.logged) >= 256 { // strangers choose their addresses; the memory for them is bounded
			clear(t.logged)
		}
		t.logged[key] = now
	}
	t.mu.Unlock()
	if due {
		t.log.Warn("node refused", "peer", r.Peer, "reason", r.Reason, "by_peer", r.ByPeer, "detail", r.Detail)
	}
}

// noteError counts err if it is a refusal, and returns it.
func (t *tally) noteError(err error) error {
	var r *Refused
	if errors.As(err, &r) {
		t.note(r)
	}
	return err
}

func (t *tally) snapshot() map[Reason]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[Reason]uint64{}
	for i, n := range t.counts {
		if i > 0 {
			out[Reason(i)] = n
		}
	}
	return out
}
