package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// soundConfig is what each case of TestBadInput spoils: %[1]s is its directory.
const soundConfig = `cluster: demo
node: n1
address: 10.0.0.1:7950
peers: [10.0.0.1:7950, 10.0.0.2:7950, 10.0.0.3:7950]
key_file: %[1]s/key
data_dir: %[1]s/data
socket: %[1]s/sock
vips:
  web:
    addresses: [10.0.0.200/24]
    interface: eth0
    vrrp: {id: 51}
`

// A badInput is a daemon that cannot start.
type badInput struct {
	name     string
	old, new string // replaced in soundConfig; "" for none
	spoil    func(t *testing.T, h *Host, dir string)
	want     []string // in the message; DIR stands for the case's directory
}

var badInputs = []badInput{
	{name: "unknown key", old: "socket:", new: "sockett:",
		want: []string{"DIR/q.yaml:7:1", "sockett", "socket"}},
	{name: "wrong type", old: "cluster: demo", new: "cluster: [demo]",
		want: []string{"DIR/q.yaml:1:10", "cluster"}},
	{name: "bad duration", old: "cluster: demo", new: "cluster: demo\nlease: fast",
		want: []string{"DIR/q.yaml:2:8", "lease", "fast"}},
	{name: "not yaml", old: "vips:", new: "vips: {",
		want: []string{"DIR/q.yaml:"}},
	{name: "key twice", old: "node: n1", new: "node: n1\nnode: n2",
		want: []string{"DIR/q.yaml:3:1", "node"}},
	{name: "router id twice", old: "    vrrp: {id: 51}", new: "    vrrp: {id: 51}\n  db:\n    addresses: [10.0.0.201/24]\n    interface: eth0\n    vrrp: {id: 51}",
		want: []string{"DIR/q.yaml:16:16", "51", "vips.web.vrrp.id", "line 12"}},
	{name: "address of no network", old: "[10.0.0.200/24]\n    interface: eth0", new: "[192.0.2.200/24]",
		want: []string{"DIR/q.yaml:10:", "192.0.2.200/24", "10.0.0.0/24 on eth0", "interface:"}},
	{name: "device that is not there", old: "interface: eth0", new: "interface: eth9",
		want: []string{"DIR/q.yaml:11:", "eth9", "eth0"}},
	{name: "address not on this host", old: "address: 10.0.0.1:7950", new: "address: 10.0.0.2:7950",
		want: []string{"DIR/q.yaml:3:", "10.0.0.2", "10.0.0.1", "not an address of this host"}},
	{name: "configuration that is not there",
		spoil: func(t *testing.T, _ *Host, dir string) { must(t, os.Remove(filepath.Join(dir, "q.yaml"))) },
		want:  []string{"DIR/q.yaml", "no such file"}},
	{name: "key for everybody to read",
		spoil: func(t *testing.T, _ *Host, dir string) { must(t, os.Chmod(filepath.Join(dir, "key"), 0o644)) },
		want:  []string{"DIR/key", "0644", "chmod"}},
	{name: "data_dir read-only",
		spoil: func(t *testing.T, _ *Host, dir string) {
			mountTmpfs(t, filepath.Join(dir, "data"), unix.MS_RDONLY, "size=1m")
		},
		want: []string{"DIR/data", "read-only"}},
	{name: "data_dir full",
		spoil: func(t *testing.T, _ *Host, dir string) {
			data := filepath.Join(dir, "data")
			mountTmpfs(t, data, 0, "size=16k")
			fill(t, filepath.Join(data, "fill"))
		},
		want: []string{"DIR/data", "the disk is full"}},
	{name: "port in use by TCP",
		spoil: func(t *testing.T, h *Host, _ string) {
			must(t, h.Do(func() error {
				l, err := net.Listen("tcp", "10.0.0.1:7950")
				if err == nil {
					t.Cleanup(func() { _ = l.Close() })
				}
				return err
			}))
		},
		want: []string{"10.0.0.1:7950", "another process has this port"}},
	{name: "port in use by UDP",
		spoil: func(t *testing.T, h *Host, _ string) {
			must(t, h.Do(func() error {
				l, err := net.ListenPacket("udp", "10.0.0.1:7950")
				if err == nil {
					t.Cleanup(func() { _ = l.Close() })
				}
				return err
			}))
		},
		want: []string{"10.0.0.1:7950", "another process has this port"}},
	{name: "socket in no directory", old: "/sock\n", new: "/nowhere/sock\n",
		want: []string{"DIR/nowhere/sock", "make the directory"}},
	{name: "something in the socket's place",
		spoil: func(t *testing.T, _ *Host, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "sock"), nil, 0o600))
		},
		want: []string{"DIR/sock", "no socket"}},
}

