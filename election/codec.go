package election

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/quorate/quorate/fsm"
)

// MaxDatagram is the longest lease datagram, in bytes: with the encryption round
// it, it still fits an Ethernet frame.
const MaxDatagram = 1200

// MaxVoters is the most voters that a leader gives a cluster. Three of seven can be lost;
// more would only make each commit and each lease wait for more answers. Further nodes
// get the log without a vote, and one of them the vote of a voter that is removed.
const MaxVoters = 7

// Every datagram starts with the magic, the version of this format, its kind, the
// cluster and the sender; numbers are big-endian, times are nanoseconds.
const (
	magic       = "qL"
	wireVersion = 2
)

const (
	_ byte = iota
	kindRenewal
	kindAnswer
	kindRelease
)

// Limits of the decoder: more than any real cluster has, and little enough that
// no datagram makes it allocate much.
const (
	maxVoters = 32
	maxGroups = 512
)

// ErrMalformed is wrapped by every error of Decode: the datagram is not ours, is
// cut off, or breaks a bound. It is to be counted and dropped.
var ErrMalformed = errors.New("malformed lease datagram")

// AppendRenewal appends the datagrams of a renewal, each at most MaxDatagram long
// and carrying the same stamp.
func AppendRenewal(out [][]byte, r Renewal) [][]byte {
	head := appendSender(nil, kindRenewal, r.Sender)
	parts := len(head)
	head = append(head, 0, 0)
	head = appendStamp(head, r.Stamp)
	head = appendTimes(head, r.Lease, r.Grace)
	head = binary.BigEndian.AppendUint64(head, r.Applied)
	head = append(head, bits(r.Health.VoterReady, r.Health.Stopping))
	head = append(head, byte(len(r.Hears)))
	for _, h := range r.Hears {
		head = append(head, h.Node[:]...)
		head = appendTimes(head, h.Ago)
	}
	head = appendSources(head, r.Sources)
	before := len(out)
	out = appendSplit(out, head, len(r.Groups), func(b []byte, i int) []byte {
		g := r.Groups[i]
		b = appendName(b, g.Group)
		b = binary.BigEndian.AppendUint64(b, g.Epoch)
		b = append(b, byte(g.Phase), byte(g.Unfit))
		b = binary.BigEndian.AppendUint16(b, uint16(g.Adjust))
		return appendTimes(b, g.Since)
	})
	for i, d := range out[before:] {
		d[parts], d[parts+1] = byte(i), byte(len(out)-before)
	}
	return out
}

// AppendAnswer appends the datagrams of an answer.
func AppendAnswer(out [][]byte, a Answer) [][]byte {
	head := appendSender(nil, kindAnswer, a.Sender)
	head = appendStamp(head, a.Echo)
	head = appendTimes(head, a.Lease)
	head = append(head, bits(a.Log.LastCommitted))
	head = appendSet(head, a.Log.Last)
	head = appendSet(head, a.Log.Previous)
	return appendSplit(out, head, len(a.Groups), func(b []byte, i int) []byte {
		g := a.Groups[i]
		b = appendName(b, g.Group)
		b = binary.BigEndian.AppendUint64(b, g.Epoch)
		b = append(b, byte(g.Verdict))
		return appendTimes(b, g.Blocked)
	})
}

// AppendRelease appends the datagrams of a release.
func AppendRelease(out [][]byte, r Release) [][]byte {
	head := appendSender(nil, kindRelease, r.Sender)
	head = append(head, r.Boot[:]...)
	return appendSplit(out, head, len(r.Groups), func(b []byte, i int) []byte {
		b = appendName(b, r.Groups[i].Group)
		return binary.BigEndian.AppendUint64(b, uint64(r.Groups[i].At))
	})
}

