package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// netnsDir is where iproute2 keeps named namespaces; by using it, `ip netns exec
// NAME` is open to whoever wants to look into a running lab.
const netnsDir = "/run/netns"

// netns is one named network namespace with a thread that stays inside it. The
// thread shares the machine's mount namespace (so bpffs and /run are the usual
// ones), which is what `ip netns exec` would not give.
type netns struct {
	name  string
	calls chan func()
	done  chan struct{}
}

// newNetns makes the namespace and its thread.
func newNetns(name string) (*netns, error) {
	if err := run("ip", "netns", "add", name); err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	n := &netns{name: name, calls: make(chan func()), done: make(chan struct{})}
	entered := make(chan error, 1)
	go n.serve(entered)
	if err := <-entered; err != nil {
		return nil, errors.Join(fmt.Errorf("enter network namespace %s: %w", name, err), run("ip", "netns", "del", name))
	}
	return n, nil
}

// serve runs calls on a thread inside the namespace. It never unlocks the thread,
// so the runtime ends the thread with the goroutine and nobody else gets one that
// is in the wrong namespace. Children carry a parent-death signal of this very
// thread: it must live as long as they do, hence one thread for a namespace's life.
func (n *netns) serve(entered chan<- error) {
	defer close(n.done)
	runtime.LockOSThread()
	entered <- enter(n.name)
	for f := range n.calls {
		f()
	}
}

func enter(name string) error {
	f, err := os.Open(filepath.Join(netnsDir, name))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
}

// do runs f on the namespace's thread and returns its error. Sockets opened and
// processes started by f belong to the namespace for good. It may be called
// concurrently (calls queue up), but not from within f and not after close.
func (n *netns) do(f func() error) error {
	result := make(chan error, 1)
	n.calls <- func() { result <- f() }
	return <-result
}

// close ends the thread and removes the namespace's name; the kernel takes the
// namespace apart once the last socket and process in it have gone.
func (n *netns) close() error {
	close(n.calls)
	<-n.done
	if err := run("ip", "netns", "del", n.name); err != nil {
		return fmt.Errorf("remove network namespace %s: %w", n.name, err)
	}
	return nil
}

// Sweep removes what earlier runs left when they were killed: processes that still
// live in a namespace of ours whose maker is gone, and those namespaces. It returns
// the names removed. It touches nothing that lies outside such a namespace.
func Sweep() ([]string, error) {
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var swept []string
	errs := []error{sweepDisks()}
	for _, e := range entries {
		pid, ok := maker(e.Name())
		if !ok || alive(pid) {
			continue
		}
		if err := endProcessesIn(e.Name()); err != nil {
			errs = append(errs, err)
		}
		if err := run("ip", "netns", "del", e.Name()); err != nil {
			if _, gone := os.Stat(filepath.Join(netnsDir, e.Name())); errors.Is(gone, os.ErrNotExist) {
				continue // another sweep was quicker
			}
			errs = append(errs, fmt.Errorf("remove left-over namespace %s: %w", e.Name(), err))
			continue
		}
		swept = append(swept, e.Name())
	}
	return swept, errors.Join(errs...)
}

// maker returns the pid in a namespace name of ours, "qlab-PID-COUNTER-HOST".
func maker(name string) (pid int, ok bool) {
	rest, ok := strings.CutPrefix(name, namePrefix+"-")
	if !ok {
		return 0, false
	}
	num, _, ok := strings.Cut(rest, "-")
	if !ok {
		return 0, false
	}
	pid, err := strconv.Atoi(num)
	return pid, err == nil && pid > 0
}

func alive(pid int) bool { return !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

// endProcessesIn kills the processes whose network namespace is the named one.
func endProcessesIn(name string) error {
	var want unix.Stat_t
	err := unix.Stat(filepath.Join(netnsDir, name), &want)
	if errors.Is(err, unix.ENOENT) {
		return nil // another sweep was quicker
	}
	if err != nil {
		return fmt.Errorf("look at namespace %s: %w", name, err)
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	var errs []error
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var got unix.Stat_t
		if unix.Stat(filepath.Join("/proc", p.Name(), "ns/net"), &got) != nil {
			continue // it ended meanwhile
		}
		if got.Dev != want.Dev || got.Ino != want.Ino {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("end left-over process %d in %s: %w", pid, name, err))
		}
	}
	return errors.Join(errs...)
}
