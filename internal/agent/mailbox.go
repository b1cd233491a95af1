package agent

import (
	"errors"
	"sync"
)

var errStopped = errors.New("the agent has stopped")

// A mailbox is a queue without a bound: Raft and gossip must never wait for the
// loop, and nothing that they say may be lost. It stays short, because the loop
// does nothing that takes time.
type mailbox struct {
	ready chan struct{} // holds one token while there is something to take
	mu    sync.Mutex
	items []any
	shut  bool
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

// put reports false after close.
func (m *mailbox) put(item any) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shut {
		return false
	}
	m.items = append(m.items, item)
	select {
	case m.ready <- struct{}{}:
	default:
	}
	return true
}

// take returns everything in the order in which it came.
func (m *mailbox) take() []any {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items = nil
	return items
}

func (m *mailbox) waiting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.items) > 0
}

// close drops what is left and refuses the rest.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shut, m.items = true, nil
}
