package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// Bounds for a disk, in milliseconds. Raft's timeouts are 500 ms (election/raftnode).
const (
	slowDiskMS   = 100
	brokenDiskMS = 500
)

// host judges what a node says of itself.
func (j *judge) host(f *Facts) {
	h := f.Host
	for _, p := range f.Problems {
		j.find(Warning, "problem", f.Name, "", "", "%s", p)
	}
	if len(h.Missing) > 0 {
		j.find(Broken, "capabilities", f.Name, "", "", "the process lacks %s", strings.Join(h.Missing, ", "))
	} else {
		j.find(OK, "capabilities", f.Name, "", "", "all that are needed are there")
	}
	if h.TimeShifted != "" {
		j.find(Broken, "time-namespace", f.Name, "", "", "%s", h.TimeShifted)
	}
	j.kernel(f)
	j.fence(f)
	j.disk(f)
	for _, d := range f.Devices {
		j.device(f, d)
	}
	if h.NonlocalBind == 0 {
		j.find(OK, "nonlocal-bind", f.Name, "", "", "ip_nonlocal_bind is 0: a service that is to start on a node without the VIP "+
			"must listen on all addresses, or the sysctl be 1")
	}
	if h.Fabric != "" {
		j.find(Note, "fabric", f.Name, "", "", "the machine's firmware names %s", h.Fabric)
	}
	for _, u := range f.Unknown {
		j.find(Note, "unknown", f.Name, "", u.Device, "%s: %s", u.ID, u.Why)
	}
}

func (j *judge) kernel(f *Facts) {
	h := f.Host
	major, minor, ok := release(h.Kernel)
	switch {
	case ok && (major < 5 || major == 5 && minor < 8) && h.Fence.Want == "bpf":
		j.find(Broken, "kernel", f.Name, "", "", "Linux %s is too old for the BPF fence", h.Kernel)
	default:
		j.find(OK, "kernel", f.Name, "", "", "Linux %s", h.Kernel)
	}
	if !h.AddressProto {
		j.find(Note, "address-proto", f.Name, "", "", "this kernel keeps no protocol number with an address (IFA_PROTO)")
	}
	if h.SockDestroy == No {
		j.find(Note, "sock-destroy", f.Name, "", "", "this kernel has no SOCK_DESTROY")
	}
}

func (j *judge) fence(f *Facts) {
	n := f.Host.Fence
	switch {
	case n.Want == "":
		return
	case n.Want == "lifetime":
		j.find(Warning, "fence", f.Name, "", "", "fence: lifetime: whole seconds, and a process frozen at the wrong moment can show two owners")
		return
	case n.Problem != "":
		severity := Broken
		if !f.Host.Root {
			severity = Note // an ordinary user's process cannot try it, whatever the daemon can
		}
		j.find(severity, "fence", f.Name, "", "", "it could not be tried: %s", n.Problem)
		return
	case n.GraceMS > 0 && n.LateMS > n.GraceMS:
		j.find(Broken, "fence", f.Name, "", "", "%s: a frame passed %s after its deadline, and voters are told at most %s", n.Kind, millis(n.LateMS), millis(n.GraceMS))
		return
	case n.Trials == 0:
		j.find(OK, "fence", f.Name, "", "", "%s", n.Kind)
	default:
		passed := "no frame passed after its deadline"
		if n.LateMS > 0 {
			passed = fmt.Sprintf("the latest frame passed %s after its deadline", millis(n.LateMS))
		}
		j.find(OK, "fence", f.Name, "", "", "%s: %s, in %d trials", n.Kind, passed, n.Trials)
	}
	j.find(OK, "bpffs", f.Name, "", "", "not needed: the programs hang on the devices themselves")
}

func (j *judge) disk(f *Facts) {
	d := f.Host.Disk
	switch {
	case d.Path == "":
	case d.Problem != "":
		j.find(Broken, "disk", f.Name, "", "", "%s: %s", d.Path, d.Problem)
	case d.PendingMS >= brokenDiskMS || d.Writes > 0 && d.MedianMS >= brokenDiskMS:
		j.find(Broken, "disk", f.Name, "", "", "%s: a write takes %s to be on the disk, or longer", d.Path, millis(max(d.MedianMS, d.PendingMS)))
	case d.MedianMS >= slowDiskMS:
		j.find(Warning, "disk", f.Name, "", "", "%s: a write takes %s to be on the disk, at worst %s, which each failover waits for", d.Path, millis(d.MedianMS), millis(d.WorstMS))
	case d.WorstMS >= brokenDiskMS:
		j.find(Note, "disk", f.Name, "", "", "%s: one write of %d took %s to be on the disk, the median is %s", d.Path, d.Writes, millis(d.WorstMS), millis(d.MedianMS))
	default:
		j.find(OK, "disk", f.Name, "", "", "a write takes %s to be on the disk, at worst %s", millis(d.MedianMS), millis(d.WorstMS))
	}
}

// device judges a device of VIPs and its sysctls.
func (j *judge) device(f *Facts, d Device) {
	if f.Role != "member" && f.Role != "" {
		return // a witness holds nothing
	}
	state := ""
	switch {
	case d.Index == 0:
		state = "there is no such device"
	case !d.Up:
		state = "it is down"
	case !d.Carrier:
		state = "it has no carrier"
	case d.NoARP:
		state = "it does not answer ARP (flag NOARP)"
	}
	if state != "" {
		j.find(Broken, "device", f.Name, "", d.Name, "%s, which %s need: %s", d.Name, list(d.Serves), state)
		return
	}
	j.find(OK, "device", f.Name, "", d.Name, "%s is up, MTU %d", d.Name, d.MTU)
	four := slices.ContainsFunc(d.Serves, func(a string) bool { return !strings.Contains(a, ":") })
	six := slices.ContainsFunc(d.Serves, func(a string) bool { return strings.Contains(a, ":") })
	if four {
		j.sysctls4(f, d)
	}
	if off, ok := d.Sysctls["disable_ipv6"]; ok && six && off != 0 {
		j.find(Broken, "ipv6-disabled", f.Name, "", d.Name, "IPv6 is disabled on %s, which is to have IPv6 addresses", d.Name)
	}
}

func (j *judge) sysctls4(f *Facts, d Device) {
	of := func(name string) int { return d.Sysctls[name] }
	switch v := of("arp_ignore"); {
	case v >= 3:
		j.find(Broken, "arp-ignore", f.Name, "", d.Name, "arp_ignore is %d on %s: ARP questions for a VIP may stay without an answer", v, d.Name)
	default:
		j.find(OK, "arp-ignore", f.Name, "", d.Name, "arp_ignore is %d", v)
	}
	if v, ok := d.Sysctls["arp_announce"]; ok {
		j.find(OK, "arp-announce", f.Name, "", d.Name, "arp_announce is %d", v)
	}
	if of("rp_filter") == 1 {
		j.find(Note, "rp-filter", f.Name, "", d.Name, "rp_filter is 1 (strict) on %s", d.Name)
	}
	if v, ok := d.Sysctls["promote_secondaries"]; ok && v == 0 {
		j.find(Note, "promote-secondaries", f.Name, "", d.Name, "promote_secondaries is 0 on %s", d.Name)
	}
}

// release reads the first two numbers of a kernel's release.
func release(s string) (major, minor int, ok bool) {
	n, err := fmt.Sscanf(s, "%d.%d", &major, &minor)
	return major, minor, err == nil && n == 2
}

func millis(ms float64) string { return fmt.Sprintf("%.1f ms", ms) }

// list shows a few names of many.
func list(names []string) string {
	const most = 4
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
