package interop

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// A keepalived is one that is started anew for each thing that it is to say.
type keepalived struct {
	host  *lab.Host
	peers []*lab.Host // of those instances that speak unicast
	proc  *lab.Process
}

func startKeepalived(t *testing.T, h *lab.Host, peers []*lab.Host) *keepalived {
	t.Helper()
	needs(t, "keepalived", "keepalived")
	return &keepalived{host: h, peers: peers}
}

func (k *keepalived) say(all []saying) error {
	if err := k.quit(); err != nil || len(all) == 0 {
		return err
	}
	var err error
	k.proc, err = k.host.RunKeepalived(k.config(all))
	return err
}

// quit ends it cleanly, with priority 0 where it was Active.
func (k *keepalived) quit() error {
	if k.proc == nil {
		return nil
	}
	return k.proc.Stop(10 * time.Second)
}

func (k *keepalived) config(all []saying) string {
	var b strings.Builder
	fmt.Fprintf(&b, "global_defs {\n\trouter_id peer\n}\n")
	for _, s := range all {
		b.WriteString(k.instance(s))
	}
	return b.String()
}

func (k *keepalived) instance(s saying) string {
	v := s.virtual
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "\t"+format+"\n", args...) }
	fmt.Fprintf(&b, "vrrp_instance r%d_%d {\n", v.vrid, v.addresses[0].Addr().BitLen())
	line("state BACKUP")
	line("interface eth0")
	line("version %d", v.version)
	line("virtual_router_id %d", v.vrid)
	line("priority %d", s.priority)
	line("advert_int %g", s.interval.Seconds())
	if v.vmac {
		line("use_vmac")
	}
	if v.unicast {
		if v.vmac {
			line("vmac_xmit_base") // keepalived wants it with unicast
		}
		line("unicast_src_ip %s", address(k.host, v))
		line("unicast_peer {")
		for _, h := range k.peers {
			line("\t%s", address(h, v))
		}
		line("}")
	}
	if s.password != "" {
		line("authentication {\n\t\tauth_type PASS\n\t\tauth_pass %s\n\t}", s.password)
	}
	line("virtual_ipaddress {")
	for _, a := range s.list {
		line("\t%s", a)
	}
	line("}")
	b.WriteString("}\n")
	return b.String()
}

// address is a host's own in the family of a virtual router.
func address(h *lab.Host, v virtual) netip.Addr {
	if v.is6() {
		return h.IPv6
	}
	return h.IPv4
}
