package peerlink

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/quorate/quorate/fsm"
)

func identity(cluster string, formation, n byte) Identity {
	id := Identity{Cluster: cluster, Instance: fsm.InstanceID{15: n}}
	if formation != 0 {
		id.ClusterID = fsm.ClusterID{formation}
	}
	return id
}

type readWriter struct {
	io.Reader
	io.Writer
}

func TestHello(t *testing.T) {
	for _, tt := range []struct {
		name             string
		dialler, accepts Identity
		expect           byte // instance; 0: any
		want             Reason
	}{
		{"both formed", identity("prod", 9, 1), identity("prod", 9, 2), 2, 0},
		{"any instance", identity("prod", 9, 1), identity("prod", 9, 2), 0, 0},
		{"dialler not formed", identity("prod", 0, 1), identity("prod", 9, 2), 2, 0},
		{"acceptor not formed", identity("prod", 9, 1), identity("prod", 0, 2), 2, 0},
		{"itself", identity("prod", 9, 1), identity("prod", 9, 1), 1, 0},
		{"longest name", identity(strings.Repeat("x", 64), 9, 1), identity(strings.Repeat("x", 64), 9, 2), 0, 0},
		{"other name", identity("prod", 9, 1), identity("staging", 9, 2), 2, OtherCluster},
		{"name is a prefix", identity("prod", 9, 1), identity("prod2", 9, 2), 2, OtherCluster},
		{"formed apart", identity("prod", 9, 1), identity("prod", 8, 2), 2, OtherFormation},
		{"other instance", identity("prod", 9, 1), identity("prod", 9, 2), 3, OtherInstance},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := net.Pipe()
			defer a.Close()
			accepted := make(chan error, 1)
			go func() {
				defer b.Close()
				accepted <- acceptHello(b, tt.accepts, tt.dialler.Instance, true, nil)
			}()
			var expect fsm.InstanceID
			if tt.expect != 0 {
				expect = fsm.InstanceID{15: tt.expect}
			}
			dialled := dialHello(a, tt.dialler, expect, tt.accepts.Instance, true)
			for side, err := range map[string]error{"dialler": dialled, "acceptor": <-accepted} {
				if ReasonOf(err) != tt.want || (tt.want == 0) != (err == nil) {
					t.Errorf("%s: %v, want reason %v", side, err, tt.want)
				}
			}
		})
	}
}

// The acceptor's word counts also when the dialler sees nothing wrong, as when the
// acceptor knows a newer reason.
func TestHelloRefusedByPeer(t *testing.T) {
	for _, verdict := range []Reason{OtherFormation, Reason(99)} {
		a, b := net.Pipe()
		go func() {
			defer b.Close()
			if _, err := readFrame(b); err == nil {
				b.Write(frame{version: frameVersion, verdict: verdict, Identity: identity("prod", 9, 2)}.append(nil))
			}
		}()
		err := dialHello(a, identity("prod", 9, 1), fsm.InstanceID{}, fsm.InstanceID{}, false)
		var r *Refused
		if ReasonOf(err) != verdict || !errors.As(err, &r) || !r.ByPeer {
			t.Errorf("verdict %v gives %v", verdict, err)
		}
		a.Close()
	}
}

func TestHelloOfAnotherVersion(t *testing.T) {
	future := frame{version: 2, Identity: identity("prod", 9, 1)}.append(nil)
	future[6] = 200 // what it means then is not ours to check
	var answer bytes.Buffer
	err := acceptHello(readWriter{bytes.NewReader(future), &answer}, identity("prod", 9, 2), fsm.InstanceID{}, false, nil)
	if ReasonOf(err) != OtherVersion {
		t.Fatalf("accepting version 2 = %v", err)
	}
	f, err := parseFrame(answer.Bytes())
	if err != nil || f.verdict != OtherVersion {
		t.Errorf("the answer is %+v, %v", f, err)
	}
}

func TestHelloAgainstCertificate(t *testing.T) {
	hello := frame{version: frameVersion, Identity: identity("prod", 9, 1)}.append(nil)
	var answer bytes.Buffer
	err := acceptHello(readWriter{bytes.NewReader(hello), &answer}, identity("prod", 9, 2), fsm.InstanceID{15: 7}, true, nil)
	if ReasonOf(err) != BadHello {
		t.Errorf("a hello that contradicts its certificate = %v", err)
	}
	said := frame{version: frameVersion, Identity: identity("prod", 9, 2)}.append(nil)
	err = dialHello(readWriter{bytes.NewReader(said), io.Discard}, identity("prod", 9, 1), fsm.InstanceID{}, fsm.InstanceID{15: 7}, true)
	if ReasonOf(err) != BadHello {
		t.Errorf("an answer that contradicts its certificate = %v", err)
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add(frame{version: frameVersion, Identity: identity("prod", 9, 1), expects: fsm.InstanceID{15: 2}}.append(nil))
	f.Add(frame{version: frameVersion, verdict: OtherKey, Identity: identity(strings.Repeat("n", 64), 0, 1)}.append(nil))
	f.Add(frame{version: 7}.append(nil))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseFrame(b)
		if err == nil && got.version == frameVersion && !bytes.Equal(got.append(nil), b) {
			t.Fatalf("%x reads as %+v, which writes %x", b, got, got.append(nil))
		}
	})
}

// An instance that this node may not speak Raft with is refused by name.
func TestHelloNotAdmitted(t *testing.T) {
	var answer bytes.Buffer
	hello := frame{version: frameVersion, Identity: identity("prod", 9, 1)}.append(nil)
	other := func(id fsm.InstanceID) bool { return id != fsm.InstanceID{15: 1} }
	err := acceptHello(readWriter{bytes.NewReader(hello), &answer}, identity("prod", 9, 2), fsm.InstanceID{}, false, other)
	if ReasonOf(err) != NotAdmitted {
		t.Fatalf("error %v", err)
	}
	if f, err := parseFrame(answer.Bytes()); err != nil || f.verdict != NotAdmitted {
		t.Fatalf("the other side is told %v, %v", f.verdict, err)
	}
}
