package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/doctor"
	"github.com/quorate/quorate/vipctl"
)

// A seat is one device in a survey.
type seat struct {
	survey Survey
	device doctor.Device
	mac    net.HardwareAddr
	out    *results
	begun  time.Time
}

// run listens until ctx ends, and meanwhile sends its rounds.
func (s *seat) run(ctx context.Context) {
	conns, err := s.listen()
	defer func() {
		for _, c := range conns {
			_ = c.Close() // nothing more is asked of it
		}
	}()
	if err != nil {
		s.out.unlooked("lan", s.device.Name, err.Error())
		return
	}
	planted := s.plant()
	defer s.harvest(planted)
	var readers sync.WaitGroup
	defer readers.Wait()
	for _, c := range conns {
		readers.Go(func() { s.read(ctx, c) })
	}
	s.send(ctx, conns[0])
}

// listen opens sockets for all that is to be heard. The first one also sends.
func (s *seat) listen() (conns []*packet.Conn, err error) {
	for _, l := range []struct {
		protocol int
		filter   []bpf.Instruction
	}{{doctor.EtherType, nil}, {unix.ETH_P_ARP, nil}, {unix.ETH_P_IP, toGroup4}, {unix.ETH_P_IPV6, toGroup6}} {
		cfg := &packet.Config{}
		if l.filter != nil {
			if cfg.Filter, err = bpf.Assemble(l.filter); err != nil {
				return conns, fmt.Errorf("assemble a socket filter: %w", err)
			}
		}
		d := &net.Interface{Index: s.device.Index, MTU: s.device.MTU, Name: s.device.Name, HardwareAddr: s.mac}
		conn, err := packet.Listen(d, packet.Raw, l.protocol, cfg)
		if err != nil {
			return conns, fmt.Errorf("open a packet socket: %w", err)
		}
		conns = append(conns, conn)
		if l.protocol == unix.ETH_P_IPV6 {
			// Answers about IPv6 addresses go to all nodes, which a device with IPv6 off does not hear.
			if err := conn.JoinGroup(vipctl.AllNodesMAC()); err != nil {
				return conns, fmt.Errorf("listen to all nodes: %w", err)
			}
		}
	}
	return conns, nil
}

// toGroup4 lets through what goes to 224.0.0.18.
var toGroup4 = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 14 + 16, Size: 4},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0xe0000012, SkipFalse: 1},
	bpf.RetConstant{Val: 2048},
	bpf.RetConstant{Val: 0},
}

// toGroup6 lets through what goes to ff02::12, and Neighbor Advertisements. The two
// words in the middle of the group are zero, and nothing else that begins and ends so is common.
var toGroup6 = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 14 + 24, Size: 4},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0xff020000, SkipFalse: 2},
	bpf.LoadAbsolute{Off: 14 + 36, Size: 4},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x12, SkipTrue: 4},
	bpf.LoadAbsolute{Off: 14 + 6, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 3},
	bpf.LoadAbsolute{Off: 14 + 40, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 136, SkipTrue: 1},
	bpf.RetConstant{Val: 2048},
	bpf.RetConstant{Val: 0},
}

// read notes what comes until ctx ends.
func (s *seat) read(ctx context.Context, conn *packet.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, 2048) // the beginning of longer ones is enough
	for {
		n, _, err := conn.ReadFrom(b)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				s.out.unlooked("lan", s.device.Name, "listening ended: "+err.Error())
			}
			return
		}
		s.take(b[:n])
	}
}

func (s *seat) take(frame []byte) {
	if t, ok := doctor.ParseFrame(frame); ok {
		if t.Nonce == s.survey.Request.Nonce && t.From != s.survey.Self {
			s.out.hear(s.device.Name, t)
		}
		return
	}
	addr, mac, ok := vipctl.ParseConflict(frame)
	if ok && mac.String() != s.mac.String() && slices.Contains(s.device.Serves, addr.String()) {
		s.out.claim(s.device.Name, addr, mac)
	}
}

func (s *seat) tag(k doctor.Kind) doctor.Tag {
	return doctor.Tag{Kind: k, Nonce: s.survey.Request.Nonce, From: s.survey.Self, Index: uint32(s.device.Index)}
}

const questionRounds = 2 // so often it is asked who has each address

// send sends everything in each round.
func (s *seat) send(ctx context.Context, conn *packet.Conn) {
	frames := s.frames()
	messages := s.messages()
	defer func() {
		for _, m := range messages {
			m.close()
		}
	}()
	for i := range Rounds {
		if !wait(ctx, time.Until(s.begun.Add(Round(s.survey.Request.Measure, i)))) {
			return
		}
		for _, f := range frames {
			s.sendFrame(conn, f)
		}
		for _, m := range messages {
			if err := m.send(); err != nil {
				s.out.unlooked(m.id(), s.device.Name, "cannot be sent: "+err.Error())
			}
		}
		if i < questionRounds {
			s.ask(ctx, conn)
		}
	}
	<-ctx.Done()
}

func (s *seat) sendFrame(conn *packet.Conn, frame []byte) {
	if err := conn.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		return // the socket is closed
	}
	_, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
	// ENOBUFS is a full queue, and what this host's own fence keeps in.
	if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.out.unlooked("lan", s.device.Name, "a frame cannot be sent: "+err.Error())
	}
}

// frames are those of a round: tests, and announcements of this node's test addresses.
func (s *seat) frames() (out [][]byte) {
	out = append(out, s.tag(doctor.Broadcast).Frame(s.mac, 60), s.tag(doctor.Full).Frame(s.mac, 14+s.device.MTU))
	if s.device.VMAC {
		out = append(out, s.tag(doctor.Forged).Frame(doctor.ForgedMAC(s.survey.Self), 60))
	}
	number := s.survey.number()
	if number < 0 {
		return out
	}
	four, six := doctor.TestAddresses(s.survey.Request.Nonce, number)
	add := func(f []byte, err error) {
		if err != nil {
			s.out.unlooked("garp", s.device.Name, err.Error())
			return
		}
		out = append(out, f)
	}
	if s.serves(netip.Addr.Is4) {
		add(vipctl.GratuitousARP(four, s.mac, vipctl.Request))
		add(vipctl.GratuitousARP(four, s.mac, vipctl.Reply))
	}
	if s.serves(netip.Addr.Is6) {
		add(vipctl.UnsolicitedNA(six, s.mac, false, vipctl.AllNodes))
	}
	return out
}

func (s *seat) serves(family func(netip.Addr) bool) bool {
	return slices.ContainsFunc(s.device.Serves, func(text string) bool {
		a, err := netip.ParseAddr(text)
		return err == nil && family(a)
	})
}

const (
	maxQuestions = 256 // addresses of a device that are asked about
	questionsPer = 4   // so many in a millisecond
)

// ask asks who has each virtual address, changing nobody's cache.
func (s *seat) ask(ctx context.Context, conn *packet.Conn) {
	for i, text := range s.device.Serves {
		if i == maxQuestions {
			s.out.unlooked("duplicate-address", s.device.Name, fmt.Sprintf("only the first %d addresses were asked about", maxQuestions))
			return
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		question := vipctl.ProbeARP
		if addr.Is6() {
			question = vipctl.NeighborSolicitation
		}
		frame, err := question(addr, s.mac)
		if err != nil {
			s.out.unlooked("duplicate-address", s.device.Name, err.Error())
			continue
		}
		s.sendFrame(conn, frame)
		if i%questionsPer == questionsPer-1 && !wait(ctx, time.Millisecond) {
			return
		}
	}
}
