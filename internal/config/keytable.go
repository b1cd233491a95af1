package config

import (
	"log/slog"
	"math"
	"time"

	"github.com/quorate/quorate/fsm"
)

// topKeys are the keys of the file.
var topKeys = &section{path: "", keys: []key{
	{name: "cluster", kind: kindName, required: true, bounds: "the same on every node", example: "prod",
		doc: "nodes of another cluster are refused; it also names the fence in the kernel"},
	{name: "node", also: []string{"name", "hostname", "router_id"}, kind: kindNodeName, def: "the host name", bounds: "unique in the cluster", example: "n1",
		doc: "for people. A name belongs to the first instance that used it"},
	{name: "address", also: []string{"bind", "listen"}, kind: kindAddrPort, cluster: true, def: "the first private address with port 7950", example: "10.0.0.1:7950",
		bounds: "one of peers, an address of this host, no VIP", doc: "where this node listens, TCP and UDP, and what others reach it by"},
	{name: "peers", also: []string{"nodes", "members"}, kind: kindAddrPort, form: list, cluster: true, required: true, example: "[10.0.0.1:7950, 10.0.0.2:7950, 10.0.0.3:7950]",
		bounds: "1 to 7 but not 2, all IPv4 or all IPv6, addresses and not names",
		doc:    "all nodes, this one too: to find the cluster, and the first time to form it. Two alone are refused: when either fails, the other is no majority. A witness makes three of them"},
	{name: "key_file", kind: kindPath, cluster: true, required: true, bounds: "readable by its owner alone", example: "/etc/quorate/cluster.key",
		doc: "the cluster's secret, from quorate keygen: gossip key and mutual TLS come from it"},
	{name: "tls", in: tlsKeys, cluster: true, off: true, def: "derived from key_file", bounds: "all three or none",
		doc: "the operator's own certificates for the TCP port. key_file is still needed for the datagrams"},
	{name: "data_dir", also: []string{"state_dir", "datadir"}, kind: kindPath, cluster: true, def: DefaultDataDir, example: DefaultDataDir, bounds: "must survive a reboot, on one host only",
		doc: "instance id, Raft's log and votes, the longest lease confirmed, the pledge"},
	{name: "role", kind: kindWord, choices: choose(fsm.Member, fsm.Witness), cluster: true, example: "member",
		doc: "a witness votes and never holds an address"},
	{name: "election", kind: kindWord, choices: choose(ElectRaft, ElectVRRP), example: "raft",
		doc: "who decides which node owns a group. With vrrp the node is a VRRP router of its own, and no single owner is promised", see: ": [below](#election-vrrp)"},
	{name: "fence", kind: kindWord, choices: choose(BPF, Lifetime), cluster: true, example: "bpf",
		doc: "what stops the host when the lease is over. lifetime is weaker", see: ": [safety.md](safety.md), section 4"},
	{name: "lease", kind: kindDuration, cluster: true, shortest: minLease, longest: maxLease, def: "250ms (fence lifetime: 3s)", example: "250ms",
		bounds: "with fence lifetime 3s or more", doc: "how long a lost owner may still answer, and so about how long a takeover takes"},
	{name: "renew", kind: kindDuration, cluster: true, shortest: minRenew, longest: maxLease / 2, def: "a third of lease", example: "80ms", off: true, bounds: "at most half of lease",
		doc: "how often the owner asks for more, and the heartbeat of all nodes"},
	{name: "socket", kind: kindPath, def: DefaultSocket, example: DefaultSocket, bounds: "at most 107 bytes",
		doc: "the API for this host: mode 0660, group quorate if there is one"},
	{name: "http", kind: kindAddrPort, example: "127.0.0.1:7951", off: true, bounds: "an address of this host, no VIP; all of them (0.0.0.0) only with a warning",
		doc: "where metrics, health and the reading part of the API are served, in clear text and to whoever can reach it"},
	{name: "fifo", kind: kindPath, example: "/run/quorate/notify.fifo", off: true,
		doc: "a named pipe, to which each change of a group on this node is written as a line in keepalived's form"},
	{name: "log", in: logKeys, doc: "what is logged, to standard error"},
	{name: "vips", also: []string{"groups", "vrrp_instance"}, in: groupKeys, form: byName, required: true, bounds: "at least one group", example: "web",
		doc: "the groups of addresses, by name; those of the node that forms the cluster become the cluster's, and later quorate apply changes them"},
	{name: "checks", in: checkKeys, form: byName, example: "page",
		doc: "tests that a node must pass to be given a group that names them; each has one of http, tcp, icmp, command, process, file and systemd"},
	{name: "hooks", in: hookKeys, off: true, doc: "programs that are run for every group, after its own"},
}}

