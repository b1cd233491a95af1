// Package hooks tells the world outside what becomes of the groups on this node: it runs
// the operator's programs, and writes lines to a pipe for consumers that know keepalived's.
//
// The programs of one group run one after the other, in the order of its transitions, and
// those of different groups beside each other. Nothing here keeps the agent waiting.
package hooks

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/program"
)

// The states of a group on this node, as Transition has them.
const (
	Active = "active" // this node answers for its addresses
	Backup = "backup" // it does not
	Fault  = "fault"  // it could not
)

const (
	// maxRunning is how many programs run at a time.
	maxRunning = 32
	// stopWait is for how long, at the end, programs that run or wait may go on.
	stopWait = 8 * time.Second
	// dieWait is for how long a program that was killed is waited for. One that hangs
	// in the kernel is left behind.
	dieWait = time.Second
	// usualTimeout is for hooks of a document that came without one.
	usualTimeout = 30 * time.Second
)

// A Transition is a change of a group's state on this node.
type Transition struct {
	Group string
	// To and From are states. Equal ones repeat the state after a heal, for programs that
	// tell somebody who may have heard another node in between.
	To, From  string
	Epoch     uint64
	Reason    string
	Addresses []netip.Prefix
}

// Options is what a Runner needs. All fields but FIFO are needed.
type Options struct {
	Cluster string // may be empty where there is none
	Node    string
	// FIFO is the path of a named pipe for lines as keepalived writes them; empty: none.
	// SetFIFO changes it later.
	FIFO string
	// Priority is the number at the end of such a line.
	Priority func(fsm.Group) uint8
	Log      *slog.Logger
}

// A Runner runs hooks. Update and Transition may be called from any goroutine.
type Runner struct {
	opt      Options
	fifo     fifo
	running  chan struct{} // a token for each program that runs
	poke     chan struct{} // holds a token while there is something to start
	stopWait time.Duration

	mu     sync.Mutex
	doc    fsm.Document
	gone   map[string]fsm.Group // left the document while they were not in Backup
	open   map[string]bool      // by group: not in Backup, as of the last transition
	queues map[string]*queue
	lines  lines
}

// New returns a Runner that knows of no hooks; Run works.
func New(opt Options) *Runner {
	return &Runner{
		opt: opt, fifo: fifo{path: opt.FIFO}, running: make(chan struct{}, maxRunning), poke: make(chan struct{}, 1), stopWait: stopWait,
		gone: map[string]fsm.Group{}, open: map[string]bool{}, queues: map[string]*queue{},
	}
}

// Update has the hooks of this document run for later transitions. A group that is in
// it no more keeps its own until it is in Backup here.
func (r *Runner) Update(doc fsm.Document) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.doc.Groups {
		if _, stays := doc.Group(g.Name); !stays && r.open[g.Name] {
			r.gone[g.Name] = g
		}
	}
	for _, g := range doc.Groups {
		delete(r.gone, g.Name)
	}
	r.doc = doc
}

// SetFIFO has later lines go to the pipe at another path; empty: nowhere. It may be called
// from any goroutine.
func (r *Runner) SetFIFO(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opt.FIFO = path
	r.wake()
}

// wake has Run look at what there is to do.
func (r *Runner) wake() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// Transition has the hooks for it run: the group's own first, then the cluster's. It
// does not wait for them.
func (r *Runner) Transition(t Transition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g, ok := r.doc.Group(t.Group)
	if !ok {
		if g, ok = r.gone[t.Group]; !ok {
			g = fsm.Group{Name: t.Group}
		}
	}
	if t.To == Backup {
		delete(r.open, t.Group)
		delete(r.gone, t.Group)
	} else {
		r.open[t.Group] = true
	}
	if r.opt.FIFO != "" {
		r.lines.add(line(t, r.opt.Priority(g)))
	}
	r.enqueue(t, g.Hooks, r.doc.Hooks)
	r.wake()
}

// enqueue puts a transition into its group's queue, if a program is to hear of it.
func (r *Runner) enqueue(t Transition, all ...fsm.Hooks) {
	j := job{t: t}
	for _, h := range all {
		if argv := programFor(h, t.To); len(argv) > 0 {
			j.run = append(j.run, invocation{argv, cmp.Or(h.Timeout, usualTimeout)})
		}
	}
	if j.run == nil {
		return
	}
	q := r.queues[t.Group]
	if q == nil {
		q = &queue{}
		r.queues[t.Group] = q
	}
	if skipped := q.add(j); skipped > 0 {
		r.opt.Log.Warn("the hooks of a group are slower than its changes: those in between were left out",
			"group", t.Group, "skipped", skipped)
	}
}

// An invocation is a program and how long it may take.
type invocation struct {
	argv    []string
	timeout time.Duration
}

func programFor(h fsm.Hooks, state string) []string {
	switch state {
	case Active:
		return h.Active
	case Backup:
		return h.Backup
	case Fault:
		return h.Fault
	}
	return nil
}

