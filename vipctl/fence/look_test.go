package fence

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/vipctl/internal/nstest"
)

// TestLook: what a dead daemon left is seen, and nothing of it is touched.
func TestLook(t *testing.T) {
	h := nstest.New(t)
	nstest.Connect(t, h, "eth0", nstest.New(t), "eth0")
	look := func(tag string) (got map[netip.Addr]election.Instant) {
		t.Helper()
		h.Run(t, func() (err error) {
			got, err = Look(tag)
			return err
		})
		return got
	}
	if got := look("abc123"); len(got) != 0 {
		t.Fatalf("without a fence: %v", got)
	}
	f := open(t, h, 0)
	cover(t, f)
	want := map[netip.Addr]election.Instant{vip4: now(t).Add(time.Hour), vip6: 0}
	for a, until := range want {
		set(t, f, a, until)
	}
	before := attachedPrograms(t, h, f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := look("abc123"); !maps.Equal(got, want) {
		t.Errorf("entries %v, want %v", got, want)
	}
	if got := look("abc124"); len(got) != 0 {
		t.Errorf("another cluster's: %v", got)
	}
	if after := attachedPrograms(t, h, f); !slices.Equal(after, before) || len(before) == 0 {
		t.Errorf("programs %v, before %v", after, before)
	}
}

// attachedPrograms are the ids of the fence's programs on all devices.
func attachedPrograms(t *testing.T, h *nstest.Host, f *Fence) (ids []uint32) {
	t.Helper()
	h.Run(t, func() error {
		devices, err := listDevices()
		if err != nil {
			return err
		}
		for _, d := range devices {
			for _, dir := range directions {
				list, err := f.hook.attached(d, dir)
				if err != nil {
					return err
				}
				for _, a := range list {
					ids = append(ids, uint32(a.id))
				}
			}
		}
		return nil
	})
	return ids
}
