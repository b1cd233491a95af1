package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is for how long something of a process is waited for.
const patience = 20 * time.Second

// A daemonProcess is a real quorate run.
type daemonProcess struct {
	t      *testing.T
	cmd    *exec.Cmd
	notify *net.UnixConn // what it tells systemd
	mu     sync.Mutex
	log    bytes.Buffer
}

// Write takes a line of its log.
func (d *daemonProcess) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(b)
}

// said waits for a text in the log.
func (d *daemonProcess) said(text string) {
	d.t.Helper()
	eventually(d.t, "in the log: "+text, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return strings.Contains(d.log.String(), text)
	})
}

// startProcess runs the daemon in the network namespace of the test's thread.
func startProcess(t *testing.T, dir, file string) *daemonProcess {
	t.Helper()
	path := filepath.Join(dir, "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemonProcess{t: t, notify: notify, cmd: exec.Command(self, "run", "--config", file)}
	d.cmd.Env = append(os.Environ(), exampleRoot+"="+dir, "NOTIFY_SOCKET="+path)
	d.cmd.Stdout, d.cmd.Stderr = d, d
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill() // it has ended, unless the test failed
		_ = d.cmd.Wait()
		_ = notify.Close()
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", d.log.String())
		}
	})
	return d
}

// told waits for what it tells systemd, leaving out the watchdog, and returns the whole
// message that has it.
func (d *daemonProcess) told(text string) string {
	d.t.Helper()
	if err := d.notify.SetReadDeadline(time.Now().Add(patience)); err != nil {
		d.t.Fatal(err)
	}
	b := make([]byte, 4096)
	for {
		n, err := d.notify.Read(b)
		if err != nil {
			d.t.Fatalf("it never said %s: %v", text, err)
		}
		if got := string(b[:n]); strings.Contains(got, text) {
			return got
		}
	}
}

// hangUp has it read the file again, and waits until it has.
func (d *daemonProcess) hangUp() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		d.t.Fatal(err)
	}
	var micros int64
	if msg := d.told("RELOADING=1"); !strings.Contains(msg, "MONOTONIC_USEC=") {
		d.t.Errorf("it said %q", msg)
	} else if _, err := fmt.Sscanf(msg[strings.Index(msg, "MONOTONIC_USEC="):], "MONOTONIC_USEC=%d", &micros); err != nil || micros <= 0 {
		d.t.Errorf("it said %q: %v", msg, err)
	}
	d.told("READY=1")
}

// asked is the first line of the answer to a GET.
func asked(t *testing.T, address, path string) string {
	t.Helper()
	// By hand: the goroutines of a client would be in another network namespace.
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.0\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// eventually waits for something that the daemon does beside telling so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestReload: a real daemon is told to read its file again.
func TestReload(t *testing.T) {
	enterNetns(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "quorate.yaml")
	write := func(more, group string) {
		t.Helper()
		text := "election: vrrp\nnode: n1\nsocket: " + dir + "/s\n" + more + "vips: {web: {addresses: [10.0.0.200/24]" + group + ", vrrp: {id: 51}}}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	status := func() string {
		_, out, stderr := quorate(t, "status", "--json", "--socket", dir+"/s")
		return out + stderr
	}
	write("", "")
	d := startProcess(t, dir, file)
	d.told("READY=1")
	if got := asked(t, "127.0.0.1:7951", "/healthz"); !strings.Contains(got, "refused") {
		t.Errorf("http before it is written: %s", got)
	}

	write("log: {level: debug, format: json}\nfifo: "+dir+"/pipe\nhttp: 127.0.0.1:7951\n", "")
	d.hangUp()
	eventually(t, "the pipe", func() bool {
		info, err := os.Stat(dir + "/pipe")
		return err == nil && info.Mode()&os.ModeNamedPipe != 0
	})
	eventually(t, "an answer by http", func() bool { return strings.Contains(asked(t, "127.0.0.1:7951", "/metrics"), "200") })
	d.said(`"msg":"taken over from the configuration file","key":"http","was":"none","is":"127.0.0.1:7951"`)

	// Another port: the one before is given back.
	write("http: 127.0.0.1:7952\n", "")
	d.hangUp()
	eventually(t, "an answer at the other port", func() bool { return strings.Contains(asked(t, "127.0.0.1:7952", "/metrics"), "200") })
	eventually(t, "none at the one before", func() bool { return strings.Contains(asked(t, "127.0.0.1:7951", "/metrics"), "refused") })

	// A bad file changes nothing, and the status says so until it is right again.
	write("http: 127.0.0.1:7953\nlog: {level: loud}\n", "")
	d.hangUp()
	if got := asked(t, "127.0.0.1:7952", "/metrics"); !strings.Contains(got, "200") {
		t.Errorf("after a bad file: %s", got)
	}
	if s := status(); !strings.Contains(s, "the configuration file was not taken over when it was read again") || !strings.Contains(s, "log.level: must be debug, info, warn or error") {
		t.Errorf("status: %s", s)
	}
	d.said("the configuration file has an error, and changes nothing")

	// What cannot change is named.
	write("http: 127.0.0.1:7952\nnode: n9\n", "")
	if err := os.WriteFile(file, []byte("election: vrrp\nnode: n9\nsocket: "+dir+"/s\nhttp: 127.0.0.1:7952\n"+
		"vips: {web: {addresses: [10.0.0.201/24], vrrp: {id: 51}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.hangUp()
	if s := status(); !strings.Contains(s, "the configuration file has node: n9, and in force is n1: restart the daemon") ||
		!strings.Contains(s, "other vips, checks or hooks than are in force: restart the daemon") || strings.Contains(s, "was not taken over") {
		t.Errorf("status: %s", s)
	}

	write("http: 127.0.0.1:7952\n", "")
	d.hangUp()
	if s := status(); strings.Contains(s, "configuration file") {
		t.Errorf("status with a file as it is in force: %s", s)
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("end: %v", err)
	}
}

// TestReloadCluster: of a node of a cluster the file's peers count at once, its groups are
// compared with the cluster's, and a lease waits for a restart.
func TestReloadCluster(t *testing.T) {
	enterNetns(t)
	dir := t.TempDir()
	file := configure(t, dir, "")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const three = "peers: [10.0.0.1:7950, 10.0.0.2:7950, 10.0.0.3:7950]\n"
	write := func(peers, more, address string) {
		t.Helper()
		text := strings.NewReplacer(three, peers, "10.0.0.200/24", address).Replace(string(b)) + more
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	status := func() string {
		_, out, stderr := quorate(t, "status", "--json", "--socket", dir+"/s")
		return out + stderr
	}
	const one = "peers: [10.0.0.1:7950]\n"
	write(one, "", "10.0.0.200/24")
	d := startProcess(t, dir, file)
	d.told("READY=1")
	eventually(t, "a cluster of one", func() bool { return strings.Contains(status(), `"owner": "n1"`) })

	write(three, "lease: 400ms\n", "10.0.0.201/24")
	d.hangUp()
	d.said(`msg="taken over from the configuration file" key=peers`)
	d.said("quorate apply FILE makes them the cluster's")
	if s := status(); !strings.Contains(s, "the configuration file has lease: 400ms, and in force is 250ms: restart the daemon; one node after the other") ||
		strings.Contains(s, "vips, checks or hooks") || strings.Contains(s, "file has renew") {
		t.Errorf("status: %s", s)
	}
	write(three, "", "10.0.0.200/24")
	d.hangUp()
	if s := status(); strings.Contains(s, "configuration file") {
		t.Errorf("status with a file as it is in force: %s", s)
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("end: %v", err)
	}
}
