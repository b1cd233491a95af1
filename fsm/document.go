package fsm

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// MaxGroupName is the longest name of a group, in bytes: it travels in every
// lease datagram.
const MaxGroupName = 63

// Bounds of what a document says.
const (
	maxDelay    = time.Hour // of preempt, and the longest interval and hook
	maxWeight   = 1000      // of a group, for placement spread
	maxScore    = 254       // of a node for a group
	maxCount    = 100       // of rise and fall
	maxText     = 4096      // bytes of any one text, such as a path or an argument
	maxArgs     = 256       // words of a program's argv
	maxCompany  = 100       // groups that one names to be apart from, or together with
	maxDevice   = 15        // bytes of a device's name, what Linux takes
	minTimeout  = 10 * time.Millisecond
	minInterval = 100 * time.Millisecond
	maxTimeout  = 10 * time.Minute
)

// Check reports the first rule that the document breaks, as an ErrBadDocument.
// It knows what can be said of the document alone: not which nodes there are
// (CheckNodes), nor whether a program or device exists or a regular expression can
// be read, which may differ from host to host and from version to version, while
// every node must judge an entry of the log alike.
func (d Document) Check() error {
	if d.MaxHold <= 0 {
		return fmt.Errorf("%w: the bound on leases is %s, want more than 0", ErrBadDocument, d.MaxHold)
	}
	checks, err := d.checkChecks()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadDocument, err)
	}
	if err := d.Hooks.check(); err != nil {
		return fmt.Errorf("%w: hooks of the cluster: %w", ErrBadDocument, err)
	}
	if err := d.checkAddresses(); err != nil {
		return fmt.Errorf("%w: %w", ErrBadDocument, err)
	}
	for _, g := range d.Groups {
		if err := g.check(checks); err != nil {
			return fmt.Errorf("%w: group %q: %w", ErrBadDocument, g.Name, err)
		}
	}
	if err := d.checkCompany(); err != nil {
		return fmt.Errorf("%w: %w", ErrBadDocument, err)
	}
	return nil
}

