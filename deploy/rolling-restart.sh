#!/bin/sh
# Restarts quorate on every node of a cluster, one after the other, so that a client
# sees at most one planned move (see below).
#
#   rolling-restart.sh [-n] [-t SECONDS] NODE...
#
#   -n  show what would be done on which node, and do nothing
#   -t  how long a node may take to be ready again; 60
#
# Each NODE is the node's name in quorate, and what ssh knows the host by. For another
# way to it: RUN, a command that takes a host and a command line (default ssh). What is
# run there: QUORATE (default quorate) and RESTART (default systemctl restart quorate).
#
# For each node: its groups are moved to a node that was restarted already, or where
# there is none yet to any other; it is drained, so that it gets none back; it is
# restarted; and only when it confirms leases again (READY, as /readyz says), and so do
# all others that it hears, is it undrained and the next one's turn. Nodes with the fewest
# groups come first. So a group moves once, unless it was on the first node: then it
# moves again when the node that took it is restarted.
#
# It stops at the first node that does not come back. That one stays drained.
set -u

RUN=${RUN:-ssh}
QUORATE=${QUORATE:-quorate}
RESTART=${RESTART:-systemctl restart quorate}
dry=
limit=60

die() {
	echo "rolling-restart: $*" >&2
	exit 1
}

usage() {
	echo "usage: $0 [-n] [-t SECONDS] NODE..." >&2
	exit 2
}

while getopts nt: opt; do
	case $opt in
	n) dry=1 ;;
	t) limit=$OPTARG ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || usage
case $limit in
'' | *[!0-9]*) usage ;;
esac

# on NODE COMMAND...: runs it there. RUN is split into words on purpose.
on() {
	host=$1
	shift
	# shellcheck disable=SC2086
	$RUN "$host" "$*"
}

# change NODE COMMAND...: what changes something.
change() {
	host=$1
	shift
	echo "[$host] $*"
	[ -n "$dry" ] || on "$host" "$@"
}

# groups NODE ASKED: the groups that NODE owns, as ASKED knows it.
groups() {
	on "$2" "$QUORATE status" | awk -v node="$1" 'seen && $3 == node { print $1 } $1 == "NAME" { seen = 1 }'
}

# well NODE: it is ready, and it hears every node ready.
well() {
	on "$1" "$QUORATE members" | awk -v node="$1" '
		NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
		$column["ALIVE"] != "yes" || $column["READY"] != "yes" { bad = 1 }
		$1 == node { found = 1 }
		END { exit bad || !found }'
}

await() {
	waited=0
	until well "$1" 2>/dev/null; do
		waited=$((waited + 1))
		[ "$waited" -le "$limit" ] || return 1
		sleep 1
	done
}

all=$*
for node in $all; do
	well "$node" || die "$node is not well, or does not hear every node ready: see quorate members there; nothing was restarted"
done
first=$1

order=$(for node in $all; do echo "$(groups "$node" "$first" | wc -l) $node"; done | sort -s -n -k 1,1 | awk '{ print $2 }')
restarted=
for node in $order; do
	# shellcheck disable=SC2086
	set -- $restarted
	for group in $(groups "$node" "$node"); do # they go round those that were restarted
		[ $# -gt 0 ] || break
		change "$node" "$QUORATE move $group $1" || echo "rolling-restart: $group does not go to $1; the drain finds another node" >&2
		to=$1
		shift
		set -- "$@" "$to"
	done
	change "$node" "$QUORATE drain $node" || die "$node cannot be drained, see above; it stays drained until: quorate undrain $node"
	change "$node" "$RESTART" || die "$node was not restarted, see above; it stays drained until: quorate undrain $node"
	if [ -z "$dry" ]; then
		await "$node" || die "$node is not ready after $limit s: see quorate status there; it stays drained until: quorate undrain $node"
	fi
	change "$node" "$QUORATE undrain $node" || die "$node stays drained until: quorate undrain $node"
	restarted="$restarted $node"
done
