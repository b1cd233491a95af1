package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A Node is one member of a Cluster.
type Node struct {
	Name   string
	Host   *Host
	Config string // path
	Socket string // path
	Data   string // path of its data_dir

	binary    string
	ownMounts bool
	nice      int
	disk      *Disk        // nil unless asked for
	memory    *MemoryGroup // nil unless asked for
	proc      *Process
}

// Start starts the node's daemon; it must not be running.
func (n *Node) Start() error {
	if n.proc != nil && n.proc.Running() {
		return fmt.Errorf("start %s: it runs already (pid %d)", n.Name, n.proc.Pid())
	}
	p, err := n.Host.Start(Command{
		Name: "quorate", Args: []string{n.binary, "run", "--config", n.Config},
		OwnMounts: n.ownMounts, Memory: n.memory, Nice: n.nice,
	})
	if err != nil {
		return err
	}
	n.proc = p
	return nil
}

// Process returns the node's daemon as it was started last; nil before Start.
func (n *Node) Process() *Process { return n.proc }

// ended says how the node's daemon ended, with the end of its log.
func (n *Node) ended() error {
	if n.proc == nil {
		return fmt.Errorf("%s was not started", n.Name)
	}
	how := "exit code 0"
	if err := n.proc.Wait(0); err != nil {
		how = err.Error()
	}
	log, err := os.ReadFile(n.proc.Log)
	if err != nil {
		return fmt.Errorf("%s ended by itself (%s), and its log cannot be read: %w", n.Name, how, err)
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return fmt.Errorf("%s ended by itself (%s); the end of its log %s:\n%s",
		n.Name, how, n.proc.Log, strings.Join(lines[max(0, len(lines)-6):], "\n"))
}

// Status asks the node's daemon what it sees.
func (n *Node) Status(ctx context.Context) (Status, error) {
	var s Status
	if n.proc == nil || !n.proc.Running() {
		return s, fmt.Errorf("%s does not run", n.Name)
	}
	out, asked := quorate(ctx, n.binary, "status", "--json", "--socket", n.Socket)
	if err := json.Unmarshal(out, &s); err != nil && asked == nil {
		return s, fmt.Errorf("read the status of %s: %w; it was: %s", n.Name, err, out)
	}
	if s.Node == "" { // else the daemon has answered: without a quorum that is exit code 1 all the same
		return s, asked
	}
	return s, nil
}

// Look asks the daemon the same without the command line, which costs a process each time.
func (n *Node) Look(ctx context.Context) (Status, error) {
	var s Status
	if n.proc == nil || !n.proc.Running() {
		return s, fmt.Errorf("%s does not run", n.Name)
	}
	if err := Ask(ctx, n.Socket, "/v1/status", &s); err != nil {
		return s, fmt.Errorf("ask %s: %w", n.Name, err)
	}
	return s, nil
}

// Ask asks the daemon at a socket and decodes its answer into v.
func Ask(ctx context.Context, socket, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://quorate"+path, nil)
	if err != nil {
		return err
	}
	var d net.Dialer
	web := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}
	answer, err := web.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s", path, answer.Status)
	}
	return json.NewDecoder(answer.Body).Decode(v)
}

// Status is the part of `quorate status --json` that outside tools rely on.
type Status struct {
	Cluster   string         `json:"cluster"`
	ClusterID string         `json:"cluster_id"` // empty until formed
	Node      string         `json:"node"`
	Leader    string         `json:"leader"`
	Quorum    bool           `json:"quorum"`
	Ready     bool           `json:"ready"`
	State     string         `json:"state"`
	Problems  []string       `json:"problems"`
	Members   []StatusMember `json:"members"`
	VIPs      []StatusVIP    `json:"vips"`
	// Neighbours is how many hosts the node would tell of a take-over, one by one.
	Neighbours int `json:"neighbours"`
}

// StatusMember is one node as another sees it.
type StatusMember struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Role    string `json:"role"`
	Voter   bool   `json:"voter"`
	Alive   bool   `json:"alive"`
	Drained bool   `json:"drained"`
}

// StatusVIP is one group as a node sees it.
type StatusVIP struct {
	Name             string        `json:"name"`
	Addresses        []string      `json:"addresses"`
	Owner            string        `json:"owner"`
	Epoch            uint64        `json:"epoch"`
	State            string        `json:"state"`
	Open             bool          `json:"open"`
	LeaseRemainingMS float64       `json:"lease_remaining_ms"`
	Problem          string        `json:"problem"`
	Claims           []StatusClaim `json:"claims"`
	VRRP             struct {
		ID       int    `json:"id"`
		State    string `json:"state"`
		Priority int    `json:"priority"`
	} `json:"vrrp"`
}

// StatusClaim is another host's claim to an address of the owner.
type StatusClaim struct {
	Address string `json:"address"`
	MAC     string `json:"mac"`
	Count   int    `json:"count"`
}

// Group returns the lab's group in a status.
func (s Status) Group() (StatusVIP, bool) { return s.vip(Group) }

func (s Status) vip(name string) (StatusVIP, bool) {
	i := slices.IndexFunc(s.VIPs, func(v StatusVIP) bool { return v.Name == name })
	if i < 0 {
		return StatusVIP{}, false
	}
	return s.VIPs[i], true
}

// Build builds quorate in dir, as it is released, and returns its path. QUORATE_BINARY
// names another one to be put to the same tests, such as one out of a package.
func Build(dir string) (string, error) {
	if path := os.Getenv("QUORATE_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(dir, "quorate")
	cmd := exec.Command("go", "build", "-o", path, "github.com/quorate/quorate/cmd/quorate")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build quorate: %w\n%s", err, out)
	}
	return path, nil
}

// quorate calls the command line and returns what it printed, also when it fails.
func quorate(ctx context.Context, binary string, args ...string) ([]byte, error) {
	return quorateIn(ctx, nil, binary, args...)
}

// quorateIn does it on a host; nil: outside all of them.
func quorateIn(ctx context.Context, h *Host, binary string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	var out, problem bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &problem
	start := cmd.Start
	if h != nil {
		start = func() error { return h.Do(cmd.Start) }
	}
	err := start()
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		err = fmt.Errorf("quorate %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(out.String()+problem.String()))
	}
	return out.Bytes(), err
}
