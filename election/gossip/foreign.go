package gossip

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// A ForeignReason says why something received is not of this cluster.
type ForeignReason uint8

const (
	_              ForeignReason = iota
	ForeignCluster               // another cluster's name
	ForeignKey                   // our cluster's name, another key
	ForeignFormat                // not gossip at all, or of a version that we do not know
	ForeignKind                  // of a node, but of a kind that only later versions know
)

var foreignNames = [...]string{"", "other-cluster", "other-key", "format", "kind"}

// String is the reason as logs and metrics have it.
func (r ForeignReason) String() string {
	if int(r) < len(foreignNames) && r != 0 {
		return foreignNames[r]
	}
	return fmt.Sprintf("foreign(%d)", uint8(r))
}

var foreignDetails = [...]string{"",
	"a node with another cluster name sends to this port: see `cluster:` and `peers:` on both",
	"a node of this cluster's name has another key_file",
	"what was received is not of a node, or of another version",
	"a node of a later version says something that this one does not know; it is ignored"}

// foreignEvery is how often each reason is logged.
const foreignEvery = time.Minute

// foreign counts what is not ours and logs it once in a while.
type foreign struct {
	log *slog.Logger

	mu     sync.Mutex
	counts [len(foreignNames)]uint64
	logged [len(foreignNames)]time.Time
}

func newForeign(log *slog.Logger) *foreign { return &foreign{log: log} }

func (f *foreign) note(why ForeignReason, from netip.AddrPort) {
	f.mu.Lock()
	f.counts[why]++
	n := f.counts[why]
	now := time.Now()
	due := f.logged[why].IsZero() || now.Sub(f.logged[why]) >= foreignEvery
	if due {
		f.logged[why] = now
	}
	f.mu.Unlock()
	if due {
		f.log.Warn("foreign gossip refused", "from", from, "reason", why, "detail", foreignDetails[why], "count", n)
	}
}

func (f *foreign) snapshot() map[ForeignReason]uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[ForeignReason]uint64{}
	for i, n := range f.counts {
		if i > 0 {
			out[ForeignReason(i)] = n
		}
	}
	return out
}

// A logBridge turns memberlist's lines into records.
type logBridge struct {
	log     *slog.Logger
	foreign *foreign
}

func newLogBridge(l *slog.Logger, f *foreign) *log.Logger {
	return log.New(&logBridge{log: l, foreign: f}, "", 0)
}

// noise are beginnings of lines that tell the operator nothing: a node that is
// down or cut off makes most of them, and the change of members says it once.
var noise = []string{
	"Stream connection", "Initiating push/pull", "Failed UDP ping", "Failed to send UDP", "Failed to send indirect",
	"Failed fallback TCP ping", "Suspect ", "Marking ", "Refuting ", "Push/Pull with", "failed to receive", "Failed to send gossip",
	"Failed to send ack", "Failed to send nack", "Failed to forward ack", "failed to join", "Conflicting address", "Got ping for unexpected node",
	"Failed to push local state", "Updating address for",
}

// Write takes one line. memberlist only gives hints, so nothing that it says is
// more than a warning here.
func (b *logBridge) Write(line []byte) (int, error) {
	level, text := slog.LevelWarn, strings.TrimSpace(string(line))
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if name, msg, ok := strings.Cut(rest, "] "); ok {
			text = msg
			switch name {
			case "DEBUG", "TRACE":
				level = slog.LevelDebug
			case "INFO":
				level = slog.LevelInfo
			}
		}
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	switch {
	case strings.HasPrefix(text, "Decrypt packet failed"):
		b.foreign.note(ForeignKey, sender(text))
		return len(line), nil
	case strings.HasPrefix(text, "discarding stream with unacceptable label"):
		b.foreign.note(ForeignCluster, sender(text))
		return len(line), nil
	}
	for _, beginning := range noise {
		if strings.HasPrefix(text, beginning) {
			level = slog.LevelDebug
			break
		}
	}
	b.log.Log(context.Background(), level, "memberlist: "+text)
	return len(line), nil
}

// sender finds the address that memberlist puts at the end of a line.
func sender(text string) netip.AddrPort {
	_, addr, _ := strings.Cut(text, "from=")
	from, _ := netip.ParseAddrPort(addr)
	return unmap(from)
}
