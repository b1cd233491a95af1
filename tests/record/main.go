// Command record makes docs/recordings anew: what the command line shows of a real
// cluster of three, on a terminal, as text.
//
// It needs root and tmux. Each scene is one command on one node, typed into a terminal
// of a given size; what stands on the screen afterwards is the recording.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

func main() {
	binary := flag.String("binary", "bin/quorate", "the quorate to be shown")
	out := flag.String("out", "docs/recordings", "directory for the recordings")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := record(ctx, *binary, *out)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "record: %v\n", err)
		os.Exit(1)
	}
}

func record(ctx context.Context, binary, out string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("this makes network namespaces and needs root: run it with sudo")
	}
	if _, err := exec.LookPath("tmux"); err != nil {
		return fmt.Errorf("this needs tmux (apt-get install tmux): %w", err)
	}
	binary, err = filepath.Abs(binary)
	if err != nil {
		return fmt.Errorf("find %s: %w", binary, err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("make the directory of the recordings: %w", err)
	}
	// Paths are in what is recorded: they are to be the same each time.
	dir := filepath.Join(os.TempDir(), "quorate")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make the cluster's directory (remove it, if an earlier run was killed): %w", err)
	}
	l, err := lab.New(lab.Options{Dir: dir})
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() { err = errors.Join(err, l.Close(), os.RemoveAll(dir)) }()
	c, err := lab.StartCluster(ctx, l, lab.ClusterOptions{Binary: binary, Groups: "database:\n  addresses: [10.0.0.201/24]\n  placement: spread\n"})
	if err != nil {
		return err
	}
	s := &studio{cluster: c, binary: binary, out: out}
	return s.play(ctx)
}

// play goes through the scenes.
func (s *studio) play(ctx context.Context) error {
	owner, err := s.cluster.Owner(ctx)
	if err != nil {
		return err
	}
	other := s.cluster.Other(owner)
	scenes := []scene{
		{name: "status", on: other, typed: []string{"quorate status"}, width: 120, height: 16},
		{name: "status-80", on: other, typed: []string{"quorate status"}, width: 80, height: 30},
		{name: "explain", on: other, typed: []string{"quorate explain " + lab.Group}, width: 100, height: 16},
		{name: "explain-timing", on: other, typed: []string{"quorate explain timing"}, width: 110, height: 60},
		{name: "move", on: other, typed: []string{"quorate move " + lab.Group + " " + other.Name, "quorate move " + lab.Group + " " + owner.Name}, width: 100, height: 8},
		{name: "watch", on: owner, typed: []string{"quorate watch"}, width: 100, height: 30, live: true},
		{name: "watch-40", on: owner, typed: []string{"quorate watch"}, width: 40, height: 30, live: true},
		{name: "status-lost", on: other, typed: []string{"quorate status"}, width: 120, height: 24, before: owner.Process().Kill, after: s.settled},
		{name: "status-down", on: owner, typed: []string{"quorate status", "echo $?"}, width: 100, height: 12},
		{name: "events", on: other, typed: []string{"quorate events -n 8"}, width: 140, height: 14},
	}
	for _, sc := range scenes {
		fmt.Println(sc.name)
		if err := s.shoot(ctx, sc); err != nil {
			return fmt.Errorf("%s: %w", sc.name, err)
		}
	}
	return nil
}

// A scene is some commands on a node, and the terminal that they are typed into.
type scene struct {
	name          string
	on            *lab.Node
	typed         []string
	width, height int
	live          bool         // the last goes on until q is typed
	before        func() error // what happens first; nil: nothing
	after         func(context.Context) error
}

// A studio has the cluster and writes the recordings.
type studio struct {
	cluster     *lab.Cluster
	binary, out string
}

// settled returns when another node has what the lost one held, and has reported it.
func (s *studio) settled(ctx context.Context) error { return lab.Sleep(ctx, 3*time.Second) }

const (
	prompt    = "$ "
	sceneTime = 20 * time.Second
	watchTime = 3 * time.Second // so long a live view is left alone
)

