package election

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
)

func someRenewal(groups int) Renewal {
	r := Renewal{
		Sender: Sender{fsm.ClusterID{9}, n1}, Stamp: Stamp{boot, 123456789}, Lease: lease, Grace: grace, Applied: 77,
		Health:  Health{VoterReady: true, Stopping: true},
		Hears:   []Hearsay{{n0, time.Millisecond}, {n2, time.Hour}},
		Sources: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fe80::1")},
	}
	for i := range groups {
		r.Groups = append(r.Groups, GroupState{Group: fmt.Sprintf("group-%d", i), Epoch: uint64(i), Phase: Phase(1 + i%5), Since: time.Second, Unfit: UnfitCheck, Adjust: int16(i - 200)})
	}
	return r
}

func someAnswer(groups int) Answer {
	a := Answer{
		Sender: Sender{fsm.ClusterID{9}, n0}, Echo: Stamp{boot, 5}, Lease: lease,
		Log: VoterLog{Last: set(2, 7, n0, n1, n2, n3), Previous: trio, LastCommitted: true},
	}
	for i := range groups {
		a.Groups = append(a.Groups, GroupAnswer{Group: fmt.Sprintf("group-%d", i), Epoch: uint64(i), Verdict: Confirmed, Blocked: time.Millisecond})
	}
	return a
}

// What is sent is what is read, also when it takes several datagrams: each part
// stands for itself, and together they have every group once.
func TestDatagramRoundTrip(t *testing.T) {
	for _, groups := range []int{0, 1, 300} {
		want := someRenewal(groups)
		var got Renewal
		for i, d := range AppendRenewal(nil, want) {
			m := decode(t, d).(Renewal)
			if parts := len(AppendRenewal(nil, want)); int(m.Part) != i || int(m.Parts) != parts {
				t.Fatalf("datagram %d of %d says part %d of %d", i, parts, m.Part, m.Parts)
			}
			m.Part, m.Parts = 0, 0
			if i == 0 {
				got = m
			} else {
				got.Groups = append(got.Groups, m.Groups...)
				m.Groups, want.Groups = nil, nil
				if !reflect.DeepEqual(m, want) {
					t.Fatalf("part %d: %+v, want %+v", i, m, want)
				}
				want = someRenewal(groups)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%d groups: got %+v, want %+v", groups, got, want)
		}

		wantA := someAnswer(groups)
		var gotA Answer
		for i, d := range AppendAnswer(nil, wantA) {
			m := decode(t, d).(Answer)
			if i == 0 {
				gotA = m
			} else {
				gotA.Groups = append(gotA.Groups, m.Groups...)
			}
		}
		if !reflect.DeepEqual(gotA, wantA) {
			t.Fatalf("%d groups: got %+v, want %+v", groups, gotA, wantA)
		}
	}
	r := release(n1, 42)
	if got := decode(t, AppendRelease(nil, r)[0]); !reflect.DeepEqual(got, r) {
		t.Fatalf("got %+v, want %+v", got, r)
	}
}

func decode(t *testing.T, d []byte) any {
	t.Helper()
	if len(d) > MaxDatagram {
		t.Fatalf("a datagram of %d bytes, want at most %d", len(d), MaxDatagram)
	}
	m, err := Decode(d)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Every proper prefix of a datagram is refused, and so is one byte more.
func TestDecodeRefusesWhatIsCutOff(t *testing.T) {
	for _, d := range [][]byte{AppendRenewal(nil, someRenewal(2))[0], AppendAnswer(nil, someAnswer(2))[0], AppendRelease(nil, release(n1, 1))[0]} {
		for n := range d {
			if m, err := Decode(d[:n]); !errors.Is(err, ErrMalformed) {
				t.Fatalf("%d of %d bytes: %+v, %v", n, len(d), m, err)
			}
		}
		if _, err := Decode(append(d, 0)); !errors.Is(err, ErrMalformed) {
			t.Fatalf("a byte too many: %v", err)
		}
	}
}

// FuzzDecode: what is accepted can be sent again, and then reads the same.
func FuzzDecode(f *testing.F) {
	f.Add(AppendRenewal(nil, someRenewal(2))[0])
	f.Add(AppendAnswer(nil, someAnswer(2))[0])
	f.Add(AppendRelease(nil, release(n1, 1))[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v is not ErrMalformed", err)
			}
			return
		}
		if len(b) > MaxDatagram {
			return // what we send would be split
		}
		var again [][]byte
		want := m
		switch m := m.(type) {
		case Renewal:
			again = AppendRenewal(nil, m)
			m.Part, m.Parts = 0, 1 // by itself
			want = m
		case Answer:
			again = AppendAnswer(nil, m)
		case Release:
			again = AppendRelease(nil, m)
		}
		got, err := Decode(again[0])
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("sent again it reads %+v (%v), was %+v", got, err, want)
		}
	})
}
