//go:build ignore

// SPDX-License-Identifier: Apache-2.0
//
// The fence: a traffic control program that keeps this host from answering for
// an address whose lease has run out, whatever the process that holds it does.
//
// It stands on every device, in both directions. For each frame it looks up the
// addresses that the frame speaks for or to; one that is in the map and whose
// deadline has come makes it drop the frame. An address that is not in the map,
// a protocol that it does not know and a frame too short to be read all pass:
// the fence is for our addresses and nothing else.
//
// Not read, and why that does no harm: ICMPv6 behind IPv6 extension headers. A
// Neighbor Solicitation hidden so may reach the stack, but the answer leaves
// with the asked address as its IPv6 source, and that is checked.
//
// Self-contained: no kernel or libc header is needed. See generate.sh.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for little-endian targets"
#endif
#define NET16(x) ((u16)((((x)&0xff) << 8) | ((x) >> 8)))

// The head of the kernel's struct __sk_buff, up to the last field used here.
struct __sk_buff {
	u32 len;
	u32 pkt_type;
	u32 mark;
	u32 queue_mapping;
	u32 protocol;
};

// Helper numbers of include/uapi/linux/bpf.h; the youngest, 125, is of Linux 5.8.
static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*load_bytes)(const void *skb, u32 off, void *to, u32 len) = (void *)26;
static long (*pull_data)(void *skb, u32 len) = (void *)39;
static long (*load_bytes_relative)(const void *skb, u32 off, void *to, u32 len, u32 start) = (void *)68;
static u64 (*ktime_get_boot_ns)(void) = (void *)125;

#define BPF_NOEXIST 1
#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_LRU_HASH 9

// Where offsets count from: the start of the frame, or the network header, for
// devices that have no Ethernet header (tunnels, WireGuard, InfiniBand).
#define FROM_MAC 0
#define FROM_NET 1

// Enough for every header that is read: the longest is an IPv6 advert, behind
// whatever header the device has.
#define HEAD 192

// For tcx these are TCX_NEXT and TCX_DROP: the same numbers.
#define PASS (-1)
#define DROP 2

#define ETH_IPV4 NET16(0x0800)
#define ETH_ARP NET16(0x0806)
#define ETH_IPV6 NET16(0x86dd)
#define ETH_8021Q NET16(0x8100)
#define ETH_8021AD NET16(0x88a8)
#define PROTO_ICMPV6 58
#define PROTO_VRRP 112
#define ICMPV6_NS 135
#define ICMPV6_NA 136

// Addresses of an advert that are looked at. All addresses of a group share one
// deadline; more than one is read because the first of an IPv6 advert is
// link-local (RFC 9568, section 5.2.9) and need not be one of ours.
#define ADVERT_ADDRS 4

// IPv6, or IPv4 mapped into it (RFC 4291, section 2.5.5.2).
struct addr {
	u32 w[4];
};

// Address -> absolute deadline, nanoseconds of CLOCK_BOOTTIME. User space writes it.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct addr);
	__type(value, u64);
} deadlines SEC(".maps");

// Address -> frames dropped since the map was made. LRU, so that addresses that
// are long gone make room by themselves.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct addr);
	__type(value, u64);
} drops SEC(".maps");

// load returns 0 when it has read all len bytes. The helper that counts from the
// network header sees the linear part only, see net().
INLINE int load(struct __sk_buff *skb, u32 off, void *to, u32 len, int from)
{
	if (from == FROM_NET)
		return load_bytes_relative(skb, off, to, len, 1);
	return load_bytes(skb, off, to, len);
}

INLINE void count(const struct addr *a)
{
	u64 *n = map_lookup(&drops, a), one = 1;

	if (!n) {
		// Lost to another CPU in between: then the entry is there.
		if (!map_update(&drops, a, &one, BPF_NOEXIST))
			return;
		n = map_lookup(&drops, a);
	}
	if (n)
		__sync_fetch_and_add(n, 1);
}

INLINE int over(const struct addr *a)
{
	u64 *deadline = map_lookup(&deadlines, a);

	if (!deadline || ktime_get_boot_ns() < *deadline)
		return 0;
	count(a);
	return 1;
}

INLINE int over4(struct __sk_buff *skb, u32 off, int from)
{
	struct addr a = {};

	a.w[2] = 0xffff0000;
	return !load(skb, off, &a.w[3], 4, from) && over(&a);
}

INLINE int over6(struct __sk_buff *skb, u32 off, int from)
{
	struct addr a = {};

	return !load(skb, off, &a, 16, from) && over(&a);
}

// A thawed process must not claim by VRRP what it no longer holds. Priority 0
// passes: it says that the sender gives up, which is no claim. VRRPv2 and v3
// both have their addresses at offset 8 (RFC 3768 5.1, RFC 9568 5.1).
INLINE int over_advert(struct __sk_buff *skb, u32 off, int v6, int from)
{
	u8 h[4]; // version and type, VRID, priority, number of addresses
	u32 i;

	if (load(skb, off, h, 4, from) || (h[0] & 0x0f) != 1 || h[2] == 0)
		return 0;
	for (i = 0; i < ADVERT_ADDRS; i++) {
		if (i >= h[3])
			break;
		if (v6 ? over6(skb, off + 8 + 16 * i, from) : over4(skb, off + 8 + 4 * i, from))
			return 1;
	}
	return 0;
}

