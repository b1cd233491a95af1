package lab

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A Keepalived says how a keepalived is to be run: as the outside router beside a
// cluster, or as the daemon under test.
type Keepalived struct {
	State    string        // MASTER or BACKUP; empty: BACKUP
	Priority int           // 1 to 255
	VRID     int           // of the instance, or of both when VIPs have two families
	Interval time.Duration // between adverts
	// VIPs with prefix length. Each family gets an instance of its own, as VRRPv3 has it.
	VIPs []netip.Prefix
}

// StartKeepalived writes a configuration and starts the machine's keepalived with it.
func (h *Host) StartKeepalived(k Keepalived) (*Process, error) {
	return h.RunKeepalived(k.config(h.Name))
}

// RunKeepalived does it with a whole configuration file.
func (h *Host) RunKeepalived(config string) (*Process, error) {
	path, err := exec.LookPath("keepalived")
	if err != nil {
		return nil, fmt.Errorf("keepalived is not installed (apt-get install keepalived): %w", err)
	}
	base := filepath.Join(h.lab.dir, h.Name+"-keepalived")
	if err := os.WriteFile(base+".conf", []byte(config), 0o644); err != nil {
		return nil, fmt.Errorf("write keepalived's configuration: %w", err)
	}
	return h.Start(Command{Name: "keepalived", Args: []string{
		path, "--vrrp", "--dont-fork", "--log-console", "--log-detail",
		"--use-file", base + ".conf", "--pid", base + ".pid", "--vrrp_pid", base + "-vrrp.pid",
	}})
}

func (k Keepalived) config(router string) string {
	state := k.State
	if state == "" {
		state = "BACKUP"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "global_defs {\n\trouter_id %s\n\tvrrp_version 3\n}\n", router)
	for _, family := range []struct {
		name string
		has  func(netip.Addr) bool
	}{{"web4", netip.Addr.Is4}, {"web6", netip.Addr.Is6}} {
		var vips []string
		for _, v := range k.VIPs {
			if family.has(v.Addr()) {
				vips = append(vips, "\t\t"+v.String())
			}
		}
		if len(vips) == 0 {
			continue
		}
		fmt.Fprintf(&b, `vrrp_instance %s {
	state %s
	interface eth0
	virtual_router_id %d
	priority %d
	advert_int %g
	virtual_ipaddress {
%s
	}
}
`, family.name, state, k.VRID, k.Priority, k.Interval.Seconds(), strings.Join(vips, "\n"))
	}
	return b.String()
}