// CheckNodes reports the first node that the document names and the state does not
// have. Apply does not ask for it: a document stays good when one of its nodes is removed.
func (s *State) CheckNodes(d Document) error {
	known := map[string]bool{}
	for _, n := range s.Nodes {
		known[n.Name] = true
	}
	for _, g := range d.Groups {
		for _, name := range slices.Sorted(maps.Keys(g.Priority)) {
			if !known[name] {
				return fmt.Errorf("%w: group %q: priority for node %q, which the cluster does not have; its nodes are %s",
					ErrBadDocument, g.Name, name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			}
		}
	}
	return nil
}

func (d Document) checkAddresses() error {
	names := map[string]bool{}
	owner := map[netip.Addr]string{}
	for _, g := range d.Groups {
		if g.Name == "" || len(g.Name) > MaxGroupName || names[g.Name] {
			return fmt.Errorf("group name %q is empty, longer than %d bytes, or there twice", g.Name, MaxGroupName)
		}
		names[g.Name] = true
		if len(g.Addresses) == 0 {
			return fmt.Errorf("group %q has no address", g.Name)
		}
		for _, p := range g.Addresses {
			if other, ok := owner[p.Addr()]; ok {
				return fmt.Errorf("address %s is in group %q and in %q", p.Addr(), other, g.Name)
			}
			owner[p.Addr()] = g.Name
		}
	}
	return d.checkShared()
}

// check reports the first rule that the group breaks by itself.
func (g Group) check(checks map[string]bool) error {
	if err := g.VRRP.check(g.Advertised()); err != nil {
		return fmt.Errorf("vrrp: %w", err)
	}
	switch {
	case g.VMAC && g.VRRP.ID == 0:
		return errors.New("a virtual MAC address and no VRRP id to make it of")
	case g.Placement > PlacementSpread:
		return fmt.Errorf("unknown %v", g.Placement)
	case g.WhenAllFail > AllFailRelease:
		return fmt.Errorf("when_all_fail: unknown %v", g.WhenAllFail)
	case g.OnQuorumLoss > QuorumLossHold:
		return fmt.Errorf("on_quorum_loss: unknown %v", g.OnQuorumLoss)
	case g.Weight < 0 || g.Weight > maxWeight:
		return fmt.Errorf("weight is %d, want 1 to %d", g.Weight, maxWeight)
	case g.Preempt.Delay < 0 || g.Preempt.Delay > maxDelay:
		return fmt.Errorf("preempt: a delay of %s, want 0 to %s", g.Preempt.Delay, maxDelay)
	case g.Preempt.Delay > 0 && !g.Preempt.Yes:
		return fmt.Errorf("preempt: a delay of %s and no preemption to delay; write it only with preempt", g.Preempt.Delay)
	}
	for _, name := range slices.Sorted(maps.Keys(g.Priority)) {
		if p := g.Priority[name]; name == "" || p > maxScore {
			return fmt.Errorf("priority of node %q is %d, want a node's name and 0 to %d", name, p, maxScore)
		}
	}
	if err := g.checkReach(); err != nil {
		return err
	}
	if err := g.checkHealth(checks); err != nil {
		return err
	}
	if err := g.Hooks.check(); err != nil {
		return fmt.Errorf("hooks: %w", err)
	}
	return nil
}

// checkHealth: what a group's health hangs on exists and is there once.
func (g Group) checkHealth(checks map[string]bool) error {
	seen := map[string]bool{}
	for _, name := range g.Checks {
		switch {
		case !checks[name]:
			return fmt.Errorf("checks: there is no check %q; define it under the document's checks", name)
		case seen[name]:
			return fmt.Errorf("checks: %q is there twice", name)
		}
		seen[name] = true
	}
	clear(seen)
	for _, t := range g.TrackInterfaces {
		switch {
		case !isDevice(t.Interface):
			return fmt.Errorf("track_interfaces: %q is no name of a device (1 to %d bytes, no space, no slash)", t.Interface, maxDevice)
		case seen[t.Interface]:
			return fmt.Errorf("track_interfaces: %q is there twice", t.Interface)
		case t.Weight < -maxScore || t.Weight > maxScore:
			return fmt.Errorf("track_interfaces: the weight of %q is %d, want %d to %d", t.Interface, t.Weight, -maxScore, maxScore)
		}
		seen[t.Interface] = true
	}
	return nil
}

// check reports what is wrong with programs that are to be run.
func (h Hooks) check() error {
	for _, p := range []struct {
		name string
		argv []string
	}{{"active", h.Active}, {"backup", h.Backup}, {"fault", h.Fault}} {
		if len(p.argv) == 0 {
			continue
		}
		if err := checkArgv(p.argv); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if h.Any() && (h.Timeout < minTimeout || h.Timeout > maxDelay) {
		return fmt.Errorf("timeout is %s, want %s to %s", h.Timeout, minTimeout, maxDelay)
	}
	return nil
}

func checkArgv(argv []string) error {
	if len(argv) == 0 || argv[0] == "" || len(argv) > maxArgs {
		return fmt.Errorf("%d words, want 1 to %d, the first of them the program", len(argv), maxArgs)
	}
	for i, word := range argv {
		if len(word) > maxText || strings.Contains(word, "\x00") {
			return fmt.Errorf("word %d is longer than %d bytes or has a zero byte in it, which no program can be given", i, maxText)
		}
	}
	return nil
}

// checkCompany: who is to be apart from and together with whom. Groups that are
// together, directly or by way of others, are one unit of placement, so they must
// not be apart and must agree on how the unit is placed.
func (d Document) checkCompany() error {
	place := map[string]int{}
	for i, g := range d.Groups {
		place[g.Name] = i
	}
	for _, g := range d.Groups {
		for _, l := range []struct {
			key   string
			names []string
		}{{"apart", g.Apart}, {"together", g.Together}} {
			if len(l.names) > maxCompany {
				return fmt.Errorf("group %q: %s: %d groups, want at most %d", g.Name, l.key, len(l.names), maxCompany)
			}
			for i, name := range l.names {
				if _, ok := place[name]; !ok {
					return fmt.Errorf("group %q: %s: there is no group %q", g.Name, l.key, name)
				}
				if name == g.Name || slices.Contains(l.names[:i], name) {
					return fmt.Errorf("group %q: %s: %q is there twice or is the group itself; name other groups, each once", g.Name, l.key, name)
				}
			}
		}
	}
	head := d.heads()
	for i, g := range d.Groups {
		h := d.Groups[head[i]]
		for _, name := range g.Apart {
			if head[place[name]] == head[i] {
				return fmt.Errorf("group %q is to be apart from %q and, directly or by way of others, together with it; take one of the two out", g.Name, name)
			}
		}
		switch {
		case g.placement() != h.placement():
			return fmt.Errorf("groups %q and %q are together and move as one, but their placement is %s and %s; write the same for both", h.Name, g.Name, h.placement(), g.placement())
		case g.Preempt != h.Preempt:
			return fmt.Errorf("groups %q and %q are together and move as one, but their preempt differs; write the same for both", h.Name, g.Name)
		}
	}
	return nil
}

// heads returns for each group the first group of those that it is together with,
// directly or by way of others; itself if there is none. Names that no group has
// are passed over.
func (d Document) heads() []int {
	head := make([]int, len(d.Groups))
	place := make(map[string]int, len(d.Groups))
	for i, g := range d.Groups {
		head[i], place[g.Name] = i, i
	}
	find := func(i int) int {
		for head[i] != i {
			head[i] = head[head[i]]
			i = head[i]
		}
		return i
	}
	for i, g := range d.Groups {
		for _, name := range g.Together {
			if j, ok := place[name]; ok {
				a, b := find(i), find(j)
				head[max(a, b)] = min(a, b)
			}
		}
	}
	for i := range head {
		head[i] = find(i)
	}
	return head
}

// placement is the group's policy with the default filled in.
func (g Group) placement() Placement { return max(g.Placement, PlacementLeader) }

// weight is how much the group counts for placement spread.
func (g Group) weight() int { return max(g.Weight, 1) }
