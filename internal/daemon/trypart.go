package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/try"
	"github.com/quorate/quorate/vipctl/kernel"
)

const (
	// A watch is ready when its address was answered for so long, and fails after the second.
	readyAfter, readyTime = 200 * time.Millisecond, 2 * time.Second
	// It ends early when a new owner has answered for so long without a longer break.
	steadyFor, steadyGap = time.Second, 100 * time.Millisecond
	// watchPoll is between two looks at the cluster.
	watchPoll = 25 * time.Millisecond
	// dieAfter is how long the answer of a node that kills itself has to leave.
	dieAfter = 50 * time.Millisecond
)

// errWatching means that this node measures for somebody else now.
var errWatching = errors.New("a quorate doctor or another quorate try is at work; try again in some seconds")

// A tryQuestion asks a node for one of its parts in a fault on purpose.
type tryQuestion struct {
	Seat   *trySeat   `json:"seat,omitempty"`   // from where it would ask
	Watch  *tryWatch  `json:"watch,omitempty"`  // ask, and answer when that has begun
	Result *tryResult `json:"result,omitempty"` // what came of it, when it is over
	Die    *tryDie    `json:"die,omitempty"`
}

type trySeat struct {
	Group string `json:"group"`
}

type tryWatch struct {
	Nonce uint64 `json:"nonce"`
	Group string `json:"group"`
	Epoch uint64 `json:"epoch"` // before the fault
	ForMS int64  `json:"for_ms"`
}

type tryResult struct {
	Nonce uint64 `json:"nonce"`
	Stop  bool   `json:"stop,omitempty"` // end it now
}

// A tryDie has the owner of a group under that epoch kill itself.
type tryDie struct {
	Group string `json:"group"`
	Epoch uint64 `json:"epoch"`
	By    string `json:"by"` // user@node
}

type tryReply struct {
	Device string    `json:"device,omitempty"`
	MAC    string    `json:"mac,omitempty"`
	Seen   *try.Seen `json:"seen,omitempty"`
	Own    bool      `json:"own,omitempty"` // it became the owner, and cannot tell
}

// tried is this node's part in a fault on purpose.
func (n *node) tried(ctx context.Context, question json.RawMessage) (json.RawMessage, error) {
	var q tryQuestion
	if err := json.Unmarshal(question, &q); err != nil {
		return nil, fmt.Errorf("understand the question: %w", err)
	}
	reply, err := n.try(ctx, q)
	if err != nil {
		return nil, err
	}
	return json.Marshal(reply)
}

func (n *node) try(ctx context.Context, q tryQuestion) (tryReply, error) {
	if n.shadow != nil {
		return tryReply{}, errShadow
	}
	switch {
	case q.Seat != nil:
		_, l, err := n.seatFor(q.Seat.Group)
		return tryReply{Device: l.Name, MAC: l.MAC.String()}, err
	case q.Watch != nil:
		return tryReply{}, n.watch(ctx, *q.Watch)
	case q.Result != nil:
		return n.lookouts.result(ctx, *q.Result)
	case q.Die != nil:
		return tryReply{}, n.die(ctx, *q.Die)
	}
	return tryReply{}, errors.New("the question asks for nothing that this version knows")
}

// seatFor finds a group's first address, and the device of this host on its LAN.
func (n *node) seatFor(group string) (addr netip.Addr, l kernel.LinkInfo, err error) {
	doc := n.document()
	g, ok := doc.Group(group)
	if !ok {
		return addr, l, fsm.UnknownGroup(doc, group)
	}
	addr = g.Addresses[0].Addr()
	for _, name := range []string{g.Specs[addr].Interface, g.Interface} {
		if name == "" {
			continue
		}
		if l, err = n.kernel.Link(name); err == nil || !errors.Is(err, kernel.ErrNoLink) {
			return addr, l, err
		}
	}
	name, err := n.kernel.LinkFor(addr) // a witness may name its devices otherwise
	if err != nil {
		return addr, l, err
	}
	l, err = n.kernel.Link(name)
	return addr, l, err
}

// die has this daemon kill itself outright, so that what protects is the fence and the
// voters, as it would be after any other sudden end.
func (n *node) die(ctx context.Context, q tryDie) error {
	st, err := n.agent.Status(ctx)
	if err != nil {
		return err
	}
	if v, _ := statusOf(st, q.Group); v.Owner != st.Node || v.Epoch != q.Epoch {
		return fmt.Errorf("%s has changed hands: its owner is %q by epoch %d now, and the fault was for the owner by epoch %d", q.Group, v.Owner, v.Epoch, q.Epoch)
	}
	n.log.Warn("this daemon kills itself: a fault on purpose was asked for", "group", q.Group, "by", q.By)
	time.AfterFunc(dieAfter, n.kill)
	return nil
}

// killSelf ends this process as kill -9 does.
func killSelf() { _ = unix.Kill(unix.Getpid(), unix.SIGKILL) } // it cannot fail for oneself

func statusOf(st core.Status, name string) (core.VIPStatus, bool) {
	for _, v := range st.VIPs {
		if v.Name == name {
			return v, true
		}
	}
	return core.VIPStatus{}, false
}

// lookouts runs the watches that are asked of this node, one at a time, and remembers the
// last.
type lookouts struct {
	jobs chan *watch
	mu   sync.Mutex
	last *watch
}

func newLookouts() *lookouts { return &lookouts{jobs: make(chan *watch)} }

