package wire

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/vrrpcompat"
)

const keepalivedConf = `
global_defs {
    vrrp_version 3
}
vrrp_instance four {
    state BACKUP
    interface wb
    virtual_router_id 51
    priority 100
    advert_int 1
    virtual_ipaddress {
        192.0.2.100/24
        192.0.2.101/24
    }
}
vrrp_instance six {
    state BACKUP
    interface wb
    virtual_router_id 51
    priority 100
    advert_int 1
    virtual_ipaddress {
        fe80::33/64
        2001:db8::100/64
    }
}
`

// startKeepalived runs a real keepalived on the host until the test ends, and returns the path of its log.
func startKeepalived(t *testing.T, h host, conf string) string {
	t.Helper()
	binary, err := exec.LookPath("keepalived")
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: interoperation needs keepalived (apt-get install keepalived): %v", err)
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("keepalived.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(path("log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", h.netns, binary, "-n", "-l", "-D",
		"-f", path("keepalived.conf"), "-p", path("keepalived.pid"), "-r", path("vrrp.pid"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // its child ends with it
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("keepalived ended with %v", err)
		}
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("keepalived's log:\n%s", text)
		}
		log.Close()
	})
	return log.Name()
}

// held says which of the advert's addresses are on the host.
func held(t *testing.T, h host, a vrrpcompat.Advert) []netip.Addr {
	t.Helper()
	var got []netip.Addr
	out := run(t, "ip", "-n", h.netns, "-o", "addr", "show", "dev", h.ifname)
	for _, addr := range a.Addresses {
		if strings.Contains(out, " "+addr.String()+"/") {
			got = append(got, addr)
		}
	}
	return got
}

// keepalived, told by nobody but our adverts, stays Backup for longer than its own down timer (3.6 s), and takes over when they stop.
func TestKeepalivedStaysBackupUnderOurAdverts(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED, NOT TESTED: takes ten seconds of real VRRP timers")
	}
	a, b := newHosts(t)
	sa := a.station(t, nil)
	log := startKeepalived(t, b, keepalivedConf)
	eventually(t, "keepalived to be Backup in both families", func() error {
		text, err := os.ReadFile(log)
		if n := strings.Count(string(text), "Entering BACKUP STATE"); n < len(families) {
			return fmt.Errorf("%d of %d, %v", n, len(families), err)
		}
		return nil
	})
	const adverts, perAdvert = 6, 20
	for range adverts {
		for _, f := range families {
			if err := sa.say(advert(f)); err != nil {
				t.Fatal(err)
			}
		}
		for range perAdvert {
			for _, f := range families {
				if got := held(t, b, advert(f)); len(got) > 0 {
					t.Fatalf("keepalived took %v while our adverts of priority 254 were there", got)
				}
			}
			time.Sleep(s1 / perAdvert)
		}
	}
	select {
	case p := <-sa.heard:
		t.Fatalf("keepalived spoke while it was Backup: %+v", p)
	default:
	}
	spoke := map[vrrpcompat.Family]bool{}
	for len(spoke) < len(families) {
		p := sa.next(t)
		got, sum := decoded(t, p)
		want := advert(p.Family)
		want.Priority = 100
		if !same(got, want) || sum != vrrpcompat.PseudoHeader || p.MAC.String() != b.mac(t).String() {
			t.Errorf("keepalived's advert as Active: %+v, %v, want %+v", got, sum, want)
		}
		spoke[p.Family] = true
	}
	for _, f := range families {
		eventually(t, "keepalived to hold the addresses", func() error {
			if got := held(t, b, advert(f)); len(got) != len(advert(f).Addresses) {
				return fmt.Errorf("it holds %v of %v", got, advert(f).Addresses)
			}
			return nil
		})
	}
	// It yields again to the first advert that we send, and does so in silence (no priority 0).
	for _, f := range families {
		eventually(t, "keepalived to yield", func() error {
			if err := sa.say(advert(f)); err != nil {
				return err
			}
			if got := held(t, b, advert(f)); len(got) > 0 {
				return fmt.Errorf("it still holds %v", got)
			}
			return nil
		})
	}
}

// s1 is the interval that our adverts state.
const s1 = time.Second
