package core

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
)

// refused checks that an order is refused, with these words.
func refused(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: allowed, want a refusal with %q", what, words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: refused with %q, want %q in it", what, err, w)
		}
	}
}

func TestDrainOrders(t *testing.T) {
	c := newCrowd(t, 3, 0)
	c.run(time.Second)
	for _, yes := range []bool{true, false} {
		cmd, err := c.core.Drain("n2", yes, "root@n1")
		if want := (fsm.Drain{Node: c.nodes[1].ID, Drained: yes, By: "root@n1"}); err != nil || cmd.Drain == nil || *cmd.Drain != want {
			t.Errorf("drain %v: %+v, %v", yes, cmd.Drain, err)
		}
	}
	_, err := c.core.Drain("n9", true, "")
	refused(t, "an unknown node", err, `there is no node "n9"`, "quorate members")
	c.retire(c.nodes[2])
	_, err = c.core.Drain("n3", true, "")
	refused(t, "a removed node", err, `"n3" was removed`)
}

func TestRemoveOrders(t *testing.T) {
	c := newCrowd(t, 3, 0)
	c.run(time.Second)
	owner := c.nodes[1]
	c.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: owner.ID, Reason: fsm.ReasonFirst}})

	_, err := c.core.Remove("n2", false, "")
	refused(t, "an owner that is alive", err, "n2 is alive and owns web", "quorate drain n2")
	if cmd, err := c.core.Remove("n2", true, "root@n1"); err != nil || cmd.Retire == nil || *cmd.Retire != (fsm.Retire{Node: owner.ID, By: "root@n1"}) {
		t.Errorf("by force: %+v, %v", cmd.Retire, err)
	}
	if _, err := c.core.Remove("n3", false, ""); err != nil {
		t.Errorf("one that is alive and owns nothing: %v", err)
	}
	c.dead[c.nodes[2].ID] = true
	c.run(2 * testLease)
	if _, err := c.core.Remove("n3", false, ""); err != nil {
		t.Errorf("a dead one: %v", err)
	}
	_, err = c.core.Remove("n2", false, "")
	refused(t, "one of the two that live", err, "1 of the 2 voters that are left are heard, and 2 are needed (not heard: n3)", "--force")

	// The dead one's vote is still there. With it gone n2 is one of two.
	c.retire(c.nodes[2])
	_, err = c.core.Remove("n2", false, "")
	refused(t, "before the dead one's vote is gone", err, "not heard: n3")
	c.vote(c.nodes[:2]...)
	_, err = c.core.Remove("n2", false, "")
	refused(t, "an owner that is alive, of two", err, "owns web")
	_, err = c.core.Remove("n3", false, "")
	refused(t, "a removed one", err, `"n3" was removed`)
	c.retire(c.nodes[1])
	_, err = c.core.Remove("n1", true, "")
	refused(t, "the last voter, while another's vote is being taken", err, "last voter", "not even --force")
	c.vote(c.nodes[:1]...)
	_, err = c.core.Remove("n1", true, "")
	refused(t, "the last voter", err, "last voter", "not even --force")
}

// A removal that is under way counts: each set on the way must have its majority.
func TestRemoveTwoOfFive(t *testing.T) {
	c := newCrowd(t, 5, 0)
	c.dead[c.nodes[3].ID], c.dead[c.nodes[4].ID] = true, true
	c.run(time.Second)
	for _, name := range []string{"n4", "n5"} {
		cmd, err := c.core.Remove(name, false, "")
		if err != nil {
			t.Fatalf("remove %s: %v", name, err)
		}
		c.apply(cmd)
	}
	_, err := c.core.Remove("n3", false, "")
	refused(t, "a third, while two dead ones still have a vote", err, "2 of the 4 voters that are left are heard, and 3 are needed")
}

func TestApplyOrders(t *testing.T) {
	c := newCrowd(t, 3, 0)
	doc := c.state.Document
	doc.MaxHold = time.Second // the file's; the cluster's stays
	doc.Revision = 7
	doc.Groups = slices.Clone(doc.Groups)
	doc.Groups[0].Addresses = []netip.Prefix{otherAddr}
	cmd, err := c.core.Apply(doc, 0, "root@n1")
	if err != nil || cmd.Replace.Seen != 1 || cmd.Replace.By != "root@n1" || cmd.Replace.Document.MaxHold != testDocument().MaxHold || cmd.Replace.Document.Revision != 0 {
		t.Fatalf("apply: %+v, %v", cmd.Replace, err)
	}
	c.apply(cmd)
	_, err = c.core.Apply(doc, 1, "bob@n2")
	refused(t, "a change made for the revision before", err, "at revision 2, applied by root@n1", "made for revision 1", "quorate diff")
	if !errors.Is(err, fsm.ErrStale) {
		t.Errorf("it is %v, want ErrStale", err)
	}
	doc.Groups[0].Addresses = nil
	_, err = c.core.Apply(doc, 2, "")
	refused(t, "a bad document", err, "bad document")
}

func TestExplainOrders(t *testing.T) {
	c := newCrowd(t, 3, 0)
	c.run(time.Second)
	e, err := c.core.Explain("web")
	if err != nil || e.Group != "web" || len(e.Candidates) != 3 {
		t.Errorf("explain: %+v, %v", e, err)
	}
	_, err = c.core.Explain("mail")
	refused(t, "an unknown group", err, `no group "mail"`)
}

// Without a cluster every order is refused with the reason, and so before it is formed.
func TestOrdersWithoutACluster(t *testing.T) {
	alone := NewAlone(AloneConfig{Node: "n1", Document: testDocument()})
	unformed := newSolo(t, 0).core
	for what, order := range map[string]func(*Core) error{
		"drain":   func(c *Core) error { _, err := c.Drain("n1", true, ""); return err },
		"remove":  func(c *Core) error { _, err := c.Remove("n1", true, ""); return err },
		"apply":   func(c *Core) error { _, err := c.Apply(testDocument(), 0, ""); return err },
		"explain": func(c *Core) error { _, err := c.Explain("web"); return err },
	} {
		if err := order(alone); !errors.Is(err, ErrNoCluster) {
			t.Errorf("%s with election: vrrp: %v", what, err)
		}
		if err := order(unformed); !errors.Is(err, fsm.ErrNotFormed) {
			t.Errorf("%s before there is a cluster: %v", what, err)
		}
	}
}
