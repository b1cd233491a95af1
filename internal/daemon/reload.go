package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/config"
)

// A reloader follows the configuration file while the daemon runs. Only its own
// goroutine writes.
type reloader struct {
	now config.Config // what of the file is in force; Document as the file last had it
	// problems are what a status says of the file; nil: nothing.
	problems atomic.Pointer[[]string]
	webs     chan *api.Web // another server for http; nil: none any more
}

func newReloader(cfg *config.Config) *reloader {
	return &reloader{now: *cfg, webs: make(chan *api.Web)}
}

// A difference is a key of the file that is not in force as the file has it.
type difference struct {
	key, now, file string
	do             string // how it comes into force; empty: it can while the daemon runs
}

// differences compares what is in force with the file. formed: there is a cluster, which
// knows its nodes by itself.
func differences(now, file *config.Config, formed bool) []difference {
	var out []difference
	differ := func(key string, a, b any, do string) {
		if !reflect.DeepEqual(a, b) {
			out = append(out, difference{key, inWords(a), inWords(b), do})
		}
	}
	const restart = "restart the daemon"
	differ("election", now.Election, file.Election, "stop all nodes, and start them with the new one")
	if len(out) > 0 {
		return out // what belongs to one of the two means nothing in the other
	}
	differ("cluster", now.Cluster, file.Cluster, restart+"; with another name it is a node of another cluster")
	differ("node", now.Node, file.Node, restart)
	differ("address", now.Address, file.Address, restart)
	peers := ""
	if !formed {
		peers = restart + ": the cluster is not formed yet, and all nodes must name the same peers for that"
	}
	differ("peers", now.Peers, file.Peers, peers)
	differ("key_file", now.KeyFile, file.KeyFile, restart)
	differ("tls", now.TLS, file.TLS, restart)
	differ("data_dir", now.DataDir, file.DataDir, restart+"; move the directory before, or it joins as a new node")
	differ("role", now.Role, file.Role, restart)
	differ("lease", now.Lease, file.Lease, restart+"; one node after the other")
	if now.Renew != now.Lease/3 || file.Renew != file.Lease/3 { // else it only follows the lease
		differ("renew", now.Renew, file.Renew, restart)
	}
	differ("fence", now.Fence, file.Fence, restart)
	differ("socket", now.Socket, file.Socket, restart)
	differ("log", now.Log, file.Log, "")
	differ("fifo", now.FIFO, file.FIFO, "")
	http := ""
	if samePort(now.HTTP, file.HTTP) {
		http = restart + ": the port is in use by the one that is served now"
	}
	differ("http", now.HTTP, file.HTTP, http)
	return out
}

// inWords is a value as a log shows it.
func inWords(v any) string {
	switch v := v.(type) {
	case *config.TLSFiles:
		if v == nil {
			return "derived from key_file"
		}
		return fmt.Sprintf("%+v", *v)
	case config.Log:
		format := "text"
		if v.JSON {
			format = "json"
		}
		return strings.ToLower(v.Level.String()) + ", " + format
	case string:
		if v == "" {
			return "none"
		}
	}
	return fmt.Sprint(v)
}

func samePort(a, b string) bool {
	x, errX := netip.ParseAddrPort(a)
	y, errY := netip.ParseAddrPort(b)
	return errX == nil && errY == nil && x.Port() == y.Port()
}

// followFile reads the file again whenever it is asked to, until the node is to end: then
// READY=1 would tell systemd that it goes on.
func (n *node) followFile(ctx context.Context) error {
	for {
		select {
		case <-n.opt.Reload:
		case <-n.opt.Stop:
			return nil
		case <-ctx.Done():
			return nil
		}
		select {
		case <-n.opt.Stop:
			return nil
		default:
			n.reload(ctx)
		}
	}
}

// reload brings into force of the file what can be while the daemon runs, and names the
// rest. A file with an error changes nothing.
func (n *node) reload(ctx context.Context) {
	notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", monotonicMicros()))
	defer notify("READY=1")
	cfg, err := n.opt.Load()
	if err == nil {
		err = n.take(ctx, cfg)
	}
	if err == nil {
		return
	}
	all := config.Errors(nil)
	if errors.As(err, &all) {
		for _, e := range all {
			n.log.Error("the configuration file has an error, and changes nothing", "error", e.Error())
		}
		err = all[0]
	} else {
		n.log.Error("the configuration file cannot be taken over, and changes nothing", "error", err)
	}
	problem := "the configuration file was not taken over when it was read again: " + err.Error()
	if len(all) > 1 {
		problem += fmt.Sprintf(", and %d more", len(all)-1)
	}
	n.file.problems.Store(&[]string{problem})
}