var tlsKeys = &section{path: "tls", keys: []key{
	{name: "ca", kind: kindPath, required: true, example: "/etc/quorate/ca.pem", doc: "certificates that those of the other nodes are signed by"},
	{name: "cert", kind: kindPath, required: true, example: "/etc/quorate/n1.pem", doc: "this node's certificate"},
	{name: "key", kind: kindPath, required: true, example: "/etc/quorate/n1.key", doc: "this node's private key"},
}}

var logKeys = &section{path: "log", keys: []key{
	{name: "level", kind: kindWord, choices: choose[word]("debug", "info", "warn", "error"), def: "info", example: "info", doc: "the least that is logged"},
	{name: "format", kind: kindWord, choices: choose[word]("text", "json"), example: "text", doc: "key=value pairs, or an object for each line"},
}}

var levels = map[word]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

var groupKeys = &section{path: "vips.NAME", keys: []key{
	{name: "addresses", also: []string{"virtual_ipaddress", "vip", "ips", "ip"}, kind: kindVIP, form: list, in: addressKeys, required: true, example: "[10.0.0.200/24, \"2001:db8::200/64\"]",
		bounds: "1 or more; with vrrp, what fits one advert per family; an address is in one group only",
		doc:    "addresses that move together, with the length of their network. Adding or taking away one does not disturb the others"},
	{name: "interface", also: []string{"dev", "device", "nic"}, kind: kindDevice, def: "found by the address", bounds: "not lo; required for link-local addresses", example: "eth0",
		doc: "where the addresses go. Leave it out if the hosts' devices have different names"},
	{name: "placement", kind: kindWord, choices: choose(fsm.PlacementLeader, fsm.PlacementPriority, fsm.PlacementSpread), cluster: true, example: "leader",
		doc: "who gets the group: the Raft leader, the node of the highest priority, or the one that has the least", see: ": [below](#who-gets-a-group)"},
	{name: "priority", kind: kindInteger, form: byName, cluster: true, least: 0, most: maxNodePriority, def: "100 on every node", example: "{n1: 150, n2: 100}", off: true,
		doc: "how good a node is, by its name, with placement: priority. 0 with any placement: never there"},
	{name: "preempt", kind: kindPreempt, shortest: 0, longest: maxPreemptDelay, def: "false", example: "false", bounds: "not with placement: leader",
		doc: "whether a better node takes the group from a worse one that serves it, and for how long it must have been fit before. With election: vrrp the default is true"},
	{name: "weight", kind: kindInteger, cluster: true, least: 1, most: maxGroupWeight, def: "1", example: "1",
		doc: "how many ordinary groups it counts for, with placement: spread"},
	{name: "apart", kind: kindName, form: list, cluster: true, example: "[]", bounds: "other groups of the file, each once",
		doc: "groups that are not to be on one node with this one, as long as there is another"},
	{name: "together", also: []string{"sync_group", "vrrp_sync_group"}, kind: kindName, form: list, cluster: true, example: "[]", bounds: "other groups of the file; the same placement and preempt in all of them",
		doc: "groups that are to be on one node with this one; they move as one"},
	{name: "checks", also: []string{"track_script", "track_process"}, kind: kindName, form: list, example: "[page]", bounds: "names under checks, each once", doc: "tests that a node must pass to be given the group"},
	{name: "track_interfaces", also: []string{"track_interface"}, kind: kindDevice, form: list, in: trackKeys, example: "[]", bounds: "not lo",
		doc: "devices that count for the group besides its own"},
	{name: "when_all_fail", kind: kindWord, choices: choose(fsm.AllFailKeep, fsm.AllFailRelease), cluster: true, example: "keep",
		doc: "when no node passes: the group stays where it is, or nobody holds it until one passes"},
	{name: "on_quorum_loss", kind: kindWord, choices: choose(fsm.QuorumLossRelease, fsm.QuorumLossHold), cluster: true, example: "release",
		doc: "when no majority confirms the owner: let go, or keep answering without proof, so that two nodes may answer", see: ": [below](#on_quorum_loss-hold)"},
	{name: "routes", also: []string{"virtual_routes"}, in: routeKeys, form: list, example: "- {to: 192.0.2.0/24, via: 10.0.0.254, source: 10.0.0.200, table: 100}", off: true,
		doc: "routes that the owner has: put in after the addresses, taken out before them"},
	{name: "rules", also: []string{"virtual_rules"}, in: ruleKeys, form: list, example: "- {from: 10.0.0.200/32, table: 100}", off: true,
		doc: "rules that the owner has, after the routes: what goes from an address of the group takes a routing table of its own"},
	{name: "reset_connections", kind: kindBool, def: "true", example: "true",
		doc: "when the group is moved on purpose, its TCP connections are reset, so that clients connect anew at once instead of waiting for an answer"},
	{name: "announce", in: announceKeys, doc: "how often a new owner tells the LAN"},
	{name: "vmac", also: []string{"use_vmac"}, kind: kindBool, def: "false", example: "false", bounds: "with vrrp only; an Ethernet device",
		doc: "the addresses stand on a device with the virtual router's own hardware address (RFC 9568, section 7.3)", see: ": [vrrp.md](vrrp.md), section 7"},
	{name: "vrrp", in: vrrpKeys, def: "no adverts", bounds: "required with election: vrrp", doc: "how the group appears to VRRP routers outside"},
	{name: "hooks", in: hookKeys, off: true, doc: "programs that are run when this group changes on a node"},
}}

