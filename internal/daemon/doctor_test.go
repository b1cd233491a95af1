package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/doctor"
)

var (
	patient1 = fsm.InstanceID{15: 1}
	patient2 = fsm.InstanceID{15: 2}
	address1 = netip.MustParseAddrPort("10.0.0.1:7950")
	address2 = netip.MustParseAddrPort("10.0.0.2:7950")
)

// newDatagrams is the part of a node in a survey with one other.
func newDatagrams(self, other fsm.InstanceID, at netip.AddrPort, send func(netip.AddrPort, []byte) error) *datagrams {
	return &datagrams{nonce: 7, self: self, to: map[fsm.InstanceID]netip.AddrPort{other: at}, send: send,
		heard: map[fsm.InstanceID]map[doctor.Kind]int{}, trips: map[fsm.InstanceID][]doctor.ClockSample{},
		wall: map[fsm.InstanceID][]time.Duration{}, sent: map[fsm.InstanceID]int{}}
}

// TestDatagrams has two nodes measure each other over a way that loses what is long in
// one direction.
func TestDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b *datagrams
		a = newDatagrams(patient1, patient2, address2, func(to netip.AddrPort, p []byte) error {
			if to != address2 {
				t.Errorf("sent to %s", to)
			}
			if len(p) < 1000 {
				b.take(address1, p)
			}
			return nil
		})
		b = newDatagrams(patient2, patient1, address1, func(_ netip.AddrPort, p []byte) error { a.take(address2, p); return nil })
		ctx, cancel := context.WithTimeout(t.Context(), doctor.MinMeasure)
		defer cancel()
		var work sync.WaitGroup
		work.Go(func() { a.run(ctx, doctor.MinMeasure) })
		work.Go(func() { b.run(ctx, doctor.MinMeasure) })
		work.Wait()
		var f, g doctor.Facts
		a.results(&f, map[fsm.InstanceID]string{patient2: "refused"})
		b.results(&g, nil)
		if p := f.Paths[0]; len(f.Paths) != 1 || p.To != patient2.String() || p.TCPProblem != "refused" || p.Sent != pings || p.Answered != pings {
			t.Errorf("the path: %+v", f.Paths)
		}
		small := doctor.Heard{From: patient2.String(), Kind: "small", Count: 5}
		large := doctor.Heard{From: patient2.String(), Kind: "large", Count: 5}
		if len(f.Heard) != 2 || !slices.Contains(f.Heard, small) || !slices.Contains(f.Heard, large) {
			t.Errorf("heard by the first: %+v", f.Heard)
		}
		if small.From = patient1.String(); len(g.Heard) != 1 || g.Heard[0] != small {
			t.Errorf("heard by the second: %+v", g.Heard)
		}
	})
}

// TestDatagramsOfStrangers: what is of no node of this survey is neither counted nor answered.
func TestDatagramsOfStrangers(t *testing.T) {
	d := newDatagrams(patient1, patient2, address2, func(netip.AddrPort, []byte) error { t.Error("answered"); return nil })
	for name, tc := range map[string]struct {
		from netip.AddrPort
		tag  doctor.Tag
	}{
		"another survey":  {address2, doctor.Tag{Kind: doctor.Ping, Nonce: 8, From: patient2}},
		"another node":    {address2, doctor.Tag{Kind: doctor.Ping, Nonce: 7, From: fsm.InstanceID{9}}},
		"another address": {address1, doctor.Tag{Kind: doctor.Ping, Nonce: 7, From: patient2}},
		"of the future":   {address2, doctor.Tag{Kind: doctor.Pong, Nonce: 7, From: patient2, Asked: 1 << 62}},
	} {
		d.take(tc.from, tc.tag.Append(nil))
		if len(d.heard) > 0 || len(d.trips) > 0 {
			t.Errorf("%s: %+v", name, d)
		}
	}
	(&Participant{}).surveyed(address2, doctor.Tag{Kind: doctor.Ping, Nonce: 7, From: patient2}.Append(nil)) // no survey
}

