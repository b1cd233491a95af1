package kernel

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/quorate/quorate/vrrpcompat"
)

// settings are those of a parent that its virtual MACs change, as text; empty for one that was not looked at.
type settings struct {
	arpIgnore, arpAnnounce string
}

const (
	// Answer ARP only for addresses of the device itself: the virtual ones are on another.
	arpIgnoreOthers = "1"
	// In questions, name an address of the device itself, even if the answer is for a virtual one: a question that names
	// the virtual one would tell neighbours that it is at the parent's hardware address.
	arpAnnounceOwn = "2"
	// Never answer.
	arpIgnoreAll = "8"
)

func conf(version, device, name string) string {
	return "/proc/sys/net/" + version + "/conf/" + device + "/" + name
}

func readSetting(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read setting: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// writeSetting writes only what differs: the file may be read-only and right.
func writeSetting(file, value string) error {
	have, err := readSetting(file)
	if err != nil || have == value {
		return err
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s to %s (a virtual MAC needs it; in a container /proc/sys must be writable): %w", file, value, err)
	}
	return nil
}

// refuseSilence tells of settings for all devices with which the virtual addresses would not be answered for; no setting
// of one device can outdo these.
func (k *Kernel) refuseSilence(v VirtualMAC, parent LinkInfo) error {
	if v.Family != vrrpcompat.IPv4 {
		return nil
	}
	return k.ns.Do(func() error {
		filter, err := readSetting(conf("ipv4", "all", "arp_filter"))
		if err != nil {
			return err
		}
		if filter != "0" {
			return fmt.Errorf("net.ipv4.conf.all.arp_filter is %s: the kernel then answers ARP only on the device of the route back, "+
				"which is %s, and nobody would find the virtual addresses; set it to 0", filter, parent.Name)
		}
		ignore, err := readSetting(conf("ipv4", "all", "arp_ignore"))
		if err != nil {
			return err
		}
		if ignore > "2" {
			return fmt.Errorf("net.ipv4.conf.all.arp_ignore is %s: with that either %s would answer for the virtual addresses too, "+
				"or no device would; set it to 0, 1 or 2", ignore, parent.Name)
		}
		return nil
	})
}

// foundSettings are the parent's as they were before the first virtual MAC.
func (k *Kernel) foundSettings(parent LinkInfo, all []virtualMACLink) (s settings, err error) {
	for _, m := range all {
		if m.VirtualOn == parent.Index && m.Family == vrrpcompat.IPv4 {
			return m.before, nil
		}
	}
	err = k.ns.Do(func() (err error) {
		if s.arpIgnore, err = readSetting(conf("ipv4", parent.Name, "arp_ignore")); err != nil {
			return err
		}
		s.arpAnnounce, err = readSetting(conf("ipv4", parent.Name, "arp_announce"))
		return err
	})
	return s, err
}

// restore sets the parent's settings back, where they are still as a virtual MAC wants them.
func (k *Kernel) restore(m virtualMACLink) error {
	links, err := k.links()
	if err != nil {
		return err
	}
	parent, ok := links[m.VirtualOn]
	if !ok {
		return nil
	}
	return k.ns.Do(func() error {
		var errs []error
		for _, s := range []struct{ name, ours, before string }{
			{"arp_ignore", arpIgnoreOthers, m.before.arpIgnore},
			{"arp_announce", arpAnnounceOwn, m.before.arpAnnounce},
		} {
			file := conf("ipv4", parent.Name, s.name)
			have, err := readSetting(file)
			if err == nil && s.before != "" && have == s.ours {
				err = writeSetting(file, s.before)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// tune gives the virtual MAC's device, and for IPv4 its parent, the settings without which it would not answer, or another
// would.
func (k *Kernel) tune(v VirtualMAC, m virtualMACLink) error {
	return k.ns.Do(func() error {
		if v.Family == vrrpcompat.IPv4 {
			return errors.Join(tuneIPv4(m.Name, v.Parent), tuneParent(v.Parent))
		}
		return tuneIPv6(m.Name, v.Parent)
	})
}

func tuneParent(parent string) error {
	ignore, err := readSetting(conf("ipv4", parent, "arp_ignore"))
	if err != nil {
		return err
	}
	if ignore != "2" && ignore != arpIgnoreAll { // which are stricter
		err = writeSetting(conf("ipv4", parent, "arp_ignore"), arpIgnoreOthers)
	}
	return errors.Join(err, writeSetting(conf("ipv4", parent, "arp_announce"), arpAnnounceOwn))
}

func tuneIPv4(device, parent string) error {
	forwarding, err := readSetting(conf("ipv4", parent, "forwarding"))
	if err != nil {
		return err
	}
	set := []struct{ name, value string }{
		// Answer for the virtual addresses, and not for those of the parent.
		{"arp_ignore", arpIgnoreOthers},
		{"arp_announce", arpAnnounceOwn},
		{"arp_filter", "0"},
		// The way back leads over the parent: a strict check would drop all that comes in.
		{"rp_filter", "2"},
		// What is sent to the virtual MAC is forwarded as if it were sent to the parent.
		{"forwarding", forwarding},
	}
	errs := []error{ipv6Off(device)}
	for _, s := range set {
		errs = append(errs, writeSetting(conf("ipv4", device, s.name), s.value))
	}
	return errors.Join(errs...)
}

// ipv6Off keeps an IPv4 virtual router's device from having an IPv6 life of its own.
func ipv6Off(device string) error {
	err := writeSetting(conf("ipv6", device, "disable_ipv6"), "1")
	if errors.Is(err, os.ErrNotExist) {
		return nil // this host knows no IPv6
	}
	return err
}

func tuneIPv6(device, parent string) error {
	forwarding, err := readSetting(conf("ipv6", parent, "forwarding"))
	if err != nil {
		return err
	}
	set := []struct{ name, value string }{
		// No link-local address is made of the hardware address: each node of the virtual router would have the same. First,
		// for one is made as soon as IPv6 is on.
		{"addr_gen_mode", "1"},
		// None by router advertisements either, and nobody is asked for them.
		{"accept_ra", "0"},
		{"forwarding", forwarding},
		{"disable_ipv6", "0"},
	}
	// An IPv6 device has an IPv4 half too, which would answer ARP for the parent's addresses.
	errs := []error{writeSetting(conf("ipv4", device, "arp_ignore"), arpIgnoreAll)}
	for _, s := range set {
		errs = append(errs, writeSetting(conf("ipv6", device, s.name), s.value))
	}
	return errors.Join(errs...)
}
