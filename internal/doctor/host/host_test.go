package host

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/doctor"
)

// TestGather looks at this machine: a fence of its own must have stopped frames.
func TestGather(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: this test makes a network namespace and attaches BPF programs, which needs root")
	}
	dir := t.TempDir()
	h := Gather(t.Context(), Options{DataDir: dir, Fence: "bpf", GraceMS: 5})
	if !h.Root || h.Kernel == "" || h.TimeShifted != "" || len(h.MACs) == 0 || h.NonlocalBind < 0 || h.SockDestroy == 0 {
		t.Errorf("%+v", h)
	}
	if f := h.Fence; f.Problem != "" || f.Kind == "" {
		t.Errorf("the fence: %+v", f)
	} else if f.Trials > 0 && f.LateMS > 0 {
		t.Errorf("a frame that was sent %v ms after the deadline passed", f.LateMS)
	}
	if d := h.Disk; d.Problem != "" || d.Path != dir || d.Writes+int(d.PendingMS) == 0 {
		t.Errorf("the disk: %+v", d)
	}
	if left, err := os.ReadDir(dir); err != nil || h.Disk.PendingMS == 0 && len(left) > 0 {
		t.Errorf("left in data_dir: %v, %v", left, err)
	}
	t.Logf("%+v", h)
}

func TestDiskThatCannotBeWritten(t *testing.T) {
	d := tryDisk(t.Context(), filepath.Join(t.TempDir(), "none"))
	if d.Problem == "" || d.Writes != 0 {
		t.Errorf("%+v", d)
	}
	// A pipe in the place of the file, which nobody reads: opening it waits for ever.
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, diskFile), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if d := tryDisk(ctx, dir); d.PendingMS == 0 || d.Problem != "" {
		t.Errorf("a write that hangs: %+v", d)
	}
	if d := tryDisk(ctx, dir); d.PendingMS == 0 || d.Writes != 0 {
		t.Errorf("a second one beside it: %+v", d)
	}
	r, err := os.OpenFile(filepath.Join(dir, diskFile), os.O_RDONLY, 0) // the first one ends
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for deadline := time.Now().Add(5 * time.Second); trying.Load(); {
		if time.Now().After(deadline) {
			t.Fatal("it still hangs")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestUses(t *testing.T) {
	p := netip.MustParsePrefix
	doc := fsm.Document{Groups: []fsm.Group{
		{Addresses: []netip.Prefix{p("10.0.0.1/24"), p("2001:db8::1/64"), p("10.0.0.2/24")}, Interface: "eth0", VRRP: fsm.VRRP{ID: 1}, VMAC: true,
			Specs: map[netip.Addr]fsm.AddressSpec{netip.MustParseAddr("10.0.0.2"): {Interface: "eth1"}}},
		{Addresses: []netip.Prefix{p("10.0.1.1/24")}, VRRP: fsm.VRRP{ID: 2, Unicast: []fsm.Peer{{}}}},
		{Addresses: []netip.Prefix{p("10.0.2.1/24")}},
	}}
	got := Uses(doc, func(a netip.Addr) (string, error) {
		if a == netip.MustParseAddr("10.0.1.1") {
			return "eth2", nil
		}
		return "", errors.New("none")
	})
	a := netip.MustParseAddr
	want := []Use{
		{Device: "eth0", Serves: []netip.Addr{a("10.0.0.1"), a("2001:db8::1")}, Adverts4: true, Adverts6: true, VMAC: true},
		{Device: "eth1", Serves: []netip.Addr{a("10.0.0.2")}, Adverts4: true, VMAC: true},
		{Device: "eth2", Serves: []netip.Addr{a("10.0.1.1")}},
		{Device: noDevice, Serves: []netip.Addr{a("10.0.2.1")}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if d := Describe(got[3:]); d[0].Index != 0 {
		t.Errorf("%+v", d)
	}
	if d := Describe([]Use{{Device: "lo"}}); d[0].Index != 1 || d[0].MTU == 0 || d[0].Sysctls == nil {
		t.Errorf("%+v", d)
	}
}

func TestRounds(t *testing.T) {
	if Round(doctor.MinMeasure, 0) != Settle || Round(doctor.MinMeasure, Rounds) != doctor.MinMeasure-tail {
		t.Errorf("from %s to %s", Round(doctor.MinMeasure, 0), Round(doctor.MinMeasure, Rounds))
	}
	if again := Round(doctor.MinMeasure, Rounds-1) - Round(doctor.MinMeasure, 0); again <= time.Second {
		t.Errorf("the last announcement comes %s after the first: some ignore one for a second", again)
	}
}

func TestRouteMTU(t *testing.T) {
	if got := RouteMTU(netip.MustParseAddrPort("127.0.0.1:7950")); got < 1500 {
		t.Errorf("loopback's MTU is %d", got)
	}
}
