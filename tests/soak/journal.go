package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// An entry is one line of the journal.
type entry struct {
	Second float64 `json:"s"` // since the start
	Phase  int     `json:"phase"`
	What   string  `json:"what"` // do, done, undone, refused, skipped, phase, judged, …
	Fault  string  `json:"fault,omitempty"`
	Node   string  `json:"node,omitempty"`
	Peer   string  `json:"peer,omitempty"`
	HoldMS int64   `json:"hold_ms,omitempty"`
	Detail any     `json:"detail,omitempty"`
}

// A journal is written line by line, so that it is complete however the soak ends.
type journal struct {
	dir   string
	start lab.Instant

	mu   sync.Mutex
	file *os.File
	err  error // the first that writing met
}

// newJournal makes the soak's directory below out.
func newJournal(out string) (*journal, error) {
	dir := filepath.Join(out, "soak-"+time.Now().Format("20060102-150405"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the soak's directory: %w", err)
	}
	f, err := os.Create(filepath.Join(dir, "journal.jsonl"))
	if err != nil {
		return nil, fmt.Errorf("make the journal: %w", err)
	}
	return &journal{dir: dir, start: lab.Now(), file: f}, nil
}

// seconds since the start.
func (j *journal) seconds(at lab.Instant) float64 {
	return at.Sub(j.start).Round(100 * time.Microsecond).Seconds()
}

// add may be called concurrently.
func (j *journal) add(e entry) {
	e.Second = j.seconds(lab.Now())
	line, err := json.Marshal(e)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		_, err = j.file.Write(append(line, '\n'))
	}
	if j.err == nil {
		j.err = err
	}
}

// close ends the journal and says what went wrong with it, if anything.
func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.file.Close()
	if j.err != nil {
		err = j.err
	}
	if err != nil {
		return fmt.Errorf("write the journal in %s: %w", j.dir, err)
	}
	return nil
}

// write puts a value as JSON into the soak's directory.
func (j *journal) write(name string, v any) error {
	data, err := json.MarshalIndent(v, "", " ")
	if err == nil {
		err = os.WriteFile(filepath.Join(j.dir, name), append(data, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