// TestBadInput starts daemons that cannot run. Each has to end soon with exit code 1,
// say why, and leave nothing on the host.
func TestBadInput(t *testing.T) {
	l := newLab(t)
	path, err := buildQuorate()
	must(t, err)
	for i, tt := range badInputs {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			h := addHost(t, l, fmt.Sprintf("h%d", i), 1) // a new one, on which nothing was left
			dir := soundInput(t, path, tt)
			if tt.spoil != nil {
				tt.spoil(t, h, dir)
			}
			refusesToRun(t, h, path, dir, tt.want)
		})
	}
	t.Run("data_dir_of_another", func(t *testing.T) {
		dir := soundInput(t, path, badInput{})
		h := addHost(t, l, "second", 1)
		first := addHost(t, l, "first", 2)
		sound, err := os.ReadFile(filepath.Join(dir, "q.yaml"))
		must(t, err)
		config := strings.NewReplacer("address: 10.0.0.1:", "address: 10.0.0.2:", dir+"/sock", dir+"/first").Replace(string(sound))
		must(t, os.WriteFile(filepath.Join(dir, "first.yaml"), []byte(config), 0o644))
		p, err := first.Start(Command{Name: "quorate", Args: []string{path, "run", "--config", filepath.Join(dir, "first.yaml")}})
		must(t, err)
		until(t, "the first daemon runs", 5*time.Second, func() bool { return strings.Contains(output(t, p), "quorate runs") })
		refusesToRun(t, h, path, dir, []string{"another quorate (pid " + itoa(p.Pid()) + ") uses DIR/data", "stop it first"})
		if !p.Running() {
			t.Errorf("the first daemon ended:\n%s", output(t, p))
		}
		must(t, p.Kill())
	})
}

// soundInput makes a directory with all that a daemon needs, but for what the case
// replaces in its configuration.
func soundInput(t *testing.T, path string, tt badInput) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "quorate-lab-test-")
	must(t, err)
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	_, err = quorate(t.Context(), path, "keygen", "--out", filepath.Join(dir, "key"))
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, "data"), 0o700))
	config := fmt.Sprintf(soundConfig, dir)
	if tt.old != "" {
		if !strings.Contains(config, tt.old) {
			t.Fatalf("%q is not in the sound configuration", tt.old)
		}
		config = strings.Replace(config, tt.old, tt.new, 1)
	}
	must(t, os.WriteFile(filepath.Join(dir, "q.yaml"), []byte(config), 0o644))
	return dir
}

func refusesToRun(t *testing.T, h *Host, path, dir string, want []string) {
	t.Helper()
	p, err := h.Start(Command{Name: filepath.Base(dir), Args: []string{path, "run", "--config", filepath.Join(dir, "q.yaml")}})
	must(t, err)
	err = p.Wait(5 * time.Second)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ended with %v, want exit code 1", err)
		must(t, p.Kill())
	}
	got := output(t, p)
	t.Log(strings.TrimSpace(got))
	for _, w := range want {
		if w = strings.ReplaceAll(w, "DIR", dir); !strings.Contains(got, w) {
			t.Errorf("the message lacks %q", w)
		}
	}
	noPanic(t, p)
	if _, held, err := h.Holds(VIP4.Addr()); err != nil || held {
		t.Errorf("it left %v on the host: %v, %v", VIP4.Addr(), held, err)
	}
	if on := fenced(t, h); len(on) > 0 {
		t.Errorf("it left a fence on %v", on)
	}
	if _, err := os.Lstat(filepath.Join(dir, "sock")); err == nil && !strings.Contains(got, "no socket") {
		t.Error("it left its socket")
	}
}
