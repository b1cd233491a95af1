package raftnode

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/hashicorp/go-hclog"
)

// bridge hands the library's log lines to slog.
func bridge(log *slog.Logger) hclog.Logger {
	level := hclog.Info
	if log.Enabled(context.Background(), slog.LevelDebug) {
		level = hclog.Debug
	}
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Output: io.Discard, Level: level})
	l.RegisterSink(bridgeSink{log})
	return l
}

type bridgeSink struct{ log *slog.Logger }

// Accept is called by hclog for every line.
func (b bridgeSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to, known := quieter[msg]
	if !known {
		to = levels[level]
	}
	if !b.log.Enabled(context.Background(), to) {
		return
	}
	attrs := make([]any, 0, len(args))
	for i, a := range args {
		if i%2 == 1 {
			a = plain(a)
		}
		attrs = append(attrs, a)
	}
	b.log.Log(context.Background(), to, msg, attrs...)
}

var levels = map[hclog.Level]slog.Level{
	hclog.Trace: slog.LevelDebug,
	hclog.Debug: slog.LevelDebug,
	hclog.Info:  slog.LevelInfo,
	hclog.Warn:  slog.LevelWarn,
	hclog.Error: slog.LevelError,
}

// quieter lists lines that the library thinks graver than they are here: they
// repeat several times a second while a peer is down, or belong to every election,
// and the agent reports both once and by name.
var quieter = map[string]slog.Level{
	"no known peers, aborting election":                      slog.LevelDebug,
	"not part of stable configuration, aborting election":    slog.LevelDebug,
	"failed to contact":                                      slog.LevelDebug,
	"failed to heartbeat to":                                 slog.LevelDebug,
	"failed to appendEntries to":                             slog.LevelDebug,
	"failed to make requestVote RPC":                         slog.LevelDebug,
	"rejecting vote request since we have a leader":          slog.LevelDebug,
	"rejecting pre-vote request since we have a leader":      slog.LevelDebug,
	"appendEntries rejected, sending older logs":             slog.LevelDebug,
	"failed to get previous log":                             slog.LevelDebug,
	"previous log term mis-match":                            slog.LevelDebug,
	"skipping application of old log":                        slog.LevelDebug,
	"failed to decode incoming command":                      slog.LevelDebug,
	"failed to flush response":                               slog.LevelDebug,
	"failed to accept connection":                            slog.LevelDebug, // the listener was closed, and says itself why
	"entering follower state":                                slog.LevelDebug,
	"entering candidate state":                               slog.LevelDebug,
	"entering leader state":                                  slog.LevelDebug,
	"election won":                                           slog.LevelDebug,
	"initial configuration":                                  slog.LevelDebug,
	"added peer, starting replication":                       slog.LevelDebug,
	"no logs to truncate":                                    slog.LevelDebug,
	"duplicate requestVote for same term":                    slog.LevelDebug,
	"pre-vote campaign failed, waiting for election timeout": slog.LevelDebug,
	"clearing log suffix":                                    slog.LevelInfo,
	"heartbeat timeout reached, starting election":           slog.LevelInfo,
	"Election timeout reached, restarting election":          slog.LevelInfo,
	"peer has newer term, stopping replication":              slog.LevelInfo,
	"heartbeat timeout reached, not part of a stable configuration or a non-voter, not triggering a leader election": slog.LevelDebug,
}

// plain makes a value printable without looking into it: the library passes itself
// as a value, and a JSON handler would print all of it.
func plain(a any) any {
	switch a := a.(type) {
	case hclog.Format:
		if len(a) == 0 {
			return ""
		}
		return fmt.Sprintf(fmt.Sprint(a[0]), a[1:]...)
	case error, string, bool, int, int64, uint64, time.Duration:
		return a
	}
	return fmt.Sprint(a)
}