// take brings a file into force that is right. What can fail comes first.
func (n *node) take(ctx context.Context, cfg *config.Config) error {
	f := n.file
	changes := differences(&f.now, cfg, !n.alone() && n.part.raft.State().Formed())
	may := func(key string) bool {
		return slices.ContainsFunc(changes, func(d difference) bool { return d.key == key && d.do == "" })
	}
	if may("http") {
		if err := n.serveElsewhere(ctx, cfg.HTTP); err != nil {
			return err
		}
		f.now.HTTP = cfg.HTTP
	}
	if may("log") {
		n.opt.SetLog(cfg.Log)
		f.now.Log = cfg.Log
	}
	if may("fifo") {
		n.beside.hooks.SetFIFO(cfg.FIFO)
		f.now.FIFO = cfg.FIFO
	}
	if may("peers") {
		n.part.peers.Store(&cfg.Peers)
		f.now.Peers = cfg.Peers
	}
	for _, w := range cfg.Warnings {
		n.log.Warn(w)
	}
	var wait []string
	for _, d := range changes {
		if d.do == "" {
			n.log.Info("taken over from the configuration file", "key", d.key, "was", d.now, "is", d.file)
			continue
		}
		n.log.Warn("the configuration file has another value, which is not in force", "key", d.key, "in_force", d.now, "file", d.file, "do", d.do)
		wait = append(wait, fmt.Sprintf("the configuration file has %s: %s, and in force is %s: %s", d.key, d.file, d.now, d.do))
	}
	if cfg.Election == f.now.Election {
		wait = append(wait, n.compareDocument(cfg.Document)...)
	}
	n.file.problems.Store(&wait)
	n.log.Info("the configuration file was read again", "changed", len(changes)-countWaiting(changes), "not_in_force", len(wait))
	return nil
}

func countWaiting(all []difference) int {
	n := 0
	for _, d := range all {
		if d.do != "" {
			n++
		}
	}
	return n
}

// compareDocument says what becomes of the file's groups, checks and hooks. The cluster's
// are changed by quorate apply; those of a router of its own are the file's.
func (n *node) compareDocument(file fsm.Document) []string {
	have := n.document()
	file.MaxHold = max(file.MaxHold, have.MaxHold) // nothing lowers it
	formed := n.alone() || n.part.raft.State().Formed()
	if !formed {
		have, file.MaxHold = n.cfg.Document, n.cfg.Document.MaxHold
	}
	if diffDocuments(have, file) == "" {
		return nil
	}
	const what = "vips, checks or hooks"
	switch {
	case n.alone():
		n.log.Warn("the configuration file has other "+what+", which are not in force", "do", "restart the daemon; another router takes its groups meanwhile")
		return []string{"the configuration file has other " + what + " than are in force: restart the daemon"}
	case !formed:
		n.log.Warn("the configuration file has other "+what+", which are not in force", "do", "restart the daemon: the cluster is not formed yet")
		return []string{"the configuration file has other " + what + " than this node would form the cluster with: restart the daemon"}
	}
	n.log.Info("the configuration file has other "+what+" than the cluster, whose count", "revision", have.Revision,
		"do", "quorate diff FILE shows the difference, and quorate apply FILE makes them the cluster's")
	return nil
}

// monotonicMicros is CLOCK_MONOTONIC, as systemd wants it with RELOADING=1 (sd_notify(3)).
func monotonicMicros() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // every Linux has it
	}
	return ts.Nano() / 1000
}

// serveElsewhere takes another address for http, and has it served in the place of the one
// before; empty: none.
func (n *node) serveElsewhere(ctx context.Context, address string) error {
	var web *api.Web
	if address != "" {
		var err error
		if web, err = n.listenHTTP(address); err != nil {
			return err
		}
	}
	select {
	case n.file.webs <- web:
		return nil
	case <-ctx.Done():
		if web != nil {
			return web.Close()
		}
		return nil
	}
}
