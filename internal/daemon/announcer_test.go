package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// TestAnnouncerFollows: the cluster's other nodes are no strangers, and a group that the
// document has no more, or without VRRP, is not listened for any more, nor ever again
// by a late word of the agent.
func TestAnnouncerFollows(t *testing.T) {
	st := newSpeakerTest(t)
	me, other := fsm.InstanceID{1}, fsm.InstanceID{2}
	web := group(func(*fsm.Group) {})
	db := group(func(g *fsm.Group) {
		g.Name, g.VRRP.ID, g.Addresses = "db", 52, []netip.Prefix{netip.MustParsePrefix("10.0.0.201/24")}
	})
	state := fsm.State{
		Document: fsm.Document{Groups: []fsm.Group{web, db}},
		Nodes: map[fsm.InstanceID]fsm.Node{me: {ID: me, Address: netip.AddrPortFrom(self, 7950)},
			other: {ID: other, Address: netip.AddrPortFrom(stranger, 7950)}},
	}
	log := slog.New(slog.DiscardHandler)
	macs := newVMACs(nil, "test", func() fsm.Document { return state.Document }, nil, log)
	a := newAnnouncer(st.speaker, macs, me, func() *fsm.State { return &state }, log)
	serve := func(g fsm.Group) {
		_ = a.Serve(g, places(g)) // the device is not there
		st.sourceChanged(nowhere, vrrpcompat.IPv4, self)
	}
	groups := func() (out string) {
		for _, r := range st.view(vrrpcompat.Instant(st.now)).Routers {
			out += r.Group + " "
		}
		return out
	}
	look := func() {
		t.Helper()
		if err := a.look(); err != nil {
			t.Error(err)
		}
	}
	serve(web)
	serve(db)
	look()
	st.multicast(stranger, theirs(func(*vrrpcompat.Advert) {}), vrrpcompat.Plain)
	v := st.view(vrrpcompat.Instant(st.now))
	if groups() != "web db " || len(v.Neighbours) != 1 || !v.Neighbours[0].Insider || v.Routers[0].To[0].Of != "" {
		t.Errorf("serves %q, view %+v", groups(), v)
	}
	web.VRRP = fsm.VRRP{}
	state.Document = fsm.Document{Groups: []fsm.Group{web, db}}
	look()
	if groups() != "db " {
		t.Errorf("serves %q after web lost its id", groups())
	}
	state.Document = fsm.Document{}
	look()
	serve(db)
	if groups() != "" {
		t.Errorf("serves %q with an empty document", groups())
	}
}

// TestAnnouncerLooks: it looks at the start and after each change.
func TestAnnouncerLooks(t *testing.T) {
	st := newSpeakerTest(t)
	synctest.Test(t, func(t *testing.T) {
		var state fsm.State
		looked := 0
		log := slog.New(slog.DiscardHandler)
		a := newAnnouncer(st.speaker, nil, fsm.InstanceID{1}, func() *fsm.State { looked++; return &state }, log)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = a.follow(ctx) }()
		synctest.Wait()
		a.noteChange()
		a.noteChange()
		synctest.Wait()
		cancel()
		if looked < 2 || looked > 3 {
			t.Errorf("looked %d times", looked)
		}
	})
}
