// Package program runs an operator's program, in a process group of its own, until
// it and what belongs to it is gone.
//
// Health checks and hooks are such programs. What they do must not hurt the daemon:
// they run at ordinary priority, what they print is cut to its end, and a child that
// keeps their output open is not waited for.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxOutput is how much of what a program printed is kept: the last of it, in bytes.
const MaxOutput = 4 << 10

// outputWait is for how long after its end a program's output is waited for, when
// somebody else still has it open.
const outputWait = 100 * time.Millisecond

// A Job is one run of a program.
type Job struct {
	Argv  []string // argv[0] is a path, or a name that is looked up in PATH
	User  string   // name or number of the account that it runs as; empty: the daemon's
	Env   []string // KEY=value, besides what the daemon has (see Environment)
	Stdin []byte   // nil: nothing to read
	// Alone kills what the program started and left behind when it ends.
	Alone bool
}

// ErrKilled means that the program was killed because the context had ended.
var ErrKilled = errors.New("killed")

// Run runs the job and returns when the program is gone; when ctx ends it is killed
// together with its process group. Output is what it printed last, at most MaxOutput
// bytes of stdout and stderr together. The error is nil if the program ended with 0; else
// it says in one line what happened, or what to do where it could not be started.
//
// A process that hangs in the kernel dies only when that is over, and Run waits for it:
// who cannot wait runs it beside. Run may be called concurrently.
func Run(ctx context.Context, j Job) (output string, err error) {
	type result struct {
		output string
		err    error
	}
	done := make(chan result, 1)
	go func() {
		// The goroutine keeps its thread and ends with it: the thread's priority
		// cannot be raised again.
		runtime.LockOSThread()
		beOrdinary()
		output, err := run(ctx, j)
		done <- result{output, err}
	}()
	r := <-done
	return r.output, r.err
}

// beOrdinary takes the daemon's own urgency off this thread, so that what it starts
// does not have it. A niceness is a thread's own on Linux (setpriority(2)).
func beOrdinary() {
	// The kernel returns 20 minus the niceness. A daemon that yields to others already
	// stays as it is.
	if p, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil && 20-p < 0 {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 0) // being less urgent is always allowed
	}
}

func run(ctx context.Context, j Job) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("%w before it began", ErrKilled)
	}
	cmd, err := command(j)
	if err != nil {
		return "", err
	}
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", explain(j, err)
	}
	beExpendable(cmd.Process.Pid)
	killed := await(ctx, cmd.Process.Pid, j.Alone)
	err = cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended with 0, and somebody else has its output
	}
	if killed {
		err = ErrKilled
	}
	return out.String(), err
}

// command makes the command out of a job.
func command(j Job) (*exec.Cmd, error) {
	if len(j.Argv) == 0 || j.Argv[0] == "" {
		return nil, errors.New("no program is named: write its path and arguments")
	}
	cmd := exec.Command(j.Argv[0], j.Argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = Environment(os.Environ())
	cmd.WaitDelay = outputWait
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if j.Stdin != nil {
		cmd.Stdin = bytes.NewReader(j.Stdin)
	}
	if j.User != "" {
		a, err := lookUp(j.User)
		if err != nil {
			return nil, err
		}
		if a.credential.Uid != uint32(os.Geteuid()) {
			cmd.SysProcAttr.Credential = a.credential
		}
		cmd.Env = append(cmd.Env, "USER="+a.name, "LOGNAME="+a.name, "HOME="+a.home)
	}
	cmd.Env = append(cmd.Env, j.Env...)
	return cmd, nil
}

// beExpendable has the kernel choose the program before the daemon, whose score it
// inherited, when memory is short. It does no harm where it is not allowed.
func beExpendable(pid int) {
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("0"), 0)
}

// await returns when the program has ended, and reports whether that was because ctx
// had. The process is not reaped yet then, so its number is still its own and killing
// its group hits nobody else.
func await(ctx context.Context, pid int, alone bool) (killed bool) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		killed = true
		killGroup(pid)
		<-ended
	}
	if killed || alone {
		killGroup(pid) // also what it started in between
	}
	return killed
}

// killGroup kills a process group. That it may not, or that nobody is left, leaves
// things as they are.
func killGroup(pid int) { _ = unix.Kill(-pid, unix.SIGKILL) }

// Environment is what a program gets of the daemon's own environment: all but what
// systemd told the daemon alone.
func Environment(daemon []string) []string {
	out := make([]string, 0, len(daemon))
	path := false
	for _, kv := range daemon {
		key, _, _ := strings.Cut(kv, "=")
		switch key {
		case "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "INVOCATION_ID", "JOURNAL_STREAM":
			continue
		case "PATH":
			path = true
		}
		out = append(out, kv)
	}
	if !path {
		out = append(out, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	return out
}