func (s *studio) shoot(ctx context.Context, sc scene) (err error) {
	if sc.before != nil {
		err = sc.before()
	}
	if err == nil && sc.after != nil {
		err = sc.after(ctx)
	}
	if err != nil {
		return err
	}
	t, err := s.open(ctx, sc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	for i, line := range sc.typed {
		if err := t.tmux("send-keys", "-t", "0", line, "Enter"); err != nil {
			return err
		}
		if sc.live && i == len(sc.typed)-1 {
			if err := lab.Sleep(ctx, watchTime); err != nil {
				return err
			}
		} else if err := t.prompted(i + 2); err != nil {
			return err
		}
	}
	text, err := t.screen()
	if err != nil {
		return err
	}
	if sc.live {
		err = t.tmux("send-keys", "-t", "0", "q")
	}
	text = strings.TrimSuffix(strings.TrimRight(text, " \n"), "\n"+strings.TrimSpace(prompt)) + "\n"
	return errors.Join(err, os.WriteFile(filepath.Join(s.out, sc.name+".txt"), []byte(text), 0o644))
}

// A terminal is a tmux of its own, on a node's host.
type terminal struct {
	name string // of tmux's socket
	host *lab.Host
}

// open starts a shell in which quorate asks the node's daemon.
func (s *studio) open(ctx context.Context, sc scene) (*terminal, error) {
	bin := filepath.Join(s.cluster.Lab.Dir(), "bin-"+sc.on.Name)
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, fmt.Errorf("make the shell's commands: %w", err)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\" --config %s\n", s.binary, sc.on.Config)
	if err := os.WriteFile(filepath.Join(bin, "quorate"), []byte(script), 0o755); err != nil {
		return nil, fmt.Errorf("write the shell's commands: %w", err)
	}
	t := &terminal{name: fmt.Sprintf("quorate-record-%d-%s", os.Getpid(), sc.name), host: sc.on.Host}
	err := t.tmux("-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(sc.width), "-y", fmt.Sprint(sc.height),
		fmt.Sprintf("env PATH=%s:$PATH PS1='%s' LC_ALL=C.UTF-8 sh", bin, sc.on.Name+prompt))
	if err == nil {
		err = t.tmux("set-option", "status", "off") // it would take the last line
	}
	if err == nil {
		err = t.tmux("resize-window", "-t", "0", "-x", fmt.Sprint(sc.width), "-y", fmt.Sprint(sc.height))
	}
	if err == nil {
		err = t.prompted(1)
	}
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, ctx.Err()
}

// tmux runs a command of tmux on the host.
func (t *terminal) tmux(args ...string) error {
	_, err := t.output(args...)
	return err
}

func (t *terminal) output(args ...string) (string, error) {
	var b strings.Builder
	cmd := exec.Command("tmux", append([]string{"-u", "-L", t.name}, args...)...)
	cmd.Stdout, cmd.Stderr = &b, &b
	err := t.host.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("tmux %s: %w: %s", strings.Join(args, " "), err, b.String())
	}
	return b.String(), nil
}

func (t *terminal) screen() (string, error) { return t.output("capture-pane", "-p", "-t", "0") }

// prompted returns when there are so many prompts on the screen, and in what has gone
// off it.
func (t *terminal) prompted(n int) error {
	var text string
	for end := time.Now().Add(sceneTime); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var err error
		if text, err = t.output("capture-pane", "-p", "-S", "-", "-t", "0"); err != nil {
			return err
		}
		seen := 0
		for line := range strings.Lines(text) {
			if strings.Contains(line, prompt) || strings.HasSuffix(strings.TrimRight(line, "\n"), strings.TrimSpace(prompt)) {
				seen++
			}
		}
		if seen >= n {
			return nil
		}
	}
	return fmt.Errorf("the command did not end within %s; the screen:\n%s", sceneTime, text)
}

// close ends the shell and tmux.
func (t *terminal) close() error { return t.tmux("kill-server") }