// appendSplit puts n items behind copies of head, as many in each datagram as fit.
// A message without items is one datagram all the same.
func appendSplit(out [][]byte, head []byte, n int, item func([]byte, int) []byte) [][]byte {
	start := func() []byte { return append(append(make([]byte, 0, MaxDatagram), head...), 0, 0) }
	b, count := start(), 0
	flush := func() {
		binary.BigEndian.PutUint16(b[len(head):], uint16(count))
		out = append(out, b)
	}
	for i := range n {
		next := item(b, i)
		if len(next) > MaxDatagram && count > 0 {
			flush()
			b, count = start(), 0
			next = item(b, i)
		}
		b = next
		count++
	}
	flush()
	return out
}

func appendSender(b []byte, kind byte, s Sender) []byte {
	b = append(b, magic...)
	b = append(b, wireVersion, kind)
	b = append(b, s.Cluster[:]...)
	return append(b, s.From[:]...)
}

func appendStamp(b []byte, s Stamp) []byte {
	return binary.BigEndian.AppendUint64(append(b, s.Boot[:]...), uint64(s.At))
}

// appendTimes writes durations within what the decoder takes: one that is out of
// range must not make the whole datagram worthless.
func appendTimes(b []byte, ds ...time.Duration) []byte {
	for _, d := range ds {
		b = binary.BigEndian.AppendUint64(b, uint64(min(max(d, 0), maxDuration)))
	}
	return b
}

func appendName(b []byte, name string) []byte {
	name = name[:min(len(name), fsm.MaxGroupName)]
	return append(append(b, byte(len(name))), name...)
}

// appendSources writes addresses without their zones, each behind its length.
func appendSources(b []byte, sources []netip.Addr) []byte {
	sources = sources[:min(len(sources), MaxSources)]
	b = append(b, byte(len(sources)))
	for _, a := range sources {
		raw := a.AsSlice()
		b = append(append(b, byte(len(raw))), raw...)
	}
	return b
}

func appendSet(b []byte, s VoterSet) []byte {
	b = binary.BigEndian.AppendUint64(b, s.Term)
	b = binary.BigEndian.AppendUint64(b, s.Index)
	b = append(b, byte(len(s.Voters)))
	for _, id := range s.Voters {
		b = append(b, id[:]...)
	}
	return b
}

func bits(flags ...bool) (b byte) {
	for i, f := range flags {
		if f {
			b |= 1 << i
		}
	}
	return b
}

// Decode reads one datagram: a Renewal, an Answer or a Release. The result shares
// nothing with b.
func Decode(b []byte) (any, error) {
	d := &decoder{b: b}
	if string(d.take(len(magic))) != magic {
		return nil, fmt.Errorf("%w: not one of ours", ErrMalformed)
	}
	if v := d.byte(); v != wireVersion {
		return nil, fmt.Errorf("%w: format version %d, this version speaks %d", ErrMalformed, v, wireVersion)
	}
	kind := d.byte()
	var s Sender
	d.id((*[16]byte)(&s.Cluster))
	d.id((*[16]byte)(&s.From))
	var msg any
	switch kind {
	case kindRenewal:
		msg = d.renewal(s)
	case kindAnswer:
		msg = d.answer(s)
	case kindRelease:
		msg = d.release(s)
	default:
		return nil, fmt.Errorf("%w: kind %d", ErrMalformed, kind)
	}
	if d.bad != "" {
		return nil, fmt.Errorf("%w: %s", ErrMalformed, d.bad)
	}
	if len(d.b) != 0 {
		return nil, fmt.Errorf("%w: %d bytes too many", ErrMalformed, len(d.b))
	}
	return msg, nil
}

// A decoder reads fields off the front of b; after the first failure it yields zeros.
type decoder struct {
	b   []byte
	bad string
}

func (d *decoder) fail(why string) {
	if d.bad == "" {
		d.bad = why
	}
	d.b = nil
}