// Run works until ctx ends. What was asked for until then is still done, for at most
// stopWait; what still runs after that is killed. It never fails. Call it once.
func (r *Runner) Run(ctx context.Context) error {
	r.openFIFO()
	defer r.fifo.close()
	// The programs outlive ctx by stopWait.
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var work sync.WaitGroup
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-r.poke:
			r.start(late, &work)
		}
	}
	r.start(late, &work) // what came just before
	done := make(chan struct{})
	go func() {
		defer close(done)
		work.Wait()
	}()
	select {
	case <-done:
	case <-time.After(r.stopWait):
		r.opt.Log.Warn("hooks have not ended in time and are killed", "waited", r.stopWait)
		cancel()
		<-done
	}
	return nil
}

// openFIFO opens the pipe, where there is to be one.
func (r *Runner) openFIFO() {
	if r.fifo.path == "" {
		return
	}
	if err := r.fifo.open(); err != nil {
		r.opt.Log.Warn("cannot open the pipe for notifications", "error", err)
	}
}

// start writes the lines that wait, and has somebody work off each queue.
func (r *Runner) start(ctx context.Context, work *sync.WaitGroup) {
	r.mu.Lock()
	out, dropped := r.lines.take()
	path := r.opt.FIFO
	for group, q := range r.queues {
		if !q.busy {
			q.busy = true
			work.Go(func() { r.serve(ctx, group, q) })
		}
	}
	r.mu.Unlock()
	if path != r.fifo.path {
		r.fifo.close()
		r.fifo.path = path
		r.openFIFO()
	}
	if path == "" {
		return // what was to go to a pipe that is none any more
	}
	if dropped += r.fifo.write(out); dropped > 0 {
		r.fifo.dropped += dropped
		r.opt.Log.Warn("nobody reads the pipe for notifications: lines were dropped", "fifo", path,
			"lines", dropped, "in_all", r.fifo.dropped, "error", r.fifo.err)
	}
}

// serve works a group's queue off.
func (r *Runner) serve(ctx context.Context, group string, q *queue) {
	for {
		r.mu.Lock()
		j, ok := q.next()
		if !ok {
			delete(r.queues, group) // whoever comes later makes a new one
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		for _, i := range j.run {
			r.running <- struct{}{}
			r.invoke(ctx, j, i)
			<-r.running
		}
	}
}

// invoke runs one program to its end, and says how it went.
func (r *Runner) invoke(ctx context.Context, j job, i invocation) {
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	log := r.opt.Log.With("group", j.t.Group, "state", j.t.To, "epoch", j.t.Epoch, "program", i.argv[0])
	type result struct {
		output string
		err    error
	}
	ended := make(chan result, 1)
	began := time.Now()
	stdin, env := r.tell(j)
	go func() {
		output, err := program.Run(ctx, program.Job{Argv: i.argv, Env: env, Stdin: stdin})
		ended <- result{output, err}
	}()
	var got result
	select {
	case got = <-ended:
	case <-ctx.Done():
		select {
		case got = <-ended:
		case <-time.After(dieWait):
			got.err = errors.New("it was killed and has not died: it hangs in the kernel")
		}
	}
	took := time.Since(began).Round(time.Millisecond)
	said := program.OneLine(got.output, program.MaxOutput)
	switch {
	case got.err == nil:
		log.Debug("hook ended", "took", took, "printed", said)
	case errors.Is(got.err, program.ErrKilled) && ctx.Err() != nil:
		log.Warn("hook was killed", "took", took, "timeout", i.timeout, "printed", said)
	default:
		log.Warn("hook failed", "took", took, "error", got.err, "printed", said)
	}
}

// A Message is what a hook reads from its standard input, as one line of JSON.
type Message struct {
	Cluster   string         `json:"cluster"`
	Node      string         `json:"node"`
	Group     string         `json:"group"`
	State     string         `json:"state"`
	Previous  string         `json:"previous"` // the same as State after a heal
	Epoch     uint64         `json:"epoch"`
	Reason    string         `json:"reason"`
	Addresses []netip.Prefix `json:"addresses"`
	// Skipped counts transitions right before this one that no hook heard of, because
	// too many waited.
	Skipped int `json:"skipped,omitempty"`
}

// tell is what a program is told of a transition: on its standard input, and in the
// environment.
func (r *Runner) tell(j job) (stdin []byte, env []string) {
	m := Message{
		Cluster: r.opt.Cluster, Node: r.opt.Node, Group: j.t.Group, State: j.t.To, Previous: j.t.From,
		Epoch: j.t.Epoch, Reason: j.t.Reason, Addresses: j.t.Addresses, Skipped: j.skipped,
	}
	if m.Addresses == nil {
		m.Addresses = []netip.Prefix{}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("hooks: a message of strings and numbers cannot be encoded: %v", err))
	}
	addresses := make([]string, 0, len(m.Addresses))
	for _, p := range m.Addresses {
		addresses = append(addresses, p.String())
	}
	return append(b, '\n'), []string{
		"QUORATE_CLUSTER=" + m.Cluster, "QUORATE_NODE=" + m.Node, "QUORATE_GROUP=" + m.Group,
		"QUORATE_STATE=" + m.State, "QUORATE_PREVIOUS=" + m.Previous, "QUORATE_EPOCH=" + strconv.FormatUint(m.Epoch, 10),
		"QUORATE_REASON=" + m.Reason, "QUORATE_ADDRESSES=" + strings.Join(addresses, " "),
	}
}
