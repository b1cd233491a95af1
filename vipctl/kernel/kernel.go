// Package kernel carries out on Linux what a virtual IP needs: addresses with a
// lifetime, announcements, the question whether another host has the address,
// and news of links and addresses.
//
// Everything happens in the network namespace of the thread that called Open.
package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl/internal/netns"
)

// ErrNoLink means that there is no device of that name: wait for it to come.
var ErrNoLink = errors.New("no such device")

// A Kernel acts on one network namespace. Safe for concurrent use.
type Kernel struct {
	ns *netns.Handle
	nl *netlink.Handle

	conn   *conn // for addresses, routes and rules
	recent bool  // Linux 5.18 or later, see marks

	addrs sync.Mutex         // one change of addresses, routes or rules at a time; guards added
	added map[netip.Addr]int // through this Kernel, on the device of that number: never taken for the host's own

	vmacs sync.Mutex // one change of virtual MACs at a time

	sending sync.Mutex // guards senders
	senders map[string]*sender
}

// answerTime bounds how long the kernel may take over one netlink question; it
// normally takes microseconds, and longer while another process holds the
// kernel's lock on network configuration.
const answerTime = 2 * time.Second

// Open opens the calling thread's network namespace.
func Open() (*Kernel, error) {
	ns, err := netns.Current()
	if err != nil {
		return nil, err
	}
	var h *netlink.Handle
	var c *conn
	err = ns.Do(func() (err error) {
		if h, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		if c, err = openConn(unix.NETLINK_ROUTE); err != nil {
			h.Close()
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink: %w", err), ns.Close())
	}
	k := &Kernel{ns: ns, nl: h, conn: c, recent: recentKernel(), added: map[netip.Addr]int{}, senders: map[string]*sender{}}
	if err := h.SetSocketTimeout(answerTime); err != nil {
		return nil, errors.Join(fmt.Errorf("set netlink's timeout: %w", err), k.Close())
	}
	return k, nil
}

// Close closes all sockets. It leaves addresses as they are. No other method may
// be under way or be called later, Watch included.
func (k *Kernel) Close() error {
	k.nl.Close()
	connErr := k.conn.close()
	k.sending.Lock()
	defer k.sending.Unlock()
	errs := []error{connErr}
	for _, s := range k.senders {
		errs = append(errs, s.conn.Close())
	}
	k.senders = map[string]*sender{}
	return errors.Join(append(errs, k.ns.Close())...)
}

// A LinkInfo is the state of a device.
type LinkInfo struct {
	Name    string
	Index   int
	MAC     net.HardwareAddr // empty on devices without one, such as WireGuard
	MTU     int
	Up      bool // administratively
	Carrier bool // the cable, or what stands for it; only when Up
	// VirtualOn is the number of the device below, if this is a virtual MAC's (see VirtualMAC), else 0.
	VirtualOn int
}

// announces reports whether neighbours are asked for on the device at all.
func (l LinkInfo) announces() bool { return len(l.MAC) == 6 && !zero(l.MAC) }

func zero(mac net.HardwareAddr) bool { return mac.String() == "00:00:00:00:00:00" } // loopback

// Link returns the state of a device; the error wraps ErrNoLink when there is none.
func (k *Kernel) Link(name string) (LinkInfo, error) {
	l, err := k.nl.LinkByName(name)
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) || errors.Is(err, unix.ENODEV) {
		return LinkInfo{}, fmt.Errorf("device %s: %w", name, ErrNoLink)
	}
	if err != nil {
		return LinkInfo{}, fmt.Errorf("look up device %s: %w", name, err)
	}
	return infoOf(l.Attrs()), nil
}

func infoOf(a *netlink.LinkAttrs) LinkInfo {
	l := LinkInfo{Name: a.Name, Index: a.Index, MAC: a.HardwareAddr, MTU: a.MTU,
		Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0}
	if strings.HasPrefix(a.Alias, mark) {
		l.VirtualOn = a.ParentIndex
	}
	return l
}

// links returns every device by its index.
func (k *Kernel) links() (map[int]LinkInfo, error) {
	list, err := dump("devices", k.nl.LinkList)
	if err != nil {
		return nil, err
	}
	infos := make(map[int]LinkInfo, len(list))
	for _, l := range list {
		infos[l.Attrs().Index] = infoOf(l.Attrs())
	}
	return infos, nil
}

// dumpTries is how often a dump that was disturbed by changes is asked for again.
const dumpTries = 10

// dump asks again for what came incomplete: a list that lacks an entry could have
// an address taken for gone that is there.
func dump[T any](what string, list func() ([]T, error)) ([]T, error) {
	var err error
	for range dumpTries {
		var all []T
		if all, err = list(); err == nil {
			return all, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return nil, fmt.Errorf("list %s: %w", what, err)
}
