// Package host gathers the facts that the doctor judges: about this host by itself, and
// about what passes between its devices and those of other nodes.
//
// It changes nothing that lasts. What it sends bears addresses and protocols that nobody
// acts on, and a neighbour entry that it plants is one of its own and goes again.
package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/doctor"
	"github.com/quorate/quorate/vipctl/fence"
)

// Options say what of the host matters.
type Options struct {
	DataDir string  // empty: the node keeps nothing
	Fence   string  // bpf, lifetime, or empty: none
	GraceMS float64 // that voters are told
}

// Gather looks at this host. It takes a second at most on a healthy one, and not longer
// than ctx on any.
func Gather(ctx context.Context, opt Options) doctor.Host {
	h := doctor.Host{Missing: missing(), Kernel: kernelRelease(), Fabric: fabric(), NonlocalBind: -1}
	h.Root, h.MACs = len(h.Missing) == 0, hardware()
	if err := fence.CheckTimeNamespace(); err != nil {
		h.TimeShifted = err.Error()
	}
	if v, err := sysctl("ipv4", "", "ip_nonlocal_bind"); err == nil {
		h.NonlocalBind = v
	}
	h.AddressProto = atLeast(h.Kernel, 5, 18)
	h.SockDestroy = sockDestroy()
	h.Fence = doctor.Fence{Want: opt.Fence, GraceMS: opt.GraceMS}
	var side sync.WaitGroup
	if opt.DataDir != "" {
		side.Go(func() { h.Disk = tryDisk(ctx, opt.DataDir) })
	}
	if opt.Fence == "bpf" {
		tryFence(&h.Fence)
	}
	side.Wait()
	return h
}

// needed are the capabilities that the daemon uses; bits of capabilities(7).
var needed = []struct {
	bit  uint
	name string
}{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{unix.CAP_NET_RAW, "CAP_NET_RAW"},
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
}

func missing() []string {
	out := []string{}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return append(out, "what it has, which cannot be read: "+err.Error())
	}
	for _, n := range needed {
		if data[n.bit/32].Effective&(1<<(n.bit%32)) == 0 {
			out = append(out, n.name)
		}
	}
	return out
}

// hardware lists every hardware address by which this host may answer.
func hardware() []string {
	out := []string{}
	list, err := net.Interfaces()
	if err != nil {
		return out // the devices of the groups are looked at one by one besides
	}
	for _, d := range list {
		if len(d.HardwareAddr) > 0 {
			out = append(out, d.HardwareAddr.String())
		}
	}
	return out
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "of an unknown release" // uname(2) fails for a bad pointer only
	}
	return unix.ByteSliceToString(u.Release[:])
}

func atLeast(release string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}

// sysctl reads a number of net.VERSION.conf.DEVICE; with no device, of net.VERSION.
func sysctl(version, device, name string) (int, error) {
	path := filepath.Join("/proc/sys/net", version, name)
	if device != "" {
		path = filepath.Join("/proc/sys/net", version, "conf", device, name)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// effective are sysctls of a device as the kernel applies them: for these it takes the
// greater of "all" and the device's own (Documentation/networking/ip-sysctl.rst).
func effective(device string) map[string]int {
	out := map[string]int{}
	for _, name := range []string{"arp_ignore", "arp_announce", "rp_filter", "promote_secondaries", "drop_gratuitous_arp"} {
		own, err := sysctl("ipv4", device, name)
		all, aerr := sysctl("ipv4", "all", name)
		if err == nil && aerr == nil {
			out[name] = max(own, all)
		}
	}
	if own, err := sysctl("ipv6", device, "disable_ipv6"); err == nil {
		out["disable_ipv6"] = own
	}
	return out
}

// clouds are vendors in a machine's firmware whose networks only look like a LAN.
var clouds = []struct{ word, name string }{
	{"amazon ec2", "Amazon EC2"}, {"google", "Google Cloud"}, {"7783-7084-3265-9085-8269-3286-77", "Microsoft Azure"},
	{"alibaba", "Alibaba Cloud"}, {"oraclecloud", "Oracle Cloud"}, {"digitalocean", "DigitalOcean"}, {"hetzner", "Hetzner"},
	{"tencent", "Tencent Cloud"}, {"scaleway", "Scaleway"}, {"linode", "Linode"}, {"vultr", "Vultr"},
}

func fabric() string {
	for _, file := range []string{"sys_vendor", "bios_vendor", "product_name", "chassis_asset_tag"} {
		text, err := os.ReadFile("/sys/class/dmi/id/" + file)
		if err != nil {
			continue
		}
		for _, c := range clouds {
			if strings.Contains(strings.ToLower(string(text)), c.word) {
				return c.name
			}
		}
	}
	return ""
}

// sockDestroy asks the kernel to destroy a connection that there cannot be: a kernel that
// can destroy any says that it does not find it.
func sockDestroy() doctor.Has {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return 0
	}
	if err := unix.Sendto(fd, noConnection(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0
	}
	b := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return 0
	}
	switch code := errorOf(b[:n]); {
	case errors.Is(code, unix.ENOENT):
		return doctor.Yes
	case errors.Is(code, unix.EOPNOTSUPP), errors.Is(code, unix.EINVAL):
		return doctor.No
	}
	return 0
}