INLINE int over_ipv4(struct __sk_buff *skb, u32 off, int egress, int from)
{
	u8 ihl, proto;

	if (over4(skb, off + 12, from) || over4(skb, off + 16, from))
		return 1;
	if (!egress || load(skb, off + 9, &proto, 1, from) || proto != PROTO_VRRP)
		return 0;
	if (load(skb, off, &ihl, 1, from))
		return 0;
	return over_advert(skb, off + (ihl & 0x0f) * 4, 0, from);
}

// The hardware length is read, not assumed: InfiniBand has 20 bytes (RFC 4391).
INLINE int over_arp(struct __sk_buff *skb, u32 off, int from)
{
	u8 len[2]; // of hardware and of protocol addresses

	if (load(skb, off + 4, len, 2, from) || len[1] != 4)
		return 0;
	return over4(skb, off + 8 + len[0], from) || over4(skb, off + 12 + 2 * (u32)len[0], from);
}

INLINE int over_ipv6(struct __sk_buff *skb, u32 off, int egress, int from)
{
	u8 next, type;

	if (over6(skb, off + 8, from) || over6(skb, off + 24, from))
		return 1;
	if (load(skb, off + 6, &next, 1, from))
		return 0;
	if (egress && next == PROTO_VRRP)
		return over_advert(skb, off + 40, 1, from);
	if (next != PROTO_ICMPV6 || load(skb, off + 40, &type, 1, from))
		return 0;
	if (type != ICMPV6_NS && type != ICMPV6_NA)
		return 0;
	return over6(skb, off + 48, from);
}

// Does the frame come from a virtual router's MAC address past its deadline? Such
// an address (RFC 9568, section 7.3) is in the map as 100::/64 with the MAC in the
// last 48 bits, which is no host's address (RFC 6666). Whatever such a frame says,
// switches would send to this host what is meant for the Active router: the kernel
// itself answers multicast queries by it, and other programs of the host speak on
// every device. Adverts are judged by what they list, see over_advert().
INLINE int over_mac(struct __sk_buff *skb, u16 proto, u32 off)
{
	struct addr a = {};
	u8 next = 0;

	if (load(skb, 6, (u8 *)&a + 10, 6, FROM_MAC))
		return 0;
	// 00-00-5E-00-01-xx or 00-00-5E-00-02-xx
	if (a.w[2] || (a.w[3] & 0xffff) != 0x005e)
		return 0;
	if ((a.w[3] & 0xff0000) != 0x010000 && (a.w[3] & 0xff0000) != 0x020000)
		return 0;
	if (proto == ETH_IPV4)
		load(skb, off + 9, &next, 1, FROM_MAC);
	else if (proto == ETH_IPV6)
		load(skb, off + 6, &next, 1, FROM_MAC);
	if (next == PROTO_VRRP)
		return 0;
	a.w[0] = 0x00000001;
	return over(&a);
}

INLINE int judge(struct __sk_buff *skb, u16 proto, u32 off, int egress, int from)
{
	int drop = 0;

	if (proto == ETH_IPV4)
		drop = over_ipv4(skb, off, egress, from);
	else if (proto == ETH_IPV6)
		drop = over_ipv6(skb, off, egress, from);
	else if (proto == ETH_ARP)
		drop = over_arp(skb, off, from);
	return drop ? DROP : PASS;
}

// Tags that hardware or the stack took out of the frame need no care: what is
// left in the frame then is the inner type. Up to two may still be in it.
INLINE int ethernet(struct __sk_buff *skb, int egress)
{
	u32 off = 14;
	u16 proto;
	int i;

	if (load(skb, 12, &proto, 2, FROM_MAC))
		return PASS;
#pragma unroll
	for (i = 0; i < 2; i++) {
		if (proto != ETH_8021Q && proto != ETH_8021AD)
			break;
		if (load(skb, off + 2, &proto, 2, FROM_MAC))
			return PASS;
		off += 4;
	}
	if (egress && over_mac(skb, proto, off))
		return DROP;
	return judge(skb, proto, off, egress, FROM_MAC);
}

// A frame whose headers lie in page fragments is made linear first. Should that
// fail for want of memory, the stack could not read the headers either.
INLINE int net(struct __sk_buff *skb, int egress)
{
	pull_data(skb, skb->len < HEAD ? skb->len : HEAD);
	return judge(skb, skb->protocol, 0, egress, FROM_NET);
}

SEC("tc/in_eth") int fence_in_eth(struct __sk_buff *skb)
{
	return ethernet(skb, 0);
}

SEC("tc/out_eth") int fence_out_eth(struct __sk_buff *skb)
{
	return ethernet(skb, 1);
}

SEC("tc/in_net") int fence_in_net(struct __sk_buff *skb)
{
	return net(skb, 0);
}

SEC("tc/out_net") int fence_out_net(struct __sk_buff *skb)
{
	return net(skb, 1);
}

char _license[] SEC("license") = "Apache-2.0";
