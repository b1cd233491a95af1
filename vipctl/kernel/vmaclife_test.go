package kernel

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/quorate/quorate/vrrpcompat"
)

func TestVirtualMACFoundAgain(t *testing.T) {
	l := newSwitched(t)
	for _, v := range vmacs {
		first := ensure(t, l.ka, v.VirtualMAC)
		if first.Up || first.MAC.String() != v.MAC().String() || first.VirtualOn == 0 {
			t.Errorf("made %+v", first)
		}
		if err := l.ka.RaiseVirtualMAC(v.VirtualMAC); err != nil {
			t.Fatal(err)
		}
		if again := ensure(t, open(t, l.a), v.VirtualMAC); again.Index != first.Index || !again.Up {
			t.Errorf("found %+v, want the same, up", again)
		}
		// Spoiled by somebody.
		l.a.Run(t, func() error {
			dev, err := netlink.LinkByName(first.Name)
			if err != nil {
				return err
			}
			return netlink.LinkSetHardwareAddr(dev, net.HardwareAddr{2, 0, 0, 0, 0, 1})
		})
		if again := ensure(t, l.ka, v.VirtualMAC); again.Index == first.Index || again.MAC.String() != v.MAC().String() {
			t.Errorf("found %+v, want a new one", again)
		}
	}
	// With the parent they go too.
	l.a.Run(t, func() error {
		dev, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(dev)
	})
	for _, v := range vmacs {
		if err := errors.Join(l.ka.LowerVirtualMAC(v.VirtualMAC), l.ka.RemoveVirtualMAC(v.VirtualMAC)); err != nil {
			t.Error(err)
		}
		if err := l.ka.RaiseVirtualMAC(v.VirtualMAC); !errors.Is(err, ErrNoLink) {
			t.Errorf("Raise = %v, want %v", err, ErrNoLink)
		}
	}
}

func TestVirtualMACErrorsTeach(t *testing.T) {
	l := newSwitched(t)
	l.a.Run(t, func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}); err != nil {
			return err
		}
		for _, name := range []string{"port0", "mv0", "taken"} {
			var dev netlink.Link = &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: name, ParentIndex: eth0.Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE}
			if name == "port0" {
				dev = &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "other0"}
			}
			if err := netlink.LinkAdd(dev); err != nil {
				return err
			}
		}
		port, err := netlink.LinkByName("port0")
		if err != nil {
			return err
		}
		br, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(port, br); err != nil {
			return err
		}
		taken, err := netlink.LinkByName("taken")
		if err != nil {
			return err
		}
		return netlink.LinkSetName(taken, VirtualMAC{Family: vrrpcompat.IPv4, VRID: 9}.device(eth0.Attrs().Index))
	})
	good := vmacs[0].VirtualMAC
	with := func(change func(*VirtualMAC)) VirtualMAC {
		v := good
		change(&v)
		return v
	}
	for _, c := range []struct {
		v    VirtualMAC
		want string
	}{
		{with(func(v *VirtualMAC) { v.Tag = "G" }), "tag"},
		{with(func(v *VirtualMAC) { v.Tag = "" }), "tag"},
		{with(func(v *VirtualMAC) { v.VRID = 0 }), "vrid is 0"},
		{with(func(v *VirtualMAC) { v.Family = 0 }), "family(0) is neither"},
		{with(func(v *VirtualMAC) { v.Parent = "nosuch0" }), "nosuch0"},
		{with(func(v *VirtualMAC) { v.Parent = "lo" }), "no Ethernet device"},
		{with(func(v *VirtualMAC) { v.Parent = "mv0" }), "use the device below it"},
		{with(func(v *VirtualMAC) { v.Parent = "port0" }), "use the bridge or bond"},
		{with(func(v *VirtualMAC) { v.VRID = 9 }), "not this cluster's"},
	} {
		if l, err := l.ka.EnsureVirtualMAC(c.v); err == nil || !strings.Contains(err.Error(), c.want) || l.Index != 0 {
			t.Errorf("%+v: %v; want an error with %q", c.v, err, c.want)
		}
	}
	if _, err := l.ka.EnsureVirtualMAC(with(func(v *VirtualMAC) { v.Parent = "nosuch0" })); !errors.Is(err, ErrNoLink) {
		t.Errorf("without a parent: %v, want %v", err, ErrNoLink)
	}
	for file, value := range map[string]string{"arp_filter": "1", "arp_ignore": "3"} {
		setting(t, l.a, conf("ipv4", "all", file), value)
		if _, err := l.ka.EnsureVirtualMAC(good); err == nil || !strings.Contains(err.Error(), file+" is "+value) {
			t.Errorf("all.%s=%s: %v", file, value, err)
		}
		setting(t, l.a, conf("ipv4", "all", file), "0")
	}
	if err := l.ka.RaiseVirtualMAC(good); !errors.Is(err, ErrNoLink) {
		t.Errorf("raised one that is not there: %v", err)
	}
	if err := errors.Join(l.ka.LowerVirtualMAC(good), l.ka.RemoveVirtualMAC(good)); err != nil {
		t.Errorf("lowered and removed one that is not there: %v", err)
	}
	if got := settingOf(t, l.a, conf("ipv4", "eth0", "arp_ignore")); got != "0" {
		t.Errorf("an error left arp_ignore at %s", got)
	}
}