// TestDoctorCall is how a node answers another's question.
func TestDoctorCall(t *testing.T) {
	good := doctor.Request{Nonce: 1, Measure: doctor.MinMeasure}
	var failure error
	h := handlers{&Participant{examine: func(_ context.Context, req doctor.Request) (doctor.Facts, error) {
		return doctor.Facts{Name: "n2", Instance: patient2.String(), Datagram: int(req.Nonce)}, failure
	}}}
	ask := func(req doctor.Request) (surveyReply, error) {
		b, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := h.Doctor(t.Context(), patient1, b)
		if err != nil {
			return surveyReply{}, err
		}
		return decodeFacts(answer)
	}
	if r, err := ask(good); err != nil || r.Busy || r.Facts == nil || r.Facts.Name != "n2" || r.Facts.Datagram != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	failure = errSurvey
	if r, err := ask(good); err != nil || !r.Busy || r.Facts != nil {
		t.Errorf("while it measures for another: %+v, %v", r, err)
	}
	failure = errors.New("x")
	if _, err := ask(good); !errors.Is(err, failure) {
		t.Errorf("a failure: %v", err)
	}
	if _, err := ask(doctor.Request{}); err == nil {
		t.Error("a bad request passes")
	}
	h.n.examine = nil
	if _, err := ask(good); err == nil {
		t.Error("a node without a host takes part")
	}
	if _, err := h.Doctor(t.Context(), patient1, []byte(`[]`)); err == nil {
		t.Error("no request passes")
	}
}

func TestViewOf(t *testing.T) {
	st := core.Status{Quorum: true, Leader: "n1", Members: []core.MemberStatus{{Name: "n1", Voter: true, Alive: true}},
		VIPs: []core.VIPStatus{{Name: "web", Owner: "n1", Open: true, Problem: "claimed", Claims: []core.ClaimStatus{
			{Address: "10.0.0.200", MAC: "02:00:00:00:00:01", LastAgoMS: 100}, {Address: "10.0.0.201", MAC: "02:00:00:00:00:02", LastAgoMS: 5000}}}}}
	doc := fsm.Document{Groups: []fsm.Group{{Name: "web", Priority: map[string]uint8{"n2": 0, "n3": 9}}}}
	v := viewOf(st, doc)
	if !v.Quorum || v.Leader != "n1" || len(v.Members) != 1 || v.Groups[0].Problem != "" || !slices.Equal(v.Groups[0].Barred, []string{"n2"}) {
		t.Errorf("%+v", v)
	}
	if got := claimed(st, time.Second); !slices.Equal(got, []doctor.Claim{{Address: "10.0.0.200", MAC: "02:00:00:00:00:01"}}) {
		t.Errorf("claims of the last second: %+v", got)
	}
}

// FuzzFacts: whatever a node answers is judged or refused.
func FuzzFacts(f *testing.F) {
	b, err := json.Marshal(surveyReply{Facts: &doctor.Facts{Name: "n2", Instance: "2", Devices: []doctor.Device{{Name: "eth0", Index: 2, Up: true, Carrier: true, Serves: []string{"10.0.0.1"}}},
		Heard: []doctor.Heard{{From: "1", Kind: "small", Count: 1}}, Paths: []doctor.PathTo{{To: "1", Sent: 5, Answered: 5}}, Claims: []doctor.Claim{{MAC: "x"}}, Rivals: []doctor.Rival{{}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"busy":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		reply, err := decodeFacts(b)
		if err != nil || reply.Facts == nil {
			return
		}
		first := doctor.Facts{Name: "n1", Instance: "1", Devices: reply.Facts.Devices, Paths: []doctor.PathTo{{To: reply.Facts.Instance}}}
		r := doctor.Judge(doctor.Survey{Node: "n1", Daemon: true, View: &doctor.View{}, Answers: []doctor.Answer{
			{Name: "n1", Instance: "1", Facts: &first}, {Name: "n2", Instance: reply.Facts.Instance, Facts: reply.Facts}}})
		for _, found := range r.Findings {
			if found.ID == "" || found.Severity == 0 || found.Severity > doctor.OK && found.What == "" && found.ID != "problem" {
				t.Fatalf("%+v", found)
			}
		}
	})
}
