package peerlink

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/quorate/quorate/fsm"
)

// MaxClusterName is the longest name of a cluster, in bytes: it has a fixed place
// in the frame that begins every Raft stream.
const MaxClusterName = 64

// An Identity says who a node is.
type Identity struct {
	Cluster   string        // the cluster's name, 1 to MaxClusterName bytes
	ClusterID fsm.ClusterID // zero until the cluster is formed
	Instance  fsm.InstanceID
}

// A frame is what each side of a Raft stream says before Raft does. An address
// may have passed to another machine, or a machine may have lost its disk and kept
// its name: Raft must not count such a node's vote for the one that it was told
// of, so the identity is checked on the connection itself (lease.md, section 3,
// wording 11). Layout, always frameSize bytes, in every future version too:
//
//	0    magic "QRTE"
//	4    version
//	5    verdict: a Reason when the sender refuses; else zero
//	6    length of the cluster's name
//	7    zero
//	8    cluster's name, filled up with zeros
//	72   cluster id, zero when not formed
//	88   instance id of the sender
//	104  instance id that the dialler expects at that address; zero: any
type frame struct {
	version byte
	verdict Reason
	Identity
	expects fsm.InstanceID
}

const (
	frameMagic   = "QRTE"
	frameVersion = 1
	frameSize    = 120
)

func (f frame) append(b []byte) []byte {
	b = append(b, frameMagic...)
	b = append(b, f.version, byte(f.verdict), byte(len(f.Cluster)), 0)
	var name [MaxClusterName]byte
	copy(name[:], f.Cluster)
	b = append(b, name[:]...)
	b = append(b, f.ClusterID[:]...)
	b = append(b, f.Instance[:]...)
	return append(b, f.expects[:]...)
}

var errNotAFrame = errors.New("what it sent is not the hello of a node")

// parseFrame reads exactly one frame. Of another version only the version and the
// verdict are read.
func parseFrame(b []byte) (frame, error) {
	if len(b) != frameSize || string(b[:4]) != frameMagic {
		return frame{}, errNotAFrame
	}
	f := frame{version: b[4], verdict: Reason(b[5])}
	if f.version != frameVersion {
		return f, nil
	}
	n := int(b[6])
	if n == 0 || n > MaxClusterName || b[7] != 0 || len(bytes.Trim(b[8+n:72], "\x00")) != 0 {
		return frame{}, errNotAFrame
	}
	f.Cluster = string(b[8 : 8+n])
	copy(f.ClusterID[:], b[72:])
	copy(f.Instance[:], b[88:])
	copy(f.expects[:], b[104:])
	if f.Instance.IsZero() {
		return frame{}, errNotAFrame
	}
	return f, nil
}

func readFrame(r io.Reader) (frame, error) {
	var b [frameSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return frame{}, err
	}
	return parseFrame(b[:])
}

// judge compares the two sides: local is this node, remote the other, wanted the
// instance that one of them expects and found the one that is there. Nil: welcome.
func judge(local, remote Identity, wanted, found fsm.InstanceID) *Refused {
	switch {
	case remote.Cluster != local.Cluster:
		return &Refused{Reason: OtherCluster, Detail: fmt.Sprintf(
			"it belongs to cluster %q and this node to %q: see `cluster:` and `peers:` on both", remote.Cluster, local.Cluster)}
	case !remote.ClusterID.IsZero() && !local.ClusterID.IsZero() && remote.ClusterID != local.ClusterID:
		return &Refused{Reason: OtherFormation, Detail: fmt.Sprintf(
			"both are called %q, but it is of formation %s and this node of %s: they were formed apart and know nothing of each other; "+
				"decide which to keep and empty data_dir of the other's nodes", local.Cluster, remote.ClusterID.Short(), local.ClusterID.Short())}
	case !wanted.IsZero() && wanted != found:
		return &Refused{Reason: OtherInstance, Detail: fmt.Sprintf(
			"instance %s was expected there and %s is: another node has the address, or its data_dir was lost", wanted.Short(), found.Short())}
	}
	return nil
}

// judgeFrame is judge for a frame, which may be of another version.
func judgeFrame(local Identity, f frame, wanted, found fsm.InstanceID) *Refused {
	if f.version != frameVersion {
		return &Refused{Reason: OtherVersion, Detail: fmt.Sprintf(
			"it speaks version %d of the node protocol and this node %d: bring both to the same release", f.version, frameVersion)}
	}
	return judge(local, f.Identity, wanted, found)
}

// acceptHello is the accepting side: read, judge, answer.
func acceptHello(conn io.ReadWriter, local Identity, certified fsm.InstanceID, hasCert bool, admit func(fsm.InstanceID) bool) error {
	f, err := readFrame(conn)
	if errors.Is(err, errNotAFrame) {
		return &Refused{Reason: BadHello, Detail: err.Error()}
	}
	if err != nil {
		return fmt.Errorf("read the hello: %w", err)
	}
	refusal := judgeFrame(local, f, f.expects, local.Instance)
	if refusal == nil && hasCert && certified != f.Instance {
		refusal = contradiction(certified, f.Instance)
	}
	if refusal == nil && admit != nil && !admit(f.Instance) {
		refusal = &Refused{Reason: NotAdmitted, Detail: fmt.Sprintf(
			"this node gave its word to a cluster that instance %s is not of", f.Instance.Short())}
	}
	answer := frame{version: frameVersion, Identity: local}
	if refusal != nil {
		answer.verdict = refusal.Reason
	}
	if _, err := conn.Write(answer.append(nil)); err != nil && refusal == nil {
		return fmt.Errorf("answer the hello: %w", err)
	}
	if refusal != nil {
		return refusal
	}
	return nil
}

// dialHello is the dialling side: say, read the answer, judge it too.
func dialHello(conn io.ReadWriter, local Identity, expects, certified fsm.InstanceID, hasCert bool) error {
	if _, err := conn.Write(frame{version: frameVersion, Identity: local, expects: expects}.append(nil)); err != nil {
		return fmt.Errorf("say hello: %w", err)
	}
	f, err := readFrame(conn)
	if errors.Is(err, errNotAFrame) {
		return &Refused{Reason: BadHello, Detail: err.Error()}
	}
	if err != nil {
		return fmt.Errorf("read the answer to the hello: %w", err)
	}
	// Our own judgement first: it has the better text, and holds whatever the other
	// side thinks.
	if refusal := judgeFrame(local, f, expects, f.Instance); refusal != nil {
		return refusal
	}
	if hasCert && certified != f.Instance {
		return contradiction(certified, f.Instance)
	}
	if f.verdict != 0 {
		return &Refused{Reason: f.verdict, ByPeer: true, Detail: "see its log"}
	}
	return nil
}

func contradiction(certified, said fsm.InstanceID) *Refused {
	return &Refused{Reason: BadHello, Detail: fmt.Sprintf("it says that it is instance %s and its certificate says %s", said.Short(), certified.Short())}
}
