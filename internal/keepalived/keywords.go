package keepalived

import (
	"fmt"
	"strings"
)

// A shape is what may follow a keyword.
type shape uint8

const (
	_       shape = iota
	value         // words on its line
	entries       // a block of lines that are no keywords
	section       // a block of keywords
	opaque        // anything, and it is not looked at
)

// A keyword is what is known of one word of the old grammar.
type keyword struct {
	shape shape
	class Class    // what becomes of it always; zero: the translation says
	text  string   // and why
	plain string   // with election: vrrp it is lost, and why; empty: as text
	sub   keywords // of a section
}

type keywords map[string]keyword

func byHand() keyword               { return keyword{shape: value} }
func listOf() keyword               { return keyword{shape: entries} }
func blockOf(sub keywords) keyword  { return keyword{shape: section, sub: sub} }
func notHere(text string) keyword   { return keyword{shape: value, class: NotApplicable, text: text} }
func lost(text string) keyword      { return keyword{shape: value, class: Lost, text: text} }
func lostBlock(text string) keyword { return keyword{shape: opaque, class: Lost, text: text} }
func notHereBlock(text string) keyword {
	return keyword{shape: opaque, class: NotApplicable, text: text}
}
func decide(text string) keyword       { return keyword{shape: value, class: Decision, text: text} }
func balancer() keyword                { return keyword{shape: opaque, class: LVS, text: lvsText} }
func balancerWith(shape shape) keyword { return keyword{shape: shape, class: LVS, text: lvsText} }
func changed(text string) keyword      { return keyword{shape: value, class: Changed, text: text} }

// inCluster is for what a cluster does not need, and a plain router has nothing for.
func inCluster(text, plain string) keyword {
	return keyword{shape: value, class: NotApplicable, text: text, plain: plain}
}

const (
	lvsText       = "the load balancer is not part of this program; keep keepalived with -C for it (checkers only), or use another"
	systemdText   = "belongs to the service manager here: write it in the systemd unit"
	mailText      = "no mail is sent: alert on the metrics and events of the daemon, or send it from a hook"
	snmpText      = "no SNMP agent: the metrics are for Prometheus"
	dbusText      = "no D-Bus interface: use the API on the unix socket"
	firewallText  = "no firewall rules are needed for what it does"
	reloadText    = "a file is checked whole before it counts, always"
	checkerText   = "belongs to the load balancer's process"
	bfdText       = "no BFD in this version; choose: a check icmp: of the neighbour, or command: that asks another BFD daemon"
	staticText    = "addresses, routes and rules that never move are the host's: write them in its own network configuration before keepalived goes"
	garpText      = "announcements follow one schedule: at 0, 0.1, 1.2, 2.4, 3.6 s …, then every announce.refresh"
	garpLowerText = "the owner answers a lower-priority advert by the schedule, with its rate bounded"
	leaseText     = "a lease that the kernel keeps does what it is for"
	socketText    = "buffers are sized by the program"
	vmacNameText  = "devices of virtual MAC addresses have names of their own (qv4-51-…)"
)

// rootKeywords is the whole grammar.
var rootKeywords = join(keywords{
	"global_defs":          blockOf(globalKeywords),
	"vrrp_instance":        blockOf(instanceKeywords),
	"vrrp_sync_group":      blockOf(syncKeywords),
	"vrrp_script":          blockOf(scriptKeywords),
	"vrrp_track_process":   blockOf(processKeywords),
	"track_file":           blockOf(trackFileKeywords),
	"vrrp_track_file":      blockOf(trackFileKeywords),
	"bfd_instance":         lostBlock(bfdText),
	"garp_group":           notHereBlock(garpText),
	"track_group":          lostBlock(staticText),
	"static_ipaddress":     lostBlock(staticText),
	"static_routes":        lostBlock(staticText),
	"static_rules":         lostBlock(staticText),
	"virtual_server":       balancer(),
	"virtual_server_group": balancer(),
	"SSL":                  balancer(),
}, everywhereKeywords)