func (d *decoder) take(n int) []byte {
	if len(d.b) < n {
		d.fail("cut off")
		return make([]byte, n)
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) byte() byte     { return d.take(1)[0] }
func (d *decoder) uint16() uint16 { return binary.BigEndian.Uint16(d.take(2)) }
func (d *decoder) uint64() uint64 { return binary.BigEndian.Uint64(d.take(8)) }
func (d *decoder) id(p *[16]byte) { copy(p[:], d.take(16)) }

// maxDuration bounds every duration on the wire: none that we state is near it,
// and sums of a few stay far from overflow.
const maxDuration = 365 * 24 * time.Hour

func (d *decoder) duration() time.Duration {
	v := d.uint64()
	if v > uint64(maxDuration) {
		d.fail("a duration out of range")
		return 0
	}
	return time.Duration(v)
}

func (d *decoder) instant() Instant {
	v := d.uint64()
	if v > 1<<62 {
		d.fail("an instant out of range")
		return 0
	}
	return Instant(v)
}

func (d *decoder) stamp() (s Stamp) {
	d.id((*[16]byte)(&s.Boot))
	s.At = d.instant()
	return s
}

func (d *decoder) name() string {
	n := int(d.byte())
	if n == 0 || n > fsm.MaxGroupName {
		d.fail("a group name out of range")
		return ""
	}
	return string(d.take(n))
}

func (d *decoder) set() (s VoterSet) {
	s.Term, s.Index = d.uint64(), d.uint64()
	n := int(d.byte())
	if n > maxVoters {
		d.fail("too many voters")
		return VoterSet{}
	}
	for range n {
		var id fsm.InstanceID
		d.id((*[16]byte)(&id))
		s.Voters = append(s.Voters, id)
	}
	return s
}

func (d *decoder) enum(largest byte, what string) byte {
	v := d.byte()
	if v > largest {
		d.fail("unknown " + what)
	}
	return v
}

func (d *decoder) groups() int {
	n := int(d.uint16())
	if n > maxGroups {
		d.fail("too many groups")
		return 0
	}
	return n
}

func (d *decoder) renewal(s Sender) Renewal {
	r := Renewal{Sender: s, Part: d.byte(), Parts: d.byte(), Stamp: d.stamp(), Lease: d.duration(), Grace: d.duration(), Applied: d.uint64()}
	if r.Part >= r.Parts {
		d.fail("a part out of range")
	}
	flags := d.byte()
	r.Health = Health{VoterReady: flags&1 != 0, Stopping: flags&2 != 0}
	n := int(d.byte())
	if n > maxVoters {
		d.fail("too many nodes")
		return r
	}
	for range n {
		var h Hearsay
		d.id((*[16]byte)(&h.Node))
		h.Ago = d.duration()
		r.Hears = append(r.Hears, h)
	}
	r.Sources = d.sources()
	for range d.groups() {
		r.Groups = append(r.Groups, GroupState{
			Group: d.name(), Epoch: d.uint64(),
			Phase:  Phase(d.enum(byte(PhaseYielded), "phase")),
			Unfit:  Unfit(d.enum(byte(UnfitCheck), "reason")),
			Adjust: int16(d.uint16()),
			Since:  d.duration(),
		})
	}
	return r
}

func (d *decoder) sources() []netip.Addr {
	n := int(d.byte())
	if n > MaxSources {
		d.fail("too many sources")
		return nil
	}
	var out []netip.Addr
	for range n {
		a, ok := netip.AddrFromSlice(d.take(int(d.byte())))
		if !ok {
			d.fail("a source that is no address")
			return nil
		}
		out = append(out, a)
	}
	return out
}

func (d *decoder) answer(s Sender) Answer {
	a := Answer{Sender: s, Echo: d.stamp(), Lease: d.duration()}
	a.Log.LastCommitted = d.byte()&1 != 0
	a.Log.Last, a.Log.Previous = d.set(), d.set()
	for range d.groups() {
		a.Groups = append(a.Groups, GroupAnswer{
			Group: d.name(), Epoch: d.uint64(),
			Verdict: Verdict(d.enum(byte(Renewed), "verdict")),
			Blocked: d.duration(),
		})
	}
	return a
}

func (d *decoder) release(s Sender) Release {
	r := Release{Sender: s}
	d.id((*[16]byte)(&r.Boot))
	for range d.groups() {
		r.Groups = append(r.Groups, GroupRelease{Group: d.name(), At: d.instant()})
	}
	return r
}
