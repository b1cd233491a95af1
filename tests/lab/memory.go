package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoMemoryGroups means that this machine does not let us limit memory by group.
var ErrNoMemoryGroups = errors.New("no memory groups here")

// A MemoryGroup is a control group with a limit of memory, of version 1 or 2, whichever
// the machine has. What is started in it is killed by the kernel when it does not fit.
type MemoryGroup struct {
	dir                  string
	limit, usage, events string // names of its files
}

// NewMemoryGroup makes a group without a limit; it goes with Close of the lab. The error
// is [ErrNoMemoryGroups] where the machine has none to give.
func (l *Lab) NewMemoryGroup(name string) (*MemoryGroup, error) {
	g := &MemoryGroup{limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", events: "memory.failcnt"}
	root := "/sys/fs/cgroup/memory"
	if _, err := os.Stat(filepath.Join(root, g.limit)); err != nil {
		root = "/sys/fs/cgroup"
		g.limit, g.usage, g.events = "memory.max", "memory.current", "memory.events"
		// Fails where it is on already, or not ours to turn on: what counts is seen below.
		_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0)
	}
	g.dir = filepath.Join(root, l.id+"-"+name)
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMemoryGroups, err)
	}
	l.onEnd(g.remove)
	if _, err := os.Stat(filepath.Join(g.dir, g.limit)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMemoryGroups, err)
	}
	return g, nil
}

// remove takes the group away; the kernel may need a moment to see that its last
// process has gone.
func (g *MemoryGroup) remove() error {
	deadline := Now().Add(5 * time.Second)
	for {
		err := unix.Rmdir(g.dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if Now() > deadline {
			return fmt.Errorf("remove memory group %s: %w", g.dir, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// wrap has a command enter the group before it becomes itself.
func (g *MemoryGroup) wrap(args []string) []string {
	return append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(g.dir, "cgroup.procs")}, args...)
}

// Leave limits the group to so many bytes more than it uses.
func (g *MemoryGroup) Leave(bytes int) error {
	b, err := os.ReadFile(filepath.Join(g.dir, g.usage))
	if err != nil {
		return fmt.Errorf("read the use of a memory group: %w", err)
	}
	used, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("read the use of a memory group: %w", err)
	}
	return g.write(used + bytes)
}

// Unlimit takes the limit away.
func (g *MemoryGroup) Unlimit() error { return g.write(-1) }

// write sets the limit; negative is none.
func (g *MemoryGroup) write(limit int) error {
	text := strconv.Itoa(limit)
	if limit < 0 && g.limit == "memory.max" {
		text = "max"
	}
	if err := os.WriteFile(filepath.Join(g.dir, g.limit), []byte(text), 0); err != nil {
		return fmt.Errorf("limit a memory group: %w", err)
	}
	return nil
}

// Full returns how often the group reached its limit, since it was made.
func (g *MemoryGroup) Full() (int, error) {
	b, err := os.ReadFile(filepath.Join(g.dir, g.events))
	if err != nil {
		return 0, fmt.Errorf("read how often a memory group was full: %w", err)
	}
	text := string(b) // version 1: a number; version 2: lines of words and numbers
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "max "); ok {
			text = rest
		}
	}
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return 0, fmt.Errorf("read how often a memory group was full: %w", err)
	}
	return n, nil
}

// reader is a command that reads a file again and again. If that is longer than its group
// has room, the kernel looks for memory in that group all the time.
func reader(path string) []string {
	return []string{"sh", "-c", `while :; do cat "$0" > /dev/null; done`, path}
}

// longFile makes a file of that many bytes that is in nobody's memory: whoever reads it
// first has it in his.
func longFile(path string, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make a long file: %w", err)
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 1<<20)
	for left := size; err == nil && left > 0; left -= len(block) {
		_, err = f.Write(block)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	if err != nil {
		return fmt.Errorf("make a long file: %w", err)
	}
	return nil
}

// hog is a command that takes memory without end.
func hog() []string {
	return []string{"tail", "/dev/zero"} // it keeps what it read for want of a line's end
}

// dieFirst has the kernel kill the process before others for want of memory.
func (p *Process) dieFirst() error {
	if err := os.WriteFile(p.proc("oom_score_adj"), []byte("1000"), 0); err != nil {
		return fmt.Errorf("have %s die first for want of memory: %w", p.Name, err)
	}
	return nil
}