// everywhereKeywords are allowed at the root and in global_defs.
var everywhereKeywords = keywords{
	"linkbeat_interfaces":      notHereBlock("carrier is what the kernel says of the device"),
	"interface_up_down_delays": lostBlock("a device counts from the moment that the kernel says so; choose: a check with rise and fall for one that flaps"),
	"net_namespace":            decide("choose: NetworkNamespacePath= in the systemd unit, or run the daemon in the namespace that has the devices"),
	"net_namespace_ipvs":       balancerWith(value),
	"namespace_with_ipsets":    notHere(firewallText),
	"instance":                 notHere("several daemons on one host have a configuration file, data_dir and socket each"),
	"use_pid_dir":              notHere("there are no pid files"),
	"child_wait_time":          notHere("there are no child processes"),
	"linkbeat_use_polling":     notHere("carrier is what the kernel says of the device"),
}

var globalKeywords = join(keywords{
	"router_id":                           byHand(),
	"vrrp_version":                        byHand(),
	"vrrp_mcast_group4":                   byHand(),
	"vrrp_mcast_group6":                   byHand(),
	"default_interface":                   byHand(),
	"vrrp_garp_master_repeat":             byHand(),
	"vrrp_garp_master_refresh":            byHand(),
	"vrrp_min_garp":                       byHand(),
	"vrrp_strict":                         byHand(),
	"v3_checksum_as_v2":                   byHand(),
	"vrrp_down_timer_adverts":             byHand(),
	"notify_fifo":                         byHand(),
	"vrrp_notify_fifo":                    byHand(),
	"script_user":                         byHand(),
	"vrrp_garp_interval":                  byHand(),
	"vrrp_check_unicast_src":              notHere("always so: an advert by unicast must come from a peer"),
	"vrrp_garp_master_delay":              notHere(garpText),
	"vrrp_garp_master_refresh_repeat":     notHere(garpText),
	"vrrp_garp_lower_prio_delay":          notHere(garpLowerText),
	"vrrp_garp_lower_prio_repeat":         notHere(garpLowerText),
	"vrrp_gna_interval":                   byHand(),
	"vrrp_garp_extra_if":                  notHere(garpText),
	"vrrp_vmac_garp_intvl":                notHere(garpText),
	"vrrp_lower_prio_no_advert":           notHere(garpLowerText),
	"vrrp_higher_prio_send_advert":        notHere("the winner announces itself by the schedule"),
	"vrrp_skip_check_adv_addr":            notHere("no advert is refused for its list of addresses; differences are shown by quorate vrrp"),
	"vrrp_owner_ignore_adverts":           notHere("what an owner hears is shown by quorate vrrp"),
	"nftables":                            notHere(firewallText),
	"nftables_priority":                   notHere(firewallText),
	"nftables_counters":                   notHere(firewallText),
	"nftables_ifindex":                    notHere(firewallText),
	"vrrp_iptables":                       notHere(firewallText),
	"vrrp_ipsets":                         notHere(firewallText),
	"disable_local_igmp":                  notHere("the host's own sysctl: set it there if it is needed"),
	"vrrp_notify_priority_changes":        lost("no line is written for a change of priority; the events and metrics have it"),
	"notify_fifo_script":                  lost("write a systemd unit for the reader of the pipe"),
	"vrrp_notify_fifo_script":             lost("write a systemd unit for the reader of the pipe"),
	"fifo_write_vrrp_states_on_reload":    notHere("the daemon does not forget its states"),
	"enable_script_security":              notHere("a program is run by its absolute path, as the user that the file names"),
	"startup_script":                      lost("write ExecStartPre= in the systemd unit"),
	"startup_script_timeout":              lost("write ExecStartPre= in the systemd unit"),
	"shutdown_script":                     lost("write ExecStopPost= in the systemd unit"),
	"shutdown_script_timeout":             lost("write ExecStopPost= in the systemd unit"),
	"dynamic_interfaces":                  notHere("devices may always come and go"),
	"vrrp_startup_delay":                  inCluster("a node takes nothing before it has heard the others", "a router waits for its down time after its start, and no longer"),
	"vrrp_delay_after_boot":               inCluster("a node takes nothing before it has heard the others", "a router waits for its down time after its start, and no longer"),
	"log_unknown_vrids":                   notHere("quorate vrrp shows every router that is heard"),
	"vmac_prefix":                         notHere(vmacNameText),
	"vmac_addr_prefix":                    notHere(vmacNameText),
	"vrrp_rx_bufs_policy":                 notHere(socketText),
	"vrrp_rx_bufs_multiplier":             notHere(socketText),
	"vrrp_netlink_cmd_rcv_bufs":           notHere(socketText),
	"vrrp_netlink_cmd_rcv_bufs_force":     notHere(socketText),
	"vrrp_netlink_monitor_rcv_bufs":       notHere(socketText),
	"vrrp_netlink_monitor_rcv_bufs_force": notHere(socketText),
	"process_monitor_rcv_bufs":            notHere(socketText),
	"process_monitor_rcv_bufs_force":      notHere(socketText),
	"max_auto_priority":                   inCluster(leaseText, "a router that was late knows of it by the next advert only"),
	"min_auto_priority_delay":             inCluster(leaseText, "a router that was late knows of it by the next advert only"),
	"smtp_server":                         lost(mailText),
	"smtp_helo_name":                      lost(mailText),
	"smtp_connect_timeout":                lost(mailText),
	"notification_email":                  {shape: opaque, class: Lost, text: mailText},
	"notification_email_from":             lost(mailText),
	"smtp_alert":                          lost(mailText),
	"smtp_alert_vrrp":                     lost(mailText),
	"smtp_alert_checker":                  balancerWith(value),
	"no_email_faults":                     notHere(mailText),
	"enable_snmp_vrrp":                    lost(snmpText),
	"enable_snmp_keepalived":              lost(snmpText),
	"enable_snmp_rfc":                     lost(snmpText),
	"enable_snmp_rfcv2":                   lost(snmpText),
	"enable_snmp_rfcv3":                   lost(snmpText),
	"enable_snmp_checker":                 balancerWith(value),
	"enable_traps":                        lost(snmpText),
	"snmp_socket":                         lost(snmpText),
	"enable_dbus":                         lost(dbusText),
	"dbus_service_name":                   lost(dbusText),
	"dbus_no_interface_name":              lost(dbusText),
	"reload_check_config":                 notHere(reloadText),
	"reload_time_file":                    notHere(reloadText),
	"reload_repeat":                       notHere(reloadText),
	"reload_file":                         notHere(reloadText),
	"include_check":                       notHere(reloadText),
	"tmp_config_directory":                notHere(reloadText),
	"config_save_dir":                     notHere(reloadText),
	"process_names":                       notHere("there is one process"),
	"vrrp_process_name":                   notHere("there is one process"),
	"use_symlink_paths":                   notHere("paths are used as they are written"),
	"set_supplementary_groups":            notHere(systemdText),
	"umask":                               notHere(systemdText),
	"data_use_instance":                   notHere("quorate status --json has what the dumps have"),
	"state_dump_file":                     notHere("quorate status --json has what the dumps have"),
	"stats_dump_file":                     notHere("quorate status --json has what the dumps have"),
	"json_dump_file":                      notHere("quorate status --json has what the dumps have"),
	"json_version":                        notHere("quorate status --json has what the dumps have"),
	"random_seed":                         notHere("a setting for tests"),
	"iproute_usr_dir":                     notHere("no files of iproute2 are read"),
	"iproute_etc_dir":                     notHere("no files of iproute2 are read"),
	"lvs_sync_daemon":                     balancerWith(value),
	"lvs_flush":                           balancerWith(value),
	"lvs_flush_on_stop":                   balancerWith(value),
	"lvs_flush_onstop":                    balancerWith(value),
	"lvs_timeouts":                        balancerWith(value),
	"lvs_notify_fifo":                     balancerWith(value),
	"lvs_notify_fifo_script":              balancerWith(value),
	"checker_log_all_failures":            balancerWith(value),
	"disable_lvs":                         balancerWith(value),
}, perProcess(), everywhereKeywords)