var addressKeys = &section{path: "vips.NAME.addresses[]", example: "10.0.0.201/24, or {address: 10.0.0.201/24, interface: eth1}", keys: []key{
	{name: "address", also: []string{"ip"}, kind: kindVIP, required: true, example: "10.0.0.201/24", doc: "the address, with the length of its network"},
	{name: "interface", also: []string{"dev", "device"}, kind: kindDevice, def: "that of the group", bounds: "not lo", example: "eth1", doc: "the device of this one address"},
	{name: "scope", kind: kindWord, choices: choose(fsm.ScopeGlobal, fsm.ScopeSite, fsm.ScopeLink, fsm.ScopeHost), bounds: "IPv4 only", example: "link",
		doc: "how far the address is valid"},
	{name: "label", kind: kindText, def: "the device's name", bounds: "IPv4 only; DEVICE or DEVICE:TEXT, at most 15 bytes", example: "\"eth1:web\"",
		doc: "the name that older tools show the address under"},
	{name: "noprefixroute", kind: kindBool, def: "false", example: "true", doc: "no route for the address's network comes with it"},
	{name: "advertise", kind: kindBool, def: "true", bounds: "with vrrp only; one address of each family must be advertised", example: "false",
		doc: "whether VRRP adverts list the address; false: routers outside know of the others only, as with virtual_ipaddress_excluded of keepalived"},
}}

