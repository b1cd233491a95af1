package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// Where Debian's FRR has its files. A pathspace is a directory in each, which keeps
// several FRR on one machine apart.
const (
	frrConfig  = "/etc/frr"
	frrRun     = "/var/run/frr"
	frrDaemons = "/usr/lib/frr"
	vtyshLimit = 10 * time.Second
)

// An frr is zebra and vrrpd on one host.
type frr struct {
	host  *lab.Host
	space string          // the pathspace
	known map[string]bool // the devices that it has
	said  map[uint8]bool  // the virtual routers that it has
}

// startFRR starts them without any virtual router; they go with the test.
func startFRR(t *testing.T, h *lab.Host) *frr {
	t.Helper()
	needs(t, "vtysh", "frr")
	f := &frr{host: h, space: h.Namespace(), known: map[string]bool{}, said: map[uint8]bool{}}
	frrUser, err := user.Lookup("frr")
	must(t, err)
	uid, err := strconv.Atoi(frrUser.Uid)
	must(t, err)
	for _, parent := range []string{frrConfig, frrRun} {
		dir := filepath.Join(parent, f.space)
		must(t, os.Mkdir(dir, 0o755))
		must(t, os.Chown(dir, uid, -1))
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
	}
	must(t, os.WriteFile(filepath.Join(frrConfig, f.space, "vtysh.conf"), nil, 0o644))
	must(t, h.Do(quietParent))
	for _, name := range []string{"zebra", "vrrpd"} {
		path := filepath.Join(frrDaemons, name)
		if _, err := os.Stat(path); err != nil {
			t.Skipf("SKIPPED, NOT TESTED: FRR's %s is not installed (apt-get install frr): %v", name, err)
		}
		// A process that changes its user, as these do, forgets that it is to die with its parent. In a PID namespace it
		// dies with the first process there, which does not forget.
		_, err := h.Start(lab.Command{Name: name, Args: []string{"unshare", "--pid", "--fork", "--kill-child",
			"sh", "-c", "\"$@\"; exit", "sh", path, "-N", f.space, "--log", "stdout"}})
		must(t, err)
		until(t, name+" listens for vtysh", 10*time.Second, func() bool {
			_, err := f.vtysh("-d", name, "-c", "show version")
			return err == nil
		})
	}
	return f
}

// quietParent has the devices answer ARP for their own addresses only: FRR leaves the
// virtual ones on a device without carrier while it is Backup.
func quietParent() error {
	for key, value := range map[string]string{"arp_ignore": "1", "arp_announce": "2"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/"+key, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", key, err)
		}
	}
	return nil
}

// vtysh runs FRR's shell and returns what it printed.
func (f *frr) vtysh(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), vtyshLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "vtysh", append([]string{"-N", f.space}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("vtysh %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// configure feeds lines to the section of eth0. FRR's shell prints what it refuses, and
// ends with success all the same.
func (f *frr) configure(lines ...string) error {
	args := []string{"-c", "configure terminal", "-c", "interface eth0"}
	for _, l := range lines {
		args = append(args, "-c", l)
	}
	out, err := f.vtysh(args...)
	if strings.TrimSpace(out) != "" {
		err = errors.Join(err, fmt.Errorf("FRR says to %q: %s", lines, out))
	}
	return err
}

// device makes the macvlan that FRR finds by its hardware address, with the virtual
// addresses on it.
func (f *frr) device(v virtual) error {
	name, kind := fmt.Sprintf("v4-%d", v.vrid), 1
	if v.is6() {
		name, kind = fmt.Sprintf("v6-%d", v.vrid), 2
	}
	if f.known[name] {
		return nil
	}
	f.known[name] = true
	ns := f.host.Namespace()
	steps := [][]string{
		{"link", "add", name, "link", "eth0", "type", "macvlan", "mode", "bridge"},
		// FRR wants a link-local address there, and the one made of the hardware address would be every router's.
		{"link", "set", name, "addrgenmode", "random"},
		{"link", "set", name, "address", fmt.Sprintf("00:00:5e:00:%02x:%02x", kind, v.vrid)},
	}
	for _, a := range v.addresses {
		step := []string{"addr", "add", a.String(), "dev", name}
		if v.is6() {
			step = append(step, "nodad")
		}
		steps = append(steps, step)
	}
	for _, s := range append(steps, []string{"link", "set", name, "up"}) {
		if out, err := exec.Command("ip", append([]string{"-n", ns}, s...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(s, " "), err, out)
		}
	}
	return nil
}

// say makes each virtual router anew.
func (f *frr) say(all []saying) error {
	var lines []string
	for vrid := range f.said {
		lines = append(lines, fmt.Sprintf("no vrrp %d", vrid))
	}
	clear(f.said)
	for _, s := range all {
		v := s.virtual
		if err := f.device(v); err != nil {
			return err
		}
		f.said[v.vrid] = true
		word := "ip"
		if v.is6() {
			word = "ipv6"
		}
		vr := fmt.Sprintf("vrrp %d ", v.vrid)
		lines = append(lines, fmt.Sprintf("vrrp %d version %d", v.vrid, v.version),
			vr+fmt.Sprintf("priority %d", s.priority), vr+fmt.Sprintf("advertisement-interval %d", s.interval.Milliseconds()))
		for _, a := range s.list {
			lines = append(lines, fmt.Sprintf("%s%s %s", vr, word, a.Addr()))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return f.configure(lines...)
}

// quit takes all virtual routers away, with priority 0 where FRR was Active.
func (f *frr) quit() error { return f.say(nil) }
