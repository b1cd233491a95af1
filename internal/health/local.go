package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/program"
)

// commandProbe runs a program, which passes by ending with 0.
func commandProbe(s spec, node string) probe {
	job := program.Job{
		Argv: s.check.Command.Argv, User: s.check.Command.User, Alone: true,
		Env: []string{"QUORATE_CHECK=" + s.check.Name, "QUORATE_NODE=" + node, "QUORATE_GROUP=" + s.groups},
	}
	return func(ctx context.Context) error { return programError(program.Run(ctx, job)) }
}

// systemdProbe asks systemd by its own command: one that is there wherever systemd is.
func systemdProbe(unit string) probe {
	job := program.Job{Argv: []string{"systemctl", "is-active", "--", unit}, Alone: true, Env: []string{"LC_ALL=C", "SYSTEMD_COLORS=0"}}
	return func(ctx context.Context) error {
		output, err := program.Run(ctx, job)
		if state := strings.TrimSpace(output); err != nil && !errors.Is(err, program.ErrKilled) && state != "" {
			return fmt.Errorf("unit %s: %s", unit, state)
		}
		return programError(output, err)
	}
}

// programError adds what the program printed last, where that says why it failed.
func programError(output string, err error) error {
	if errors.Is(err, program.ErrKilled) {
		err = fmt.Errorf("it was still running and was %w", err)
	}
	if said := program.OneLine(output, maxWhy-100); err != nil && said != "" {
		return fmt.Errorf("%w; it printed last: %s", err, said)
	}
	return err
}

// maxComm is how much of a program's name the kernel keeps (TASK_COMM_LEN less the end).
const maxComm = 15

// processProbe looks for a process by the name of its program. The one that was found
// last is looked at first: all the others are read only when that is gone.
func processProbe(proc, name string) probe {
	last := ""
	return func(ctx context.Context) error {
		if last != "" && isProcess(filepath.Join(proc, last), name) {
			return nil
		}
		dir, err := os.Open(proc)
		if err != nil {
			return err
		}
		defer dir.Close()
		for {
			names, err := dir.Readdirnames(256)
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("no process named %s runs", name)
			}
			if err != nil {
				return fmt.Errorf("read %s: %w", proc, err)
			}
			for _, pid := range names {
				if _, err := strconv.ParseUint(pid, 10, 32); err == nil && isProcess(filepath.Join(proc, pid), name) {
					last = pid
					return nil
				}
			}
			if ctx.Err() != nil {
				return errTimeout
			}
		}
	}
}

// isProcess reports whether the process of that directory bears the name and lives.
// One that is gone does not.
func isProcess(dir, name string) bool {
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return false
	}
	// 123 (comm) S …: the name may hold anything, also brackets (proc_pid_stat(5)).
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open || end+2 >= len(stat) {
		return false
	}
	if state := stat[end+2]; state == 'Z' || state == 'X' {
		return false // dead, and only not fetched yet
	}
	comm := string(stat[open+1 : end])
	if comm == name {
		return true
	}
	// It may have given itself another name, or have one that the kernel cut; of a script
	// the name stands after its interpreter's then.
	cut := len(name) > maxComm && comm == name[:maxComm]
	command, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return false
	}
	argv := strings.SplitN(string(command), "\x00", 3)
	return filepath.Base(argv[0]) == name || cut && len(argv) > 1 && filepath.Base(argv[1]) == name
}

// fileProbe reads a file, and matches its beginning.
func fileProbe(c fsm.FileCheck) (probe, error) {
	match, err := compile(c.Match)
	if err != nil {
		return nil, err
	}
	return func(context.Context) error {
		// Not blocking: opening a pipe would wait for its writer.
		f, err := os.OpenFile(c.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil {
			return err
		} else if mode := info.Mode(); !mode.IsRegular() {
			return fmt.Errorf("%s is %s, want a plain file", c.Path, kind(mode))
		}
		b, err := io.ReadAll(io.LimitReader(f, maxRead))
		if err != nil {
			return err
		}
		if match != nil && !match.Match(b) {
			return fmt.Errorf("%s does not match %q: %d bytes were read", c.Path, c.Match, len(b))
		}
		return nil
	}, nil
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}