var routeKeys = &section{path: "vips.NAME.routes[]", example: "{to: 192.0.2.0/24, via: 10.0.0.254}", keys: []key{
	{name: "to", also: []string{"dst", "destination", "network"}, kind: kindNetwork, required: true, example: "192.0.2.0/24", doc: "the network; 0.0.0.0/0 or ::/0 for everything, or default, which is that of the next hop's family"},
	{name: "via", also: []string{"gw", "gateway", "nexthop"}, kind: kindAddress, bounds: "of the same family; required without interface", example: "10.0.0.254", doc: "the next hop; none: the network is on the link itself"},
	{name: "interface", also: []string{"dev", "device"}, kind: kindDevice, def: "the device whose network contains via", bounds: "required without via, with onlink, and with a link-local next hop", example: "eth0", doc: "the device that leads there"},
	{name: "source", also: []string{"src"}, kind: kindAddress, def: "the kernel chooses", bounds: "an address of the group", example: "10.0.0.200", doc: "what the host's own traffic goes from"},
	{name: "table", kind: kindUint32, least: 1, most: math.MaxUint32, def: "254, main", bounds: "not 255", example: "100", doc: "the routing table"},
	{name: "metric", also: []string{"preference"}, kind: kindUint32, least: 1, most: math.MaxUint32, def: "the kernel's", example: "10", doc: "of several routes to the same network the one with the least is taken"},
	{name: "onlink", kind: kindBool, def: "false", bounds: "with via and interface", example: "true", doc: "the next hop is on the link although no network of the device contains it"},
}}

var ruleKeys = &section{path: "vips.NAME.rules[]", example: "{from: 10.0.0.200/32, table: 100}", keys: []key{
	{name: "from", also: []string{"src"}, kind: kindNetwork, def: "any", example: "10.0.0.200/32", bounds: "one of from, to, interface and mark is required", doc: "traffic from these addresses"},
	{name: "to", also: []string{"dst"}, kind: kindNetwork, def: "any", example: "198.51.100.0/24", bounds: "of the same family", doc: "traffic to these addresses"},
	{name: "interface", also: []string{"iif", "dev", "device"}, kind: kindDevice, def: "any", example: "eth0", doc: "traffic that comes in by this device; lo: that of the host itself"},
	{name: "mark", also: []string{"fwmark"}, kind: kindMark, least: 1, most: math.MaxUint32, def: "any", bounds: "may be hexadecimal", example: "0x64", doc: "traffic that a firewall marked so"},
	{name: "table", also: []string{"lookup"}, kind: kindUint32, least: 1, most: math.MaxUint32, required: true, bounds: "not 255", example: "100", doc: "the routing table to look in"},
	{name: "priority", also: []string{"pref", "preference", "prio"}, kind: kindUint32, least: 1, most: math.MaxInt32, def: "the kernel chooses", example: "100", doc: "rules are asked in this order, the lowest first"},
}}

var announceKeys = &section{path: "vips.NAME.announce", keys: []key{
	{name: "repeat", also: []string{"garp_master_repeat"}, kind: kindInteger, least: 1, most: 100, def: "5", example: "5",
		doc: "announcements (gratuitous ARP, unsolicited NA) after a takeover: at 0, 0.1, 1.2, 2.4, 3.6 s and so on"},
	{name: "refresh", also: []string{"garp_master_refresh"}, kind: kindDuration, shortest: time.Second, def: "60s", example: "60s", bounds: "or 0 for none", doc: "between later announcements"},
}}

var trackKeys = &section{path: "vips.NAME.track_interfaces[]", example: "eth1, or {name: eth1, weight: -20}", keys: []key{
	{name: "name", kind: kindDevice, required: true, bounds: "not lo", example: "eth2", doc: "the device"},
	{name: "weight", kind: kindInteger, least: -maxAdjust, most: maxAdjust, def: "0", example: "-20", doc: "as that of a check"},
}}

