package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// DefaultHTTPPort is the port that messages propose for http.
const DefaultHTTPPort = 7951

// http checks where metrics, health and the reading part of the API are served. It comes
// after the groups and the node's own address, with which it must not collide.
func (c *checker) http(raw rawConfig) {
	f := raw.http
	if !f.ok() || f.v == "" {
		return
	}
	p, err := netip.ParseAddrPort(f.v)
	if err != nil {
		bad(c, f, "must be ADDRESS:PORT", "write "+suggestHTTP(f.v))
		return
	}
	a := p.Addr()
	switch group, vip := c.isVIP(a); {
	case p.Port() == 0:
		bad(c, f, "must have a port from 1 to 65535", "write "+netip.AddrPortFrom(a, DefaultHTTPPort).String())
	case a.Is4In6():
		bad(c, f, "must not be an IPv4 address in IPv6 form", "write "+netip.AddrPortFrom(a.Unmap(), p.Port()).String())
	case a.IsMulticast() || a == limitedBroadcast:
		bad(c, f, "must be an address of this host", fmt.Sprintf("write 127.0.0.1:%d for this host alone", p.Port()))
	case vip:
		bad(c, f, "is an address of group "+group+", which moves to other nodes", fmt.Sprintf("write 127.0.0.1:%d, or this host's own address", p.Port()))
	case c.cfg.Address.IsValid() && p.Port() == c.cfg.Address.Port() && (a == c.cfg.Address.Addr() || a.IsUnspecified()):
		bad(c, f, "is the port that the nodes speak on, "+c.cfg.Address.String(), "write another port, such as "+netip.AddrPortFrom(a, DefaultHTTPPort).String())
	case a.IsUnspecified():
		c.warn(f.pos, f.path, "listens on every address of this host, the virtual ones too, and asks nobody who they are", fmt.Sprintf("write 127.0.0.1:%d, or the address of the network that scrapes it", p.Port()))
		fallthrough
	default:
		c.cfg.HTTP = p.String()
		c.cfg.where["http"] = f.pos
	}
}

func suggestHTTP(s string) string {
	port := strconv.Itoa(DefaultHTTPPort)
	if host, p, err := net.SplitHostPort(s); err == nil && isPort(p) {
		if port = p; host == "" || host == "localhost" {
			return "127.0.0.1:" + port
		}
	} else if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, DefaultHTTPPort).String()
	} else if isPort(s) {
		return "127.0.0.1:" + s
	}
	return "an address, not a name, and a port, such as 127.0.0.1:" + port
}
