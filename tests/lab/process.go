package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Command says what to start in a host.
type Command struct {
	Name string   // of the log file: DIR/HOST-NAME.log, appended to
	Args []string // program and arguments
	Env  []string // added to the environment
	// OwnMounts starts it through `ip netns exec`, that is in a mount namespace of
	// its own with a fresh /sys, in which bpffs is not mounted.
	OwnMounts bool
	Nice      int // added to this process's
	// Memory starts it in a memory group; nil: in this process's.
	Memory *MemoryGroup
}

// A Process is a daemon under test with all its children. Its methods may be called
// concurrently.
type Process struct {
	Name string
	Log  string // path of its output

	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended; read after done
}

// Start starts a command in the host's network namespace, in a process group of its
// own. It dies with this process, even when this process is killed.
func (h *Host) Start(c Command) (*Process, error) {
	if len(c.Args) == 0 {
		return nil, fmt.Errorf("start %s on %s: no program given", c.Name, h.Name)
	}
	args := c.Args
	if c.Nice != 0 {
		args = append([]string{"nice", "-n", strconv.Itoa(c.Nice)}, args...)
	}
	if c.OwnMounts {
		args = append([]string{"ip", "netns", "exec", h.ns.name}, args...)
	}
	if c.Memory != nil {
		args = c.Memory.wrap(args)
	}
	c.Name, c.Args = h.Name+"-"+c.Name, args
	return h.lab.start(h.ns, c)
}

// start starts the command as it stands in a namespace.
func (l *Lab) start(ns *netns, c Command) (*Process, error) {
	p := &Process{Name: c.Name, done: make(chan struct{}), Log: filepath.Join(l.dir, c.Name+".log")}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", p.Name, err)
	}
	defer func() { _ = log.Close() }()
	p.cmd = exec.Command(c.Args[0], c.Args[1:]...)
	p.cmd.Env = append(os.Environ(), c.Env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	if err := ns.do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	l.procs = append(l.procs, p)
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Pid returns the process id, which is also its group's.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Running says whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait waits at most timeout for the end and returns how it ended: nil for exit code 0.
func (p *Process) Wait(timeout time.Duration) error {
	if !p.Running() {
		return p.err
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(timeout):
		return fmt.Errorf("%s (pid %d) still runs after %v; its log is %s", p.Name, p.Pid(), timeout, p.Log)
	}
}

// Kill sends SIGKILL to the process and all its children and waits until the process
// has gone. Killing what has ended already is no error.
func (p *Process) Kill() error {
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := p.Wait(10 * time.Second); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// Freeze stops the process and its children (SIGSTOP); the kernel goes on serving
// whatever they set up.
func (p *Process) Freeze() error { return p.signal(unix.SIGSTOP) }

// Thaw lets them run again (SIGCONT).
func (p *Process) Thaw() error { return p.signal(unix.SIGCONT) }

// Stop asks the process itself to end cleanly (SIGTERM) and waits.
func (p *Process) Stop(timeout time.Duration) error {
	if !p.Running() {
		return nil
	}
	if err := kill(p.Pid(), unix.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	return p.Wait(timeout)
}

// signal reaches the process group and also children that left it. A parent that
// outlived its child for a moment would start it anew, and a child that outlived its
// parent would tidy up: so the group is held still while strays are killed.
func (p *Process) signal(sig unix.Signal) error {
	if !p.Running() {
		return nil
	}
	strays := p.strays()
	if sig == unix.SIGKILL && len(strays) > 0 {
		if err := kill(-p.Pid(), unix.SIGSTOP); err != nil {
			return fmt.Errorf("hold %s still: %w", p.Name, err)
		}
	}
	for _, pid := range append(strays, -p.Pid()) {
		if err := kill(pid, sig); err != nil {
			return fmt.Errorf("send %v to %d of %s: %w", sig, pid, p.Name, err)
		}
	}
	return nil
}

// kill is kill(2), to which a process that has ended already is no error.
func kill(pid int, sig unix.Signal) error {
	if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// strays lists descendants that are not in the process's group.
func (p *Process) strays() []int {
	var out []int
	for _, pid := range descendants(p.Pid()) {
		if g, err := unix.Getpgid(pid); err == nil && g != p.Pid() {
			out = append(out, pid)
		}
	}
	return out
}

// descendants lists the children of pid, theirs, and so on.
func descendants(pid int) []int {
	var all []int
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // the thread ended meanwhile
		}
		for _, word := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}
