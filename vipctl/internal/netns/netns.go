// Package netns runs a function in a given network namespace.
//
// Sockets, device indices and traffic control hooks belong to the namespace of
// the thread that makes the call, and Go moves goroutines between threads. Code
// that must stay in the namespace it was opened in therefore keeps a Handle.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A Handle keeps one network namespace alive and reachable. Safe for concurrent use.
type Handle struct {
	file *os.File
	ino  uint64
}

const self = "/proc/thread-self/ns/net"

// Current returns the network namespace of the calling thread.
func Current() (*Handle, error) {
	f, err := os.Open(self)
	if err != nil {
		return nil, fmt.Errorf("open this thread's network namespace (is /proc mounted?): %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(fmt.Errorf("identify the network namespace: %w", err), f.Close())
	}
	return &Handle{f, st.Ino}, nil
}

// New makes an empty network namespace, which lives until the last handle,
// process or device link that needs it is gone. It needs CAP_SYS_ADMIN.
func New() (*Handle, error) {
	type result struct {
		h   *Handle
		err error
	}
	made := make(chan result)
	go func() {
		// Never unlocked: the thread that left its namespace ends with this goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{nil, fmt.Errorf("make a network namespace: %w", err)}
			return
		}
		h, err := Current()
		made <- result{h, err}
	}()
	r := <-made
	return r.h, r.err
}

// Fd is the descriptor of the namespace, for netlink messages that name one.
func (h *Handle) Fd() int { return int(h.file.Fd()) }

// Close lets go of the namespace.
func (h *Handle) Close() error { return h.file.Close() }

// Do runs f on a thread of the namespace. When the calling thread is there
// already, which in the daemon is always, it only calls f; otherwise it goes
// there and back, and that needs CAP_SYS_ADMIN.
func (h *Handle) Do(f func() error) error {
	runtime.LockOSThread()
	unlock := true
	defer func() {
		// A thread that could not be brought back must not be used for anything
		// else: left locked, it ends with its goroutine.
		if unlock {
			runtime.UnlockOSThread()
		}
	}()
	var st unix.Stat_t
	if err := unix.Stat(self, &st); err != nil {
		return fmt.Errorf("identify this thread's network namespace: %w", err)
	}
	if st.Ino == h.ino {
		return f()
	}
	home, err := os.Open(self)
	if err != nil {
		return fmt.Errorf("open this thread's network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(h.Fd(), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	defer func() { unlock = unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil }()
	return f()
}