var vrrpKeys = &section{path: "vips.NAME.vrrp", keys: []key{
	{name: "id", also: []string{"virtual_router_id", "vrid"}, kind: kindInteger, least: 1, most: 255, required: true, bounds: "once for each link and family", example: "51", doc: "the virtual router id, that of the outside routers"},
	{name: "version", kind: kindWord, choices: choose[word]("2", "3", bothVersions), def: "3", bounds: "2: IPv4 addresses only; both: at least one of them", example: "3",
		doc: "both sends and hears version 2 beside 3, for IPv4"},
	{name: "priority", kind: kindInteger, least: 1, most: 254, def: "254", example: "254",
		doc: "above every backup by default; 255 belongs to a router whose own address it is. With election: vrrp this node's, 1 to 255, by default 100, or a mapping by node name"},
	{name: "interval", also: []string{"advert_int"}, kind: kindDuration, shortest: 10 * time.Millisecond, longest: 255 * time.Second, def: "1s", example: "1s",
		bounds: "in whole 10ms up to 40.95s, with version 2 in whole seconds; long enough that no outside backup claims the group during our worst failover (with version 2 only warned of)",
		doc:    "between adverts"},
	{name: "checksum", kind: kindWord, choices: choose(fsm.ChecksumAuto, fsm.ChecksumPseudoHeader, fsm.ChecksumPlain), bounds: "not with version 2, which has one form", example: "auto",
		doc: "of version 3 over IPv4: as the routers outside have it, as keepalived has it, or as RFC 9568 (5.2.8) has it. auto begins as keepalived"},
	{name: "password", also: []string{"auth_pass"}, kind: kindSecret, bounds: "1 to 8 bytes; with version 2 or both", example: "secret", off: true,
		doc: "the simple password of version 2 (RFC 2338), in clear text on the wire and in the replicated document"},
	{name: "unicast", also: []string{"unicast_peer"}, kind: kindAddress, form: list, in: peerKeys, def: "multicast", bounds: "a peer for each family of the group", example: "[]",
		doc: "speak to these routers instead of the multicast group. This node's own address is passed over"},
	{name: "outranked", kind: kindWord, choices: choose(fsm.OutrankedYield, fsm.OutrankedHold), cluster: true, example: "yield",
		doc: "what the owner does when a router outside has a better claim: stay Backup, or keep the addresses beside it (two answer, and an alarm)"},
}}

var peerKeys = &section{path: "vips.NAME.vrrp.unicast[]", example: "10.0.0.8, or {address: 10.0.0.8, min_ttl: 255}", keys: []key{
	{name: "address", kind: kindAddress, required: true, example: "10.0.0.8", doc: "the router's own address"},
	{name: "min_ttl", kind: kindInteger, least: 1, most: 255, def: "1", example: "255", doc: "its adverts must come with this TTL or a higher one; 255: it is on the same link"},
	{name: "max_ttl", kind: kindInteger, least: 1, most: 255, def: "255", example: "255", doc: "and with this one or a lower"},
}}

var hookKeys = &section{path: "hooks", keys: []key{
	{name: "active", also: []string{"notify_master", "master"}, kind: kindText, form: program, bounds: "absolute path; up to 256 words; no shell", example: "[/usr/local/bin/cloud-ip, attach]", doc: "run when this node has begun to answer for the group"},
	{name: "backup", also: []string{"notify_backup"}, kind: kindText, form: program, bounds: "as active", example: "[/usr/local/bin/cloud-ip, detach]", doc: "run when it no longer does, or is ready to take over"},
	{name: "fault", also: []string{"notify_fault"}, kind: kindText, form: program, bounds: "as active", example: "[/usr/local/bin/alarm]", doc: "run when it could not hold the group"},
	{name: "timeout", kind: kindDuration, shortest: minTimeout, longest: maxHookTimeout, def: "30s", example: "30s", doc: "the program and what it has started are killed then"},
}}

