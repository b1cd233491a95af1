package doctor

// An entry is what is the same for every finding of an id.
type entry struct {
	why, mend string
	well      string // what a summary of many looks says, where all was well
}

// catalogue has every finding that there can be, by its id.
var catalogue = map[string]entry{
	"daemon": {
		why:  "nothing on this host takes part in the cluster, and what lies between the nodes was not looked at",
		mend: "start it (systemctl start quorate), then run quorate doctor again",
	},
	"node-silent": {
		why:  "a node that does not answer takes nothing over, and if it is a voter, each further failure is nearer to the last majority",
		mend: "look whether it runs (systemctl status quorate there), then at the findings tcp and udp; quorate remove NODE if it is gone for good",
	},
	"quorum": {
		why:  "without a majority of voters nobody may hold a VIP, and nothing can be moved",
		mend: "bring voters back; if most are lost for good, see quorate recover",
	},
	"voters": {
		why:  "the majority must outlive the loss of one node, or its VIPs are answered by nobody",
		mend: "run three or five voters; a small host with role: witness is enough for the third",
	},
	"group": {
		why:  "nobody may be answering for this group now",
		mend: "quorate explain GROUP says why it is where it is",
	},
	"standby": {
		why:  "when the owner goes, nobody may take the group",
		mend: "undrain or start another member, or give it a priority above 0 in vips.GROUP.priority",
	},
	"problem": {
		why:  "the node itself says that something keeps it from its part",
		mend: "quorate status on that node, and its log",
	},
	"versions": {
		why:  "nodes of different versions are meant for the time of a rolling update only",
		mend: "finish the update on all nodes",
	},
	"lease-differs": {
		why:  "how long a lost owner may still answer depends on which node it is",
		mend: "write the same lease: in every file",
	},
	"capabilities": {
		why:  "the daemon sets addresses, opens raw sockets and attaches the fence; without these it does not start, or holds nothing",
		mend: "run it as root or with the capabilities of deploy/systemd; in a container add them there. By hand: sudo quorate doctor",
	},
	"kernel": {
		why:  "the fence needs BPF programs on devices (Linux 5.8 or later)",
		mend: "boot a newer kernel, or read docs/safety.md on fence: lifetime",
	},
	"time-namespace": {
		why:  "the fence compares deadlines with the host's clock, and this process reads another one",
		mend: "start the daemon outside that time namespace",
	},
	"address-proto": {
		why:  "addresses cannot be marked as ours; they are known by their lifetime instead",
		mend: "nothing need be done; Linux 5.18 or later marks them",
	},
	"sock-destroy": {
		why:  "TCP connections to a VIP that leaves cannot be reset: clients notice by their own timeouts",
		mend: "a kernel with CONFIG_INET_DIAG_DESTROY=y resets them at once",
	},
	"fence": {
		why:  "the fence is what stops a host from answering when its lease is over, whatever its process does",
		mend: "see docs/safety.md; with fence: bpf a Linux of 5.8 or later, 6.6 for tcx, with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF",
	},
	"bpffs": {},
	"device": {
		why:  "addresses can stand only on a device that is there, is up, has a carrier, and answers ARP",
		mend: "ip link show DEVICE; bring it up, or correct vips.GROUP.interface",
	},
	"arp-ignore": {
		why:  "with arp_ignore at 3 or more the kernel does not answer, or not to all, who has the VIP: neighbours cannot reach it",
		mend: "sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.DEVICE.arp_ignore=0 (1 is fine too), and in /etc/sysctl.d",
	},
	"arp-announce": {},
	"rp-filter": {
		why:  "strict reverse path filtering drops what comes in by another device than answers would leave by, such as behind two routers",
		mend: "if clients come by several devices: sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.DEVICE.rp_filter=2",
	},
	"nonlocal-bind": {},
	"promote-secondaries": {
		why: "when the device's main address goes, as when DHCP gives another one, the kernel removes with it all other addresses of " +
			"that network, VIPs too; quorate puts them back, and connections may notice",
		mend: "sysctl -w net.ipv4.conf.all.promote_secondaries=1, and in /etc/sysctl.d",
	},
	"ipv6-disabled": {
		why:  "IPv6 addresses cannot stand on a device where IPv6 is disabled: this node cannot take the group",
		mend: "sysctl -w net.ipv6.conf.DEVICE.disable_ipv6=0, and look who disabled it",
	},
	"disk": {
		why: "a change of owner is a commit, which waits for the disk of a majority; Raft calls an election off when a write takes " +
			"longer than its timeout of 500 ms",
		mend: "put data_dir on a local disk that is not shared with heavy writers; ionice those; look for a failing disk (smartctl, dmesg)",
	},
	"fabric": {
		why: "clouds without a real LAN deliver neither broadcast nor gratuitous ARP: an address that moves is not found again " +
			"until the cloud itself is told",
		mend: "where the findings lan and garp are broken, have hooks: {active: …} call the provider's API to move the address",
	},
	"udp": {
		why:  "leases go by UDP on the nodes' port: a node that does not hear another neither confirms nor notices it",
		mend: "let UDP on that port through from node to node, both ways (nft list ruleset, security groups), and see quorate status for refused or foreign",
		well: "datagrams arrive from every node at every other on the nodes' port",
	},
	"tcp": {
		why:  "Raft goes by TCP on the nodes' port: without it no owner can be named and no log copied between these two",
		mend: "let TCP on that port through from node to node, both ways (nft list ruleset, security groups)",
		well: "each node can connect to every other on the nodes' port",
	},
	"mtu": {
		why:  "short packets arrive and long ones are lost without a word: leases of many groups, and Raft's longer messages, never arrive",
		mend: "find the link with the smaller MTU (tracepath NODE), and set it on all or lower it on the nodes' devices",
		well: "the largest datagrams and frames arrive whole between all nodes",
	},
	"mtu-differs": {
		why:  "hosts on one LAN must agree on the MTU; what the larger one sends, the smaller one loses",
		mend: "ip link set dev DEVICE mtu N, the same everywhere",
	},
	"fragments": {
		why:  "a lease datagram in two fragments is lost twice as often, and many firewalls drop fragments",
		mend: "raise the MTU on that path to what a datagram needs",
	},
	"rtt": {
		why:  "a renewal is a question and its answer; when they take as long as the time between two, leases run out without a fault",
		mend: "set a longer lease: (its third is the time between renewals), or find what delays (ping, load, nice)",
		well: "round trips are short against the lease",
	},
	"clock-rate": {
		why:  "leases are measured by each host's own clock; the promise of one owner allows two clocks to differ by 1 % in rate",
		mend: "look at chronyc tracking and the hypervisor's clock source; chrony's maxslewrate 4000 keeps it below the bound",
		well: "the clocks run at one rate",
	},
	"clock-wall": {
		why:  "nothing of quorate rests on the time of day; logs and histories of the nodes are hard to compare, and tls: files may seem invalid",
		mend: "run an NTP client on every node",
		well: "the nodes agree on the time of day",
	},
	"lan": {
		why: "frames to everybody do not arrive on the device of the VIPs although the nodes reach each other: the two are not on one " +
			"LAN, or it is a cloud's fabric that only looks like one. After a failover neighbours would not learn where the address is",
		mend: "check VLANs and vips.GROUP.interface; in a cloud, move the address by the provider's API from hooks",
		well: "broadcasts arrive between all nodes on the devices of the VIPs",
	},
	"multicast": {
		why: "the switch does not deliver VRRP's multicast groups, as IGMP snooping without a querier does: a VRRP router behind that " +
			"port believes that nobody is Active and takes the addresses too",
		mend: "enable an IGMP/MLD querier on the VLAN, or disable snooping for 224.0.0.0/24; or write vrrp.unicast",
		well: "multicast to VRRP's groups arrives between all nodes",
	},
	"protocol-112": {
		why:  "multicast arrives and IP protocol 112 does not: something filters VRRP, and routers behind it do not hear who is Active",
		mend: "allow protocol 112 (vrrp) to 224.0.0.18 and ff02::12 in host firewalls and switch ACLs",
		well: "IP protocol 112 arrives between all nodes",
	},
	"garp": {
		why: "a neighbour did not learn from a gratuitous ARP where an address had moved: after a failover it sends to the old owner " +
			"until its own cache is over, up to minutes",
		mend: "look for ARP inspection or ARP suppression on the switch or hypervisor, and for net.ipv4.conf.*.drop_gratuitous_arp or " +
			"arptables on that host",
		well: "neighbours follow gratuitous ARP",
	},
	"na": {
		why:  "a neighbour did not learn from an unsolicited Neighbor Advertisement where an address had moved: after a failover it sends to the old owner",
		mend: "look for ND inspection or MLD snooping on the switch, and for net.ipv6.conf.*.drop_unsolicited_na on that host",
		well: "neighbours follow unsolicited Neighbor Advertisements",
	},
	"forged-mac": {
		why:  "frames with another source address than the device's are dropped, as hypervisors do by default: with vmac: true nothing of the group gets out",
		mend: "allow forged transmits and MAC address changes on the port group (VMware), MAC spoofing (Hyper-V), or set vmac: false",
		well: "frames from a hardware address that is not the device's arrive",
	},
	"duplicate-address": {
		why:  "another host answers for this VIP: clients reach now the one, now the other",
		mend: "find the host by its hardware address in the switch's table, and take the address off it",
		well: "nobody else answers for a VIP",
	},
	"vrid-collision": {
		why: "another router uses the same virtual router id for other addresses: each refuses or outranks the other, and with virtual " +
			"MAC addresses the switch sends one's frames to the other",
		mend: "give one of the two another id (vips.GROUP.vrrp.id)",
		well: "no other router uses our virtual router ids for other addresses",
	},
	"vrrp-differs": {
		why:  "a router of the same virtual router and this cluster refuse each other's adverts, so that both become Active",
		mend: "quorate vrrp lists the differences with advice",
	},
	"unknown": {
		why:  "this was not looked at",
		mend: "remove the reason and run quorate doctor again",
	},
}
