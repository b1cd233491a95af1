// Package config turns the configuration file into a checked configuration, or
// into a list of everything that is wrong with it.
//
// Reading is strict: a key that this version does not know, a key written twice,
// a value of the wrong type or out of its bounds is an error with file, line,
// column, the value, the bound and what to write. All errors of a file come at
// once. What the file says (raw.go) and what was checked (Config) are different
// types; nothing outside this package sees the first.
package config

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/quorate/quorate/fsm"
)

// Defaults of keys that are not written.
const (
	DefaultPort          = 7950
	DefaultDataDir       = "/var/lib/quorate"
	DefaultSocket        = "/run/quorate/quorate.sock"
	DefaultLease         = 250 * time.Millisecond // with fence bpf
	DefaultLeaseLifetime = 3 * time.Second        // with fence lifetime: the shortest that is allowed there
	DefaultRepeat        = 5
	DefaultRefresh       = time.Minute
	DefaultPriority      = 254 // above every backup, below an address owner (design.md 3.5)
	DefaultInterval      = time.Second
)

// maxFile bounds the file that is read, in bytes.
const maxFile = 1 << 20

// A FenceKind is what in the kernel stops the host from answering for an address
// when the lease has run out.
type FenceKind uint8

const (
	_        FenceKind = iota
	BPF                // a program on every device compares with an absolute deadline
	Lifetime           // the kernel removes the address; weaker, whole seconds
)

// String is the fence's word in the configuration file.
func (k FenceKind) String() string {
	switch k {
	case BPF:
		return "bpf"
	case Lifetime:
		return "lifetime"
	}
	return fmt.Sprintf("fence(%d)", uint8(k))
}

// A Config is a configuration that was checked as far as a file can be checked
// without its host; CheckHost does the rest. It is not changed after it was made
// and may be read concurrently.
type Config struct {
	Cluster string         // name of the cluster; nodes of another are refused
	Node    string         // name of this node, unique in the cluster
	Address netip.AddrPort // TCP for Raft, UDP for gossip and leases; one of Peers
	Peers   []netip.AddrPort
	KeyFile string    // absolute path
	TLS     *TLSFiles // nil: derived from the key file
	DataDir string    // absolute path
	Socket  string    // absolute path of the API's unix socket
	FIFO    string    // absolute path; empty: none. Of the named pipe that changes of the groups are written to
	// HTTP is the address and port that metrics, health and the reading API are served
	// on; empty: none.
	HTTP string
	Role fsm.Role
	// Election says who decides. With ElectVRRP all that belongs to a cluster is zero
	// (Address, Peers, KeyFile, TLS, DataDir, Lease, Renew, Fence), Cluster may be empty,
	// and Document is all there is of one, with this node's own priorities.
	Election Election
	Lease    time.Duration // 50 ms (fence lifetime: 3 s) to 30 s
	Renew    time.Duration // 5 ms to Lease/2
	Fence    FenceKind
	Log      Log
	// Document is the first document of the cluster that these peers form. Its
	// Revision is zero.
	Document fsm.Document
	// Warnings are what is allowed and probably not meant, one line each.
	Warnings []string

	file  string
	src   *source
	where map[string]pos
}

// Log is how the daemon logs.
type Log struct {
	Level slog.Level
	JSON  bool // else text
}

// TLSFiles are the operator's own certificates, as absolute paths.
type TLSFiles struct{ CA, Cert, Key string }

// A Host is what a configuration takes from the host for keys not written.
type Host struct {
	Name      func() (string, error)       // default of node
	Addresses func() ([]netip.Addr, error) // own addresses, in the host's order
}

// Load reads and checks the file at path, with the defaults of this host. The
// error is that of opening the file, or joins an *Error for all that is wrong.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, b)
}

// Parse checks the text of a configuration file, with the defaults of this host.
// The name is for messages. The error joins an *Error for all that is wrong.
func Parse(name string, b []byte) (*Config, error) {
	return Host{Name: os.Hostname, Addresses: hostAddresses}.Parse(name, b)
}

// Parse is the package's Parse with the defaults of another host.
func (h Host) Parse(name string, b []byte) (*Config, error) {
	r := &report{file: name, least: "write at least cluster, peers, key_file and vips, as the examples in deploy/examples do"}
	root := r.document(b)
	if root == nil {
		return nil, r.err()
	}
	raw := readRaw(r, root)
	c := &checker{r: r, host: h, top: raw.topPos, cfg: &Config{file: name, src: r.src, where: map[string]pos{}}}
	c.check(raw)
	if err := r.err(); err != nil {
		return nil, err
	}
	return c.cfg, nil
}