var checkKeys = &section{path: "checks.NAME", keys: []key{
	{name: "http", kind: kindURL, in: httpKeys, bounds: "http:// or https://", example: "http://127.0.0.1/healthz", doc: "passes if a GET is answered with the status. Redirects are not followed"},
	{name: "tcp", kind: kindHostPort, bounds: "an address or name; IPv6 in brackets", example: "\"127.0.0.1:5432\"", off: true, doc: "passes if it accepts a connection"},
	{name: "icmp", kind: kindHost, bounds: "an address or name", example: "10.0.0.254", off: true, doc: "passes if it answers an echo request"},
	{name: "command", also: []string{"script"}, kind: kindText, form: program, in: commandKeys, bounds: "absolute path; up to 256 words; no shell", example: "[/usr/local/bin/check-database, --fast]", off: true,
		doc: "passes if the program ends with 0. What it has started is killed with it at the timeout"},
	{name: "process", kind: kindText, bounds: "a name without directory", example: "nginx", off: true, doc: "passes if a process of this program runs"},
	{name: "file", kind: kindPath, in: fileKeys, example: "/run/app/ready", off: true, doc: "passes if the file can be read"},
	{name: "systemd", kind: kindText, bounds: "with its type", example: "nginx.service", off: true, doc: "passes if the unit is active"},
	{name: "interval", kind: kindDuration, shortest: minCheckInterval, longest: maxCheckInterval, def: "1s", example: "1s", doc: "from one run to the next"},
	{name: "timeout", kind: kindDuration, shortest: minTimeout, longest: maxCheckTimeout, def: "500ms, or interval if that is shorter", example: "500ms", doc: "a run that takes longer fails"},
	{name: "rise", kind: kindInteger, least: 1, most: maxInARow, def: "2", example: "2", doc: "so many passes in a row make a failing check pass"},
	{name: "fall", kind: kindInteger, least: 1, most: maxInARow, def: "3", example: "3", doc: "so many failures in a row make a passing one fail"},
	{name: "weight", kind: kindInteger, least: -maxAdjust, most: maxAdjust, def: "0", example: "0",
		doc: "0: a node that fails is not given the group, and an owner that fails loses it to one that passes, serving until then. Else added to the node's priority: a positive one while it passes, a negative one while it fails"},
}}

var httpKeys = &section{path: "checks.NAME.http", keys: []key{
	{name: "url", kind: kindURL, required: true, bounds: "http:// or https://", example: "https://127.0.0.1:8443/healthz", doc: "the page to ask for"},
	{name: "host", kind: kindHost, def: "that of the URL", example: "www.example.org", doc: "Host header, and the name that the certificate must have"},
	{name: "status", kind: kindStatus, least: 100, most: 599, def: "[200, 299]", example: "[200, 399]", doc: "the status that passes"},
	{name: "match", kind: kindRegexp, bounds: "up to 4096 bytes, not empty", example: "'^ok'", doc: "it is also found in the first 64 KiB of the body"},
	{name: "ca", kind: kindPath, def: "the system's certificates", bounds: "https only, not with insecure", example: "/etc/quorate/web-ca.pem", doc: "the certificate is signed by one of this file"},
	{name: "insecure", kind: kindBool, def: "false", bounds: "https only", example: "true", doc: "whatever the certificate says"},
}}

var commandKeys = &section{path: "checks.NAME.command", keys: []key{
	{name: "argv", kind: kindText, form: program, required: true, bounds: "absolute path; up to 256 words; no shell", example: "[/usr/local/bin/check-database, --fast]", doc: "the program and its arguments"},
	{name: "user", kind: kindUser, def: "the daemon's", bounds: "a user of the host, by name or number", example: "nobody", doc: "whom it runs as"},
}}

var fileKeys = &section{path: "checks.NAME.file", keys: []key{
	{name: "path", kind: kindPath, required: true, example: "/run/app/state", doc: "the file to read"},
	{name: "match", kind: kindRegexp, bounds: "up to 4096 bytes, not empty", example: "'^ready'", doc: "it is also found in the first 64 KiB"},
}}
