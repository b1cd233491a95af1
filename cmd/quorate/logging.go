package main

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/quorate/quorate/internal/config"
)

// logging is the daemon's log, whose level and form can change while it is in use.
type logging struct {
	logger *slog.Logger
	level  slog.LevelVar
	json   atomic.Bool
}

func newLogging(c config.Log, w io.Writer) *logging {
	l := &logging{}
	l.set(c)
	opts := &slog.HandlerOptions{Level: &l.level}
	l.logger = slog.New(eitherHandler{text: slog.NewTextHandler(w, opts), json: slog.NewJSONHandler(w, opts), asJSON: &l.json})
	return l
}

// set has the log be so from now on.
func (l *logging) set(c config.Log) {
	l.level.Set(c.Level)
	l.json.Store(c.JSON)
}

// An eitherHandler writes text or JSON, as it is told at each line.
type eitherHandler struct {
	text, json slog.Handler
	asJSON     *atomic.Bool
}

func (h eitherHandler) handler() slog.Handler {
	if h.asJSON.Load() {
		return h.json
	}
	return h.text
}

// Enabled reports whether a line of the level is written.
func (h eitherHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.handler().Enabled(ctx, l)
}

// Handle writes a line.
func (h eitherHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.handler().Handle(ctx, r)
}

// WithAttrs returns a handler whose lines all have the attributes.
func (h eitherHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return eitherHandler{h.text.WithAttrs(a), h.json.WithAttrs(a), h.asJSON}
}

// WithGroup returns a handler whose later attributes are in the group.
func (h eitherHandler) WithGroup(name string) slog.Handler {
	return eitherHandler{h.text.WithGroup(name), h.json.WithGroup(name), h.asJSON}
}
