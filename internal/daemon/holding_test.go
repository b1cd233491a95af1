package daemon

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// What cannot be done for all addresses at once is done for each that it can be done for,
// and the error names the others: a fence that is shut half way must not stay open for the rest.
func TestEachIfNotAll(t *testing.T) {
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	for _, tt := range []struct {
		name    string
		refused []netip.Addr
		done    []netip.Addr
	}{
		{"none is refused", nil, []netip.Addr{a, b, c}},
		{"the first is refused", []netip.Addr{a}, []netip.Addr{b, c}},
		{"one in the middle is refused", []netip.Addr{b}, []netip.Addr{a, c}},
		{"two are refused", []netip.Addr{a, c}, []netip.Addr{b}},
		{"all are refused", []netip.Addr{a, b, c}, nil},
	} {
		var done []netip.Addr
		err := eachIfNotAll([]netip.Addr{a, b, c}, func(addrs []netip.Addr) error {
			for _, addr := range addrs { // as the fence does: it stops at the first that it cannot write
				if slices.Contains(tt.refused, addr) {
					return errors.New("cannot write " + addr.String())
				}
				if !slices.Contains(done, addr) {
					done = append(done, addr)
				}
			}
			return nil
		})
		slices.SortFunc(done, netip.Addr.Compare)
		if !slices.Equal(done, tt.done) {
			t.Errorf("%s: done for %v, want %v", tt.name, done, tt.done)
		}
		for _, addr := range tt.refused {
			if err == nil || !strings.Contains(err.Error(), addr.String()) {
				t.Errorf("%s: the error is %v, want it to name %v", tt.name, err, addr)
			}
		}
		if len(tt.refused) == 0 && err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
