package lab

import (
	"fmt"
	"strings"
)

// Block loses the frames that one host sends to another, until [Lab.Unblock]: the other
// way, and to everybody else, all is well. Blocks of one pair add up.
func (l *Lab) Block(from, to *Host) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.block([][2]string{{from.port, to.port}}, +1)
}

// Unblock undoes one Block of the same pair.
func (l *Lab) Unblock(from, to *Host) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.block([][2]string{{from.port, to.port}}, -1)
}

// Partition separates the given hosts from all others; among themselves they hear
// each other. Unlike [Host.Cut] this lets an observer stand on the far side with the
// host that was cut off. A second partition comes on top of the first.
func (l *Lab) Partition(inside ...*Host) error {
	in := map[string]bool{}
	for _, h := range inside {
		in[h.port] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var pairs [][2]string
	for _, a := range l.hosts {
		for _, b := range l.hosts {
			if in[a.port] != in[b.port] {
				pairs = append(pairs, [2]string{a.port, b.port})
			}
		}
	}
	if err := l.block(pairs, +1); err != nil {
		return err
	}
	l.parted = append(l.parted, pairs...)
	return nil
}

// Heal ends every partition; what was blocked by [Lab.Block] stays so.
func (l *Lab) Heal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.block(l.parted, -1); err != nil {
		return err
	}
	l.parted = nil
	return nil
}

// block counts cuts of the pairs up or down, and has the bridge follow in one step. The
// caller holds the lock.
func (l *Lab) block(pairs [][2]string, by int) error {
	want := map[[2]string]int{}
	for _, p := range pairs {
		want[p] += by
	}
	var script strings.Builder
	for p, by := range want {
		before, after := l.blocked[p], l.blocked[p]+by
		switch {
		case after < 0:
			return fmt.Errorf("unblock %s to %s: it is not blocked", p[0], p[1])
		case before == 0:
			fmt.Fprintf(&script, "add element bridge lab blocked { %q . %q }\n", p[0], p[1])
		case after == 0:
			fmt.Fprintf(&script, "delete element bridge lab blocked { %q . %q }\n", p[0], p[1])
		}
	}
	if script.Len() > 0 {
		if err := l.nft(script.String()); err != nil {
			return err
		}
	}
	for p, by := range want {
		l.blocked[p] += by
	}
	return nil
}
