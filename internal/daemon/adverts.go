package daemon

import (
	"cmp"
	"slices"
	"sync"
)

// An advertKind is what adverts are counted by.
type advertKind struct {
	out    bool   // sent; else heard
	vrid   uint8  // zero: of a virtual router that is none of this host's
	result string // heard: accepted or why not; sent: sent or failed
}

// An advertCount is how many adverts there were of one kind.
type advertCount struct {
	advertKind
	count uint64
}

// An advertTally counts adverts. The zero value is ready to use, from any goroutine.
type advertTally struct {
	mu    sync.Mutex
	count map[advertKind]uint64
}

func (t *advertTally) add(k advertKind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == nil {
		t.count = map[advertKind]uint64{}
	}
	t.count[k]++
}

// all is in a fixed order.
func (t *advertTally) all() []advertCount {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]advertCount, 0, len(t.count))
	for k, n := range t.count {
		out = append(out, advertCount{k, n})
	}
	slices.SortFunc(out, func(a, b advertCount) int {
		return cmp.Or(cmp.Compare(a.vrid, b.vrid), cmp.Compare(a.result, b.result))
	})
	return out
}

// tallyHeard counts what was heard, and tallySent what was to be sent.
func (s *speaker) tallyHeard(h hearing, router *served) {
	k := advertKind{vrid: uint8(h.key.vrid), result: h.result}
	if router == nil {
		k.vrid = 0 // or whoever is on the LAN could make 255 of them
	}
	s.adverts.add(k)
}

func (s *speaker) tallySent(key routerKey, err error) {
	k := advertKind{out: true, vrid: uint8(key.vrid), result: "sent"}
	if err != nil {
		k.result = "failed"
	}
	s.adverts.add(k)
}
