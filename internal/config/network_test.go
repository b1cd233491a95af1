package config

import (
	"net/netip"
	"os"
	"regexp"
	"testing"
)

// TestNetworkExamples: `quorate check` accepts each example of docs/network.md, on a host with the devices that the text speaks of.
func TestNetworkExamples(t *testing.T) {
	b, err := os.ReadFile("../../docs/network.md")
	if err != nil {
		t.Fatal(err)
	}
	host := Host{
		Name:      func() (string, error) { return "n1", nil },
		Addresses: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil },
	}
	own := func(prefix string) LinkAddress {
		return LinkAddress{Prefix: netip.MustParsePrefix(prefix), Permanent: true}
	}
	links := []Link{
		{Name: "eth0", Addresses: []LinkAddress{own("10.0.0.1/24"), own("2001:db8::1/64")}},
		{Name: "eth1", Addresses: []LinkAddress{own("192.0.2.1/24")}},
	}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(b, -1)
	if len(examples) < 3 {
		t.Fatalf("%d examples found", len(examples))
	}
	for _, e := range examples {
		cfg, err := host.Parse("docs/network.md", e[1])
		if err == nil {
			err = CheckHost(cfg, links)
		}
		if err != nil {
			t.Errorf("%s\n%v", e[1], err)
		}
	}
}