// run runs them until ctx ends.
func (w *lookouts) run(ctx context.Context) error {
	for {
		select {
		case job := <-w.jobs:
			job.run(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *lookouts) remember(job *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = job
}

// result waits until a watch is over.
func (w *lookouts) result(ctx context.Context, q tryResult) (tryReply, error) {
	w.mu.Lock()
	last := w.last
	w.mu.Unlock()
	if last == nil || last.nonce != q.Nonce {
		return tryReply{}, errors.New("this node does not watch that, or has watched something else since")
	}
	if q.Stop {
		last.stop()
	}
	select {
	case <-last.done:
	case <-ctx.Done():
		return tryReply{}, ctx.Err()
	}
	if last.err != nil {
		return tryReply{}, last.err
	}
	seen := try.Judge(last.taken())
	return tryReply{Seen: &seen, Own: last.own}, nil
}

// A watch asks who has an address, from before a fault until a new owner answers steadily.
type watch struct {
	node  *node
	nonce uint64
	group string
	epoch uint64
	addr  netip.Addr
	link  string
	lasts time.Duration

	stop    func() // ends it; may be called from any goroutine
	stopped chan struct{}

	ready chan struct{} // closed when the address is answered
	done  chan struct{} // closed when it is over; the two below are written before
	err   error
	own   bool // this node became the owner

	mu     sync.Mutex
	begun  time.Time
	record try.Record
}

// watch begins one, and returns when its address is answered.
func (n *node) watch(ctx context.Context, q tryWatch) error {
	addr, l, err := n.seatFor(q.Group)
	if err != nil {
		return err
	}
	if lasts := time.Duration(q.ForMS) * time.Millisecond; lasts < api.MinTry || lasts > api.MaxTry {
		return fmt.Errorf("watching for %s: want %s to %s", lasts, api.MinTry, api.MaxTry)
	}
	w := newWatch(n, q, addr, l.Name)
	select {
	case n.lookouts.jobs <- w:
	default:
		return errWatching
	}
	n.lookouts.remember(w)
	select {
	case <-w.ready:
		return nil
	case <-w.done:
		return cmp.Or(w.err, errWatching) // stopped before it was ready
	case <-ctx.Done():
		w.stop()
		return ctx.Err()
	}
}

func newWatch(n *node, q tryWatch, addr netip.Addr, link string) *watch {
	w := &watch{node: n, nonce: q.Nonce, group: q.Group, epoch: q.Epoch, addr: addr, link: link, lasts: time.Duration(q.ForMS) * time.Millisecond,
		stopped: make(chan struct{}), ready: make(chan struct{}), done: make(chan struct{}), begun: time.Now()}
	w.stop = sync.OnceFunc(func() { close(w.stopped) })
	return w
}

// run asks until the watch is over.
func (w *watch) run(ctx context.Context) {
	defer close(w.done)
	if !w.node.surveying.TryLock() { // the doctor's questions look like these, and their answers too
		w.err = errWatching
		return
	}
	defer w.node.surveying.Unlock()
	g, within := errgroup.WithContext(ctx)
	within, cancel := context.WithCancel(within)
	defer cancel()
	g.Go(func() error {
		return w.node.kernel.Inquire(within, w.link, w.addr, try.Every, w.asked, w.answered)
	})
	g.Go(func() error {
		defer cancel()
		return w.follow(within)
	})
	if w.err = g.Wait(); w.err == nil && len(w.taken().Answers) == maxAnswers {
		w.err = errFlood
	}
}

// follow returns when the watch is over.
func (w *watch) follow(ctx context.Context) error {
	tick := time.NewTicker(watchPoll)
	defer tick.Stop()
	over := time.NewTimer(readyTime)
	defer over.Stop()
	var opened time.Time // when the new owner was first known to hold it
	for ready := false; ; {
		select {
		case <-tick.C:
		case <-over.C:
			if !ready {
				return fmt.Errorf("nobody answers steadily for %s on %s, even before the fault", w.addr, w.link)
			}
			return nil
		case <-w.stopped:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		if !ready {
			if ready = w.taken().Steady(readyAfter, steadyGap); ready {
				over.Reset(w.lasts)
				close(w.ready)
			}
			continue
		}
		if ended, err := w.ended(ctx, &opened); ended || err != nil {
			return err
		}
	}
}

// ended reports whether another owner has answered for long enough, or this node is it.
func (w *watch) ended(ctx context.Context, opened *time.Time) (bool, error) {
	st, err := w.node.agent.Status(ctx)
	if err != nil {
		return false, err
	}
	v, _ := statusOf(st, w.group)
	switch {
	case v.Epoch == w.epoch:
		return false, nil
	case v.Owner == st.Node:
		w.own = true
		return true, nil
	case !v.Open:
		*opened = time.Time{}
		return false, nil
	case opened.IsZero():
		*opened = time.Now()
	}
	return time.Since(*opened) > steadyFor && w.taken().Steady(steadyFor, steadyGap), nil
}

func (w *watch) asked(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.record.Asked = append(w.record.Asked, at.Sub(w.begun))
}

// maxAnswers is above what three nodes that ask, and a second owner, lead to.
const maxAnswers = 20_000

var errFlood = fmt.Errorf("more than %d answers came: something floods the LAN with them", maxAnswers)

func (w *watch) answered(at time.Time, mac net.HardwareAddr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.record.Answers) < maxAnswers {
		w.record.Answers = append(w.record.Answers, try.Answer{At: at.Sub(w.begun), MAC: mac.String()})
	}
}

// taken is what was recorded so far.
func (w *watch) taken() try.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return try.Record{Asked: slices.Clone(w.record.Asked), Answers: slices.Clone(w.record.Answers)}
}