// perProcess are the options that each of keepalived's processes has.
func perProcess() keywords {
	out := keywords{}
	for _, p := range []string{"vrrp", "checker", "bfd"} {
		for _, o := range []string{"priority", "no_swap", "rt_priority", "cpu_affinity", "rlimit_rttime", "rlimit_rtime"} {
			k := notHere(systemdText)
			if p != "vrrp" {
				k.text = checkerText
			}
			out[p+"_"+o] = k
		}
	}
	for _, p := range []string{"checker", "bfd", "parent"} {
		out[p+"_process_name"] = notHere("there is one process")
	}
	for _, o := range []string{"cmd_rcv_bufs", "cmd_rcv_bufs_force", "monitor_rcv_bufs", "monitor_rcv_bufs_force"} {
		out["lvs_netlink_"+o] = balancerWith(value)
	}
	return out
}

func join(all ...keywords) keywords {
	out := keywords{}
	for _, m := range all {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

// look goes through the statements of a block and reports what is not known, and
// what has the same fate wherever it stands. What is left is for the translation.
func (n *node) look(known keywords, in string, all []*statement) []*statement {
	var out []*statement
	for _, s := range all {
		k, ok := known[s.keyword()]
		if !ok {
			n.unknown(known, in, s)
			continue
		}
		switch {
		case k.shape == value && s.braces:
			n.refuse(s, fmt.Sprintf("%s takes no block", s.keyword()), "write its value on its line")
		case (k.shape == entries || k.shape == section) && !s.braces:
			n.refuse(s, fmt.Sprintf("%s has no block", s.keyword()), "write { … } after it")
		case k.plain != "" && n.mode == VRRP:
			n.say(s, Lost, k.plain)
		case k.class == Lost && k.shape == value && isOff(s.arg(0)):
			n.say(s, NotApplicable, "off")
		case k.class != 0:
			n.say(s, k.class, k.text)
		default:
			out = append(out, s)
		}
	}
	return out
}

// isOff reports whether a keyword is written to say that it is not wanted.
func isOff(arg string) bool { return arg == "off" || arg == "false" || arg == "no" }

// refuse is for what keepalived does not understand as it was meant.
func (n *node) refuse(s *statement, text, do string) {
	if n.lenient {
		n.say(s, Lost, text)
		return
	}
	n.probs.add(s.at, text, do)
}

func (n *node) unknown(known keywords, in string, s *statement) {
	text := fmt.Sprintf("unknown keyword %q %s", s.keyword(), in)
	if s.braces {
		text += "; keepalived ends the enclosing block at its }, so what follows there has no effect"
	} else {
		text += ", which keepalived ignores"
	}
	if near := nearest(s.keyword(), known); near != "" {
		text += fmt.Sprintf("; %s is perhaps meant", near)
	}
	if n.lenient {
		n.say(s, Lost, text)
		return
	}
	n.probs.add(s.at, text, "correct or remove it, or leave it out with --lenient")
}

// nearest is the keyword that was most likely meant: the same but for case, or with
// the fewest letters changed, added or missing, and those at most a third.
func nearest(word string, known keywords) string {
	const longest = 40
	if len(word) > longest {
		return ""
	}
	best, cost := "", 1+max(1, len(word)/3)
	for k := range known {
		d := distance(strings.ToLower(word), k)
		if d < cost || d == cost && best != "" && k < best {
			best, cost = k, d
		}
	}
	return best
}

// distance counts the letters to insert, delete or replace to make b of a.
func distance(a, b string) int {
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			change := prev[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(prev[j+1]+1, row[j]+1, change)
		}
		prev = row
	}
	return prev[len(b)]
}
