package config

import (
	"fmt"
	"slices"
	"strings"
)

// A schema is the keys of one mapping: those that this version reads, and those
// that the design has and this version does not. A key is listed as later until
// the thing behind it works, so that nobody writes what has no effect.
type schema struct {
	keys  []string
	later []string
}

var (
	topSchema = schema{
		keys: []string{"cluster", "node", "address", "peers", "key_file", "tls", "data_dir", "role", "election",
			"lease", "renew", "fence", "socket", "log", "vips", "checks", "hooks", "fifo"},
		later: []string{"http"},
	}
	tlsSchema   = schema{keys: []string{"ca", "cert", "key"}}
	logSchema   = schema{keys: []string{"level", "format"}}
	groupSchema = schema{
		keys: []string{"addresses", "interface", "placement", "priority", "preempt", "weight", "apart", "together", "checks",
			"track_interfaces", "when_all_fail", "on_quorum_loss", "hooks", "announce", "vmac", "vrrp"},
		later: []string{"routes"},
	}
	announceSchema = schema{keys: []string{"repeat", "refresh"}}
	vrrpSchema     = schema{
		keys: []string{"id", "version", "priority", "interval", "checksum", "password", "unicast", "outranked"},
	}
	peerSchema = schema{keys: []string{"address", "min_ttl", "max_ttl"}}
)

func (s schema) knows(key string) bool { return slices.Contains(s.keys, key) }

// unknown says what is wrong with a key that the schema does not know, what to
// write instead, and which of its keys was meant, if that is likely.
func (s schema) unknown(key string) (text, do, meant string) {
	if slices.Contains(s.later, key) {
		return "not in this version yet", "remove the key", ""
	}
	near, ok := nearest(key, slices.Concat(s.keys, s.later))
	switch {
	case !ok:
		return "unknown key", "known here: " + strings.Join(s.keys, ", "), ""
	case slices.Contains(s.later, near):
		return "unknown key", fmt.Sprintf("%s was perhaps meant, and is not in this version yet: remove the key", near), ""
	default:
		return "unknown key", fmt.Sprintf("did you mean %s?", near), near
	}
}

// nearest returns the known word that key was most likely meant to be. A word of
// which more than a third would have to change is no likely meaning.
func nearest(key string, known []string) (string, bool) {
	if len(key) > maxShown {
		return "", false
	}
	fold := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }
	best, cost := "", 1+max(1, len(key)/3)
	for _, k := range known {
		if d := distance(fold(key), k); d < cost {
			best, cost = k, d
		}
	}
	return best, best != ""
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to make b of a.
func distance(a, b string) int {
	var older []int
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := prev[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(prev[j]+1, row[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
		older, prev = prev, row
	}
	return prev[len(b)]
}
