// Package vrrpcompat speaks VRRP as data: it turns adverts into bytes and bytes into adverts, and decides what a virtual
// router does about them, as a router of its own or as the one speaker of a cluster.
//
// It is pure: it reads no clock, opens no socket and starts nothing. Functions may be called concurrently; a value that
// has methods with a pointer receiver belongs to one goroutine. The sockets are in vrrpcompat/wire.
//
// The parts, in the order in which a packet meets them:
//
//   - [Decode] turns the payload of an IP packet into an [Advert], or says by a [Reject] what is wrong with it in itself.
//   - [Listening] remembers whom this host hears, and [Virtual.Differences] says what about them is not as it is here.
//   - [Virtual.Refuse] says what is wrong with an advert for one virtual router as it is configured here.
//   - [Router] is the state machine of RFC 9568 section 6.4, for a node that is a router in its own right.
//   - [Gate] is what stands in its place where a cluster has decided already who may be Active.
//   - [Mirror] chooses the checksum that the routers outside want.
//
// Both versions are spoken: version 3 (RFC 9568, and RFC 5798 where that differs) for IPv4 and IPv6, and version 2
// (RFC 3768) for IPv4, with the simple password of RFC 2338. Not spoken are version 2's other authentication, the IPsec
// header of RFC 2338 (keepalived's "auth_type AH"), and the HMAC trailer that keepalived 2.4 puts behind a packet
// ("auth_hmac"): such packets are recognised, refused, and named (ReasonAuthType, ReasonHMACTrailer). An AH packet has another IP protocol and
// mostly does not arrive at all.
//
// The packet (RFC 9568, section 5.1; RFC 3768, section 5.1), addresses of 4 bytes for IPv4 or 16 for IPv6:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------+-------+---------------+---------------+---------------+
//	|version| type 1|      VRID     |   priority    | address count |
//	+-------+-------+---------------+---------------+---------------+
//	| rsvd  |  interval, 12 bit, cs |           checksum            |  version 3
//	|   auth type   |  interval, s  |           checksum            |  version 2
//	+---------------+---------------+-------------------------------+
//	|                          addresses …                          |
//	+---------------------------------------------------------------+
//	|        authentication data, 8 bytes, version 2 only           |
//	+---------------------------------------------------------------+
package vrrpcompat
