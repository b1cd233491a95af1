package lab

import (
	"net/netip"
	"os/exec"
	"testing"
	"time"
)

// keepalivedPair is two keepalived of the machine's version, 150 and 100, as the
// daemons under test.
type keepalivedPair struct {
	lab     *Lab
	hosts   [2]*Host
	procs   [2]*Process
	watches [2]*VRRPWatch
	probe   *Probe
	client  *Client
}

func startPair(t *testing.T, interval time.Duration) *keepalivedPair {
	t.Helper()
	if _, err := exec.LookPath("keepalived"); err != nil {
		t.Skip("SKIPPED: keepalived is not installed (apt-get install keepalived)")
	}
	l := newLab(t)
	k := &keepalivedPair{lab: l}
	judge, user := addHost(t, l, "judge", 12), addHost(t, l, "user", 13)
	var err error
	k.probe, err = judge.StartProbe(testVIP.Addr(), DefaultPeriod, 0)
	must(t, err)
	k.client, err = user.StartClient(testVIP.Addr(), DefaultPeriod)
	must(t, err)
	for i, name := range []string{"k1", "k2"} {
		h := addHost(t, l, name, i+1)
		must(t, h.ServeEcho())
		k.watches[i], err = h.Watch(testVIP.Addr())
		must(t, err)
		k.procs[i], err = h.StartKeepalived(Keepalived{
			Priority: 150 - 50*i, VRID: 51, Interval: interval, VIPs: []netip.Prefix{testVIP},
		})
		must(t, err)
		k.hosts[i] = h
		// The second comes when the first is master: it has no reason to act then.
		until(t, "k1 answers", 15*time.Second, func() bool { return k.latest() == "k1" })
	}
	pause(time.Second)
	if k.watches[1].Acted(0, Now()) {
		t.Error("the keepalived of lower priority was not Backup all the time")
	}
	if !k.watches[0].Acted(0, Now()) {
		t.Error("the watch saw nothing of the master")
	}
	return k
}

// pause lets a fault last: the length of a fault is part of what is measured.
func pause(d time.Duration) { <-time.After(d) }

// latest names the host of the latest answer.
func (k *keepalivedPair) latest() string {
	if a := k.probe.Trace().Answers; len(a) > 0 {
		return a[len(a)-1].Host
	}
	return ""
}

// verdict judges from an instant till now, and logs a row.
func (k *keepalivedPair) verdict(t *testing.T, row string, from Instant) (two, outage time.Duration) {
	t.Helper()
	must(t, k.probe.Err())
	to := Now()
	tr := k.probe.Trace().Between(from, to)
	two = Total(Overlaps([]Trace{tr}))
	outage = Outage(tr.Answers, from, to).Length()
	t.Logf("keepalived, %s: outage %v, client outage %v, two owners %v, %d announcements, longest time without a question %v",
		row, outage, Outage(k.client.Trace().Answers, from, to).Length(), two, len(tr.Announcements), Blind(tr, from, to).Length())
	return two, outage
}

// TestJudge_seesKeepalivedSplitBrain is the lab's proof of itself: the three faults
// after which keepalived is known to leave two owners (design, section 1) show them,
// and a clean stop shows none. What a pulled cable does on its return is logged only.
func TestJudge_seesKeepalivedSplitBrain(t *testing.T) {
	t.Run("kill -9", func(t *testing.T) {
		t.Parallel() // they wait most of the time
		k := startPair(t, 100*time.Millisecond)
		from := Now()
		must(t, k.procs[0].Kill())
		pause(3 * time.Second)
		if two, _ := k.verdict(t, "kill -9, 3 s", from); two < 2*time.Second {
			t.Errorf("%v with two owners, want nearly 3s: the dead one's address stays", two)
		}
	})
	t.Run("freeze", func(t *testing.T) {
		t.Parallel() // they wait most of the time
		k := startPair(t, 100*time.Millisecond)
		from := Now()
		must(t, k.procs[0].Freeze())
		pause(3 * time.Second)
		must(t, k.procs[0].Thaw())
		pause(2 * time.Second)
		if two, _ := k.verdict(t, "frozen 3 s", from); two < 2*time.Second {
			t.Errorf("%v with two owners, want more than 2s: the kernel answers for the frozen one", two)
		}
		if got := k.latest(); got != "k1" {
			t.Errorf("in the end %s answers, want k1", got)
		}
	})
	t.Run("cut and mend", func(t *testing.T) {
		t.Parallel() // they wait most of the time
		k := startPair(t, time.Second)
		// Until one of the two hears the other both own it: up to an advert interval, by
		// chance now and then too short to see.
		var two time.Duration
		for range 3 {
			from := Now()
			must(t, k.hosts[0].Cut())
			pause(5 * time.Second)
			must(t, k.hosts[0].Mend())
			pause(2500 * time.Millisecond)
			var outage time.Duration
			if two, outage = k.verdict(t, "cut 5 s and mended", from); outage < time.Second {
				t.Errorf("outage %v, want more than 1s at adverts of 1s", outage)
			}
			if two > 0 {
				return
			}
		}
		t.Error("no two owners after mending, three times over")
	})
	t.Run("pull, clean stop", func(t *testing.T) {
		t.Parallel() // they wait most of the time
		k := startPair(t, 100*time.Millisecond)
		from := Now()
		must(t, k.hosts[0].Pull())
		pause(2 * time.Second)
		must(t, k.hosts[0].Replug())
		pause(3 * time.Second)
		k.verdict(t, "cable out 2 s and in again", from)
		until(t, "k1 is back", 5*time.Second, func() bool { return k.latest() == "k1" })
		from = Now()
		must(t, k.procs[0].Stop(5*time.Second))
		pause(2 * time.Second)
		if two, _ := k.verdict(t, "clean stop", from); two != 0 {
			t.Errorf("clean stop: %v with two owners, want none", two)
		}
		if got := k.latest(); got != "k2" {
			t.Errorf("after the clean stop %s answers, want k2", got)
		}
	})
}
