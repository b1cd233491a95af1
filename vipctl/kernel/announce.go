package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl"
)

// A sender is an open packet socket on a device.
type sender struct {
	conn  *packet.Conn
	index int
}

// sendTime is how long handing a frame to a device may take. It is also the time
// before the end of a lease in which nothing is announced any more.
const sendTime = 20 * time.Millisecond

// Announce tells the neighbours on the device that the address is here now: by
// gratuitous ARP in both forms, or by an unsolicited Neighbor Advertisement. It
// returns within some tens of milliseconds. On a device without Ethernet
// addresses there is nothing to tell and nothing is done.
func (k *Kernel) Announce(link string, addr netip.Addr) error {
	l, err := k.Link(link)
	if err != nil {
		return fmt.Errorf("announce %s: %w", addr, err)
	}
	if !l.announces() {
		return nil
	}
	frames, err := k.announcement(l, addr)
	if err != nil {
		return fmt.Errorf("announce %s on %s: %w", addr, link, err)
	}
	if err := k.send(l, frames...); err != nil {
		return fmt.Errorf("announce %s on %s: %w", addr, link, err)
	}
	return nil
}

func (k *Kernel) announcement(l LinkInfo, addr netip.Addr) ([][]byte, error) {
	if addr.Is6() {
		na, err := vipctl.UnsolicitedNA(addr, l.MAC, k.forwards(l.Name))
		return [][]byte{na}, err
	}
	request, err := vipctl.GratuitousARP(addr, l.MAC, vipctl.Request)
	if err != nil {
		return nil, err
	}
	reply, err := vipctl.GratuitousARP(addr, l.MAC, vipctl.Reply)
	return [][]byte{request, reply}, err
}

// forwards reports whether the host is an IPv6 router on the device. A host
// where that cannot be read is not one.
func (k *Kernel) forwards(link string) bool {
	var on bool
	err := k.ns.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + link + "/forwarding")
		on = strings.TrimSpace(string(text)) == "1"
		return err
	})
	return err == nil && on
}

// send hands frames to a device over a socket that stays open.
func (k *Kernel) send(l LinkInfo, frames ...[]byte) error {
	k.sending.Lock()
	defer k.sending.Unlock()
	s := k.senders[l.Name]
	if s != nil && s.index != l.Index {
		// The device was destroyed and made again.
		k.drop(l.Name)
		s = nil
	}
	if s == nil {
		conn, err := k.listen(l, 0, nil) // protocol 0: receives nothing
		if err != nil {
			return err
		}
		s = &sender{conn, l.Index}
		k.senders[l.Name] = s
	}
	for _, f := range frames {
		if err := sendOn(s.conn, f); err != nil {
			k.drop(l.Name)
			return err
		}
	}
	return nil
}

func (k *Kernel) drop(link string) {
	k.senders[link].conn.Close() // its error could tell of nothing that matters any more
	delete(k.senders, link)
}

func sendOn(conn *packet.Conn, frame []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return fmt.Errorf("set the time for sending: %w", err)
	}
	_, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOBUFS):
		return fmt.Errorf("send: dropped on the way out, by the fence if the address is in it "+
			"and past its deadline, else by a full queue: %w", err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("send: the device has taken nothing for %s: %w", sendTime, err)
	default:
		return fmt.Errorf("send: %w", err)
	}
}

// listen opens a packet socket on a device.
func (k *Kernel) listen(l LinkInfo, protocol int, cfg *packet.Config) (*packet.Conn, error) {
	var conn *packet.Conn
	err := k.ns.Do(func() (err error) {
		conn, err = packet.Listen(&net.Interface{Index: l.Index, MTU: l.MTU, Name: l.Name, HardwareAddr: l.MAC},
			packet.Raw, protocol, cfg)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a packet socket on %s: %w", l.Name, err)
	}
	return conn, nil
}
