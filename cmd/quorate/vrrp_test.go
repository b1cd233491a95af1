package main

import (
	"testing"

	"github.com/quorate/quorate/internal/api"
)

func priority(p uint8) *uint8 { return &p }

// mixed is a node that hears another node, a keepalived in both versions, a router
// with another checksum, a BSD host and something unreadable.
func mixed() api.VRRP {
	multicast := func(form string) []api.VRRPDestination {
		return []api.VRRPDestination{{Address: "224.0.0.18", Checksum: form, Mirrored: true, Of: "10.0.0.9"}}
	}
	return api.VRRP{
		Node: "n1",
		Routers: []api.VRRPRouter{
			{Group: "web", Device: "eth0", Family: "ipv4", VRID: 51, State: "Active", Version: "both", Priority: 254, IntervalMS: 1000,
				Addresses: []string{"10.0.0.200", "10.0.0.201"}, Password: true, Source: "10.0.0.1", Listening: true, To: multicast("pseudo-header"),
				MAC: "00:00:5e:00:01:33", Rival: &api.VRRPRival{Address: "10.0.0.8", Priority: 255, Held: true}},
			{Group: "web", Device: "eth0", Family: "ipv6", VRID: 51, State: "Active", Version: "3", Priority: 254, IntervalMS: 1000,
				Addresses: []string{"2001:db8::200"}, Listening: false, To: []api.VRRPDestination{{Address: "ff02::12", Checksum: "pseudo-header"}}},
			{Group: "database", Device: "eth1", Family: "ipv4", VRID: 52, State: "Backup", Version: "3", Priority: 100, IntervalMS: 100,
				Addresses: []string{"10.1.0.200"}, Source: "10.1.0.1", Listening: true, Rival: &api.VRRPRival{Address: "10.1.0.2", Priority: 150},
				To: []api.VRRPDestination{{Address: "10.1.0.2", Checksum: "plain", Mirrored: true, Of: "10.1.0.2"}, {Address: "10.1.0.3", Checksum: "pseudo-header", Mirrored: true}}},
		},
		Neighbours: []api.VRRPNeighbour{
			{Device: "eth0", Family: "ipv4", VRID: 51, Address: "10.0.0.2", MAC: "02:00:00:00:00:02", Insider: true, Dialect: "vrrp", Version: 3,
				Priority: priority(0), IntervalMS: 1000, Addresses: []string{"10.0.0.200", "10.0.0.201"}, Checksum: "pseudo-header",
				FirstAgoMS: 90000, LastAgoMS: 61250, Adverts: 30},
			{Device: "eth0", Family: "ipv4", VRID: 51, Address: "10.0.0.8", MAC: "02:00:00:00:00:08", Dialect: "vrrp", Speaking: true, Version: 3,
				Priority: priority(255), IntervalMS: 2000, Addresses: []string{"10.0.0.200"}, Checksum: "plain", FirstAgoMS: 5000, LastAgoMS: 312.5, Adverts: 3,
				Differences: []api.VRRPDifference{
					{Group: "web", Field: "checksum", Here: "pseudo-header", There: "plain", Breaks: true, Advice: "write the same"},
					{Group: "web", Field: "interval", Here: "1s", There: "2s", Advice: "a backup learns it"}}},
			{Device: "eth0", Family: "ipv4", VRID: 51, Address: "10.0.0.9", MAC: "02:00:00:00:00:09", Dialect: "vrrp", Version: 2,
				Priority: priority(100), IntervalMS: 1000, Addresses: []string{"10.0.0.200", "10.0.0.201"}, Checksum: "plain", Auth: "simple password",
				FirstAgoMS: 5000, LastAgoMS: 4500, Adverts: 3, Refused: 3, LastRefusal: &api.VRRPWhy{Reason: "auth-data", Text: "the password is another", AgoMS: 4500}},
			{Device: "eth0", Family: "ipv4", VRID: 51, Address: "10.0.0.10", Dialect: "carp", Speaking: true, IntervalMS: 1000, FirstAgoMS: 5000, LastAgoMS: 100,
				Refused: 5, LastRefusal: &api.VRRPWhy{Reason: "carp", Text: "it is CARP's", AgoMS: 100},
				Differences: []api.VRRPDifference{{Group: "web", Field: "protocol", Here: "VRRP", There: "CARP", Advice: "give one of them another id"}}},
			{Device: "eth1", Family: "ipv4", Address: "10.1.0.9", Dialect: "unreadable", FirstAgoMS: 5000, LastAgoMS: 100, Refused: 1,
				LastRefusal: &api.VRRPWhy{Reason: "too-short", Text: "1 byte", AgoMS: 100}},
		},
		Accepted: 36,
		Refused: []api.VRRPRefusal{
			{Reason: "carp", Count: 5, Device: "eth0", VRID: 51, Address: "10.0.0.10", Text: "it is CARP's", AgoMS: 100},
			{Reason: "auth-data", Count: 3, Device: "eth0", VRID: 51, Address: "10.0.0.9", MAC: "02:00:00:00:00:09", Text: "the password is another", AgoMS: 4500},
			{Reason: "too-short", Count: 1, Device: "eth1", Address: "10.1.0.9", Text: "1 byte", AgoMS: 100},
		},
		Overruns: 12, Crowded: 1,
	}
}

func TestVRRP(t *testing.T) {
	dir, socket := startDaemon(t, &fakeAgent{vrrp: mixed()})
	golden(t, "vrrp", dir, "vrrp", "--socket", socket)
	golden(t, "vrrp-json", dir, "vrrp", "--json", "--socket", socket)
	quiet := api.VRRP{Node: "n1", Routers: []api.VRRPRouter{}, Neighbours: []api.VRRPNeighbour{}, Refused: []api.VRRPRefusal{}}
	dir, socket = startDaemon(t, &fakeAgent{vrrp: quiet})
	golden(t, "vrrp-quiet", dir, "vrrp", "--socket", socket)
	golden(t, "vrrp-quiet-json", dir, "vrrp", "--json", "--socket", socket)
}
