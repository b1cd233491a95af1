package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/quorate/quorate/fsm"
)

// SnapshotFormat is the first thing that a snapshot says of itself, and
// SnapshotVersion the newest version of its form that is known here.
const (
	SnapshotFormat  = "quorate-snapshot"
	SnapshotVersion = 1
)

// A Snapshot is the replicated state in a file.
//
// What is restored of it is what operators wanted: the document and who is drained, by
// the same commands that operators give. Assignments and epochs are in it to be looked
// at, and are never put back: an epoch that was used comes from a log that went on, and
// used again it would let two nodes confirm leases by the same number. Nor are the
// nodes: who votes is Raft's to say.
type Snapshot struct {
	Format    string    `json:"format"`
	Version   int       `json:"version"`
	Cluster   string    `json:"cluster"`
	ClusterID string    `json:"cluster_id"`
	Node      string    `json:"node"` // that it was taken on
	Taken     time.Time `json:"taken"`
	Revision  uint64    `json:"revision"` // of the document
	Index     uint64    `json:"index"`    // of the last log entry that is in it
	// State is fsm.State as JSON, and SHA256 the checksum of its compact form, in
	// hexadecimal: indenting the file does not damage it.
	State  json.RawMessage `json:"state"`
	SHA256 string          `json:"sha256"`
}

// TakeSnapshot makes a snapshot of a formed cluster's state.
func TakeSnapshot(st *fsm.State, node string, now time.Time) (Snapshot, error) {
	b, err := st.Encode()
	if err != nil {
		return Snapshot{}, fmt.Errorf("encode the state: %w", err)
	}
	sum, err := checksum(b)
	return Snapshot{
		Format: SnapshotFormat, Version: SnapshotVersion, Cluster: st.Name, ClusterID: st.Cluster.String(), Node: node,
		Taken: now.UTC().Truncate(time.Second), Revision: st.Document.Revision, Index: st.Index, State: b, SHA256: sum,
	}, err
}

// Open checks that the snapshot is whole and returns its state. What does not fit is an
// error that says so; whose cluster it is of is for the caller to ask.
func (s Snapshot) Open() (*fsm.State, error) {
	switch {
	case s.Format != SnapshotFormat:
		return nil, fmt.Errorf("this is no snapshot of quorate's: it says format %q, and snapshots say %q", s.Format, SnapshotFormat)
	case s.Version != SnapshotVersion:
		return nil, fmt.Errorf("the snapshot has version %d, and this quorate reads version %d: use the quorate that wrote it", s.Version, SnapshotVersion)
	}
	sum, err := checksum(s.State)
	if err != nil || sum != s.SHA256 {
		return nil, fmt.Errorf("the snapshot is damaged: its state has the checksum %.16s…, and it says %.16s…; take another copy", sum, s.SHA256)
	}
	st, err := fsm.DecodeState(s.State)
	if err != nil {
		return nil, fmt.Errorf("the snapshot cannot be read: %w", err)
	}
	if st.Cluster.String() != s.ClusterID || st.Document.Revision != s.Revision {
		return nil, fmt.Errorf("the snapshot is damaged: it says cluster %s and revision %d, and its state cluster %s and revision %d; take another copy",
			s.ClusterID, s.Revision, st.Cluster, st.Document.Revision)
	}
	return st, nil
}

func checksum(state []byte) (string, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, state); err != nil {
		return "", fmt.Errorf("read the state: %w", err)
	}
	sum := sha256.Sum256(b.Bytes())
	return hex.EncodeToString(sum[:]), nil
}
