package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/vipctl/internal/nstest"
)

// setting writes one.
func setting(t *testing.T, h *nstest.Host, file, value string) {
	t.Helper()
	h.Run(t, func() error { return os.WriteFile(file, []byte(value), 0) })
}

func settingOf(t *testing.T, h *nstest.Host, file string) (value string) {
	t.Helper()
	h.Run(t, func() (err error) {
		value, err = readSetting(file)
		return err
	})
	return value
}

// allSettings reads everything below a device's folders.
func allSettings(t *testing.T, h *nstest.Host, device string) map[string]string {
	t.Helper()
	all := map[string]string{}
	h.Run(t, func() error {
		for _, version := range []string{"ipv4", "ipv6"} {
			files, err := filepath.Glob(conf(version, device, "*"))
			if err != nil {
				return err
			}
			for _, f := range files {
				if text, err := os.ReadFile(f); err == nil { // some cannot be read: stable_secret
					all[f] = string(text)
				}
			}
		}
		return nil
	})
	if len(all) < 50 {
		t.Fatalf("only %d settings of %s", len(all), device)
	}
	return all
}

// The parent is left as it was found when the last virtual MAC goes, also by a later life of the daemon; and not before.
func TestParentIsLeftAsFound(t *testing.T) {
	for _, c := range []struct{ ignore, announce, wantIgnore, wantAnnounce string }{
		{"0", "0", "1", "2"},
		{"1", "2", "1", "2"},
		{"2", "1", "2", "2"},
		{"3", "0", "1", "2"},
		{"8", "0", "8", "2"},
	} {
		t.Run("arp_ignore "+c.ignore+" arp_announce "+c.announce, func(t *testing.T) {
			t.Parallel()
			l := newSwitched(t)
			ignore, announce := conf("ipv4", "eth0", "arp_ignore"), conf("ipv4", "eth0", "arp_announce")
			setting(t, l.a, ignore, c.ignore)
			setting(t, l.a, announce, c.announce)
			before := allSettings(t, l.a, "eth0")
			first, second, six, other := vmacs[0].VirtualMAC, vmacs[0].VirtualMAC, vmacs[1].VirtualMAC, vmacs[0].VirtualMAC
			second.VRID, other.VRID, other.Tag = 52, 53, "0"
			ensure(t, l.ka, six)
			if after := allSettings(t, l.a, "eth0"); !mapsEqual(before, after) {
				t.Error("an IPv6 one changes the parent's settings")
			}
			for _, v := range []VirtualMAC{first, second, other} {
				ensure(t, l.ka, v)
			}
			want := func(when, i, a string) {
				t.Helper()
				if gotI, gotA := settingOf(t, l.a, ignore), settingOf(t, l.a, announce); gotI != i || gotA != a {
					t.Errorf("%s: arp_ignore %s, arp_announce %s, want %s, %s", when, gotI, gotA, i, a)
				}
			}
			want("with virtual MACs", c.wantIgnore, c.wantAnnounce)
			life := open(t, l.a) // a later one, that knows nothing
			left, err := life.LeftoverVirtualMACs("abc123")
			if err != nil || len(left) != 3 || !slices.Contains(left, first) || !slices.Contains(left, second) || !slices.Contains(left, six) {
				t.Fatalf("LeftoverVirtualMACs = %v, %v", left, err)
			}
			for _, v := range left {
				if err := life.RemoveVirtualMAC(v); err != nil {
					t.Fatal(err)
				}
			}
			want("with another daemon's", c.wantIgnore, c.wantAnnounce)
			for range 2 { // again is no error
				if err := life.RemoveVirtualMAC(other); err != nil {
					t.Fatal(err)
				}
			}
			if after := allSettings(t, l.a, "eth0"); !mapsEqual(before, after) {
				want("afterwards", c.ignore, c.announce)
				t.Error("the parent is not as it was found")
			}
			if left, err := life.LeftoverVirtualMACs("abc123"); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

func mapsEqual(a, b map[string]string) bool {
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return len(a) == len(b)
}

// What somebody has changed meanwhile is not undone; what a program spoiled is set right at the next takeover.
func TestSettingsChangedMeanwhile(t *testing.T) {
	l := newSwitched(t)
	v := vmacs[0]
	link := ensure(t, l.ka, v.VirtualMAC)
	setting(t, l.a, conf("ipv4", link.Name, "rp_filter"), "1") // as udev would, by sysctl.d
	setting(t, l.a, conf("ipv4", "eth0", "arp_announce"), "0")
	if err := errors.Join(l.ka.RaiseVirtualMAC(v.VirtualMAC), l.ka.AddAddresses([]Address{{Link: link.Name, Prefix: v.vip}}, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if !l.client.Connects(t, v.vip.Addr(), long) {
		t.Error("does not answer")
	}
	setting(t, l.a, conf("ipv4", "eth0", "arp_ignore"), "2")
	letGo(t, l.ka, v)
	if err := l.ka.RemoveVirtualMAC(v.VirtualMAC); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"arp_ignore": "2", "arp_announce": "0"} {
		if got := settingOf(t, l.a, conf("ipv4", "eth0", name)); got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
}

// The device forwards as its parent does.
func TestVirtualMACForwards(t *testing.T) {
	l := newSwitched(t)
	for i, version := range []string{"ipv4", "ipv6"} {
		setting(t, l.a, conf(version, "eth0", "forwarding"), "1")
		link := ensure(t, l.ka, vmacs[i].VirtualMAC)
		if got := settingOf(t, l.a, conf(version, link.Name, "forwarding")); got != "1" {
			t.Errorf("%s forwarding = %s, want 1", version, got)
		}
	}
}
