package keepalived

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A notify is one command that keepalived runs when the state changes.
type notify struct {
	on   string // master, backup or fault
	argv []string
	s    *statement
	any  bool // of the general notify, which gets four arguments more
}

// shellSigns are what only a shell understands.
const shellSigns = "|&;<>()`*?"

// program is the command of a statement as an argv whose program is an absolute path,
// and what was done for that. unquoted says that further words are arguments.
func (s *statement) program(unquoted bool) (argv []string, note string) {
	argv, rest := s.argv()
	if unquoted {
		argv = append(argv, rest...)
	}
	all, _ := command(s.raw)
	switch {
	case len(argv) == 0:
		return nil, ""
	case strings.ContainsAny(all[1], shellSigns) && argv[0] != "[" && !isShell(argv):
		if unquoted {
			return []string{"/bin/sh", "-c", strings.Join(all[1:], " ")}, "by /bin/sh"
		}
		return []string{"/bin/sh", "-c", all[1]}, "by /bin/sh"
	case !strings.HasPrefix(argv[0], "/"):
		return append([]string{"/usr/bin/env"}, argv...), "by /usr/bin/env, which looks it up in PATH"
	}
	return argv, ""
}

// isShell reports whether a command begins a shell itself.
func isShell(argv []string) bool {
	return len(argv) > 1 && argv[1] == "-c"
}

// readNotify reads a notify keyword. The general one is one command for each state.
func (n *node) readNotify(s *statement) []notify {
	argv, note := s.program(false)
	if len(argv) == 0 {
		n.say(s, Lost, noCommand)
		return nil
	}
	_, rest := s.argv()
	if len(rest) > 0 {
		if strings.HasPrefix(rest[0], "-") || strings.ContainsAny(rest[0], "/>") {
			n.report.add(s.at, Trap, s.subject(), "keepalived takes the words after the command for a user and a group, not for arguments; write the whole in double quotes")
			n.report.add(s.at, Lost, s.keyword(), "what follows the command: "+strings.Join(rest, " "))
		} else {
			n.report.add(s.at, Lost, s.keyword(), "runs as the daemon's user, not as "+strings.Join(rest, ":")+"; choose: runuser -u in the command")
		}
	}
	kinds := map[string][]string{"notify_master": {"master"}, "notify_backup": {"backup"}, "notify_fault": {"fault"}, "notify": {"master", "backup", "fault"}}[s.keyword()]
	var out []notify
	for _, k := range kinds {
		out = append(out, notify{on: k, argv: slices.Clone(argv), s: s, any: s.keyword() == "notify"})
	}
	where := "hooks." + hookOf[kinds[0]]
	if len(kinds) > 1 {
		where = "hooks.active, hooks.backup and hooks.fault"
	}
	if note != "" {
		where += ", " + note
	}
	if s.keyword() == "notify" {
		n.say(s, Changed, where+", with keepalived's four arguments written out; the priority among them is the configured one")
	} else {
		n.carried(s, where)
	}
	return out
}

var hookOf = map[string]string{"master": "active", "backup": "backup", "fault": "fault"}

// A notifier is an instance or a group with its commands.
type notifier struct {
	kind, name string // as the general notify command is told
	all        []notify
}

// hooksOf makes the hooks of a group. keepalived runs the specific command first and
// the general one after it; here there is one program for each state.
func hooksOf(from []notifier, priority int) hooks {
	of := func(on string) []string {
		var argvs [][]string
		for _, f := range from {
			for _, general := range []bool{false, true} {
				for _, c := range f.all {
					if c.on != on || c.any != general {
						continue
					}
					argv := slices.Clone(c.argv)
					if general {
						argv = withArguments(argv, f.kind, f.name, strings.ToUpper(on), strconv.Itoa(priority))
					}
					argvs = append(argvs, argv)
				}
			}
		}
		return inTurn(argvs)
	}
	return hooks{active: of("master"), backup: of("backup"), fault: of("fault")}
}

// withArguments adds arguments to a command, also if a shell runs it.
func withArguments(argv []string, more ...string) []string {
	if len(argv) == 3 && argv[0] == "/bin/sh" && argv[1] == "-c" {
		return []string{argv[0], argv[1], argv[2] + " " + quoteShell(more)}
	}
	return append(argv, more...)
}

// inTurn is one command for several.
func inTurn(argvs [][]string) []string {
	if len(argvs) < 2 {
		if len(argvs) == 1 {
			return argvs[0]
		}
		return nil
	}
	var all []string
	for _, a := range argvs {
		all = append(all, quoteShell(a))
	}
	return []string{"/bin/sh", "-c", strings.Join(all, "; ")}
}

// quoteShell writes an argv so that a shell takes it apart into the same.
func quoteShell(argv []string) string {
	var out []string
	for _, a := range argv {
		plain := a != "" && strings.IndexFunc(a, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:=@%,", r))
		}) < 0
		if plain {
			out = append(out, a)
			continue
		}
		out = append(out, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	return strings.Join(out, " ")
}

// A syncGroup is a vrrp_sync_group of one node.
type syncGroup struct {
	name    string
	s       *statement
	members []string
	tracks  []use
	hooks   []notify
}

func (n *node) readSync(s *statement) {
	g := &syncGroup{name: s.arg(0), s: s}
	if g.name == "" {
		n.refuse(s, "vrrp_sync_group without a name", "write one after it")
		return
	}
	if slices.ContainsFunc(n.groups, func(o *syncGroup) bool { return o.name == g.name }) {
		n.say(s, Lost, "a second group of this name, which keepalived ignores too")
		return
	}
	var known []*statement
	for _, st := range s.block {
		if _, ok := syncKeywords[st.keyword()]; !ok && !st.braces && n.named[st.keyword()] {
			g.members = append(g.members, st.texts(0)...)
			n.report.add(st.at, Trap, st.subject(), "a member without group { }: keepalived no longer knows this form, and drops the group")
			n.say(st, Changed, "a member of the group, as was meant")
			continue
		}
		known = append(known, st)
	}
	for _, st := range n.look(syncKeywords, "in vrrp_sync_group "+g.name, known) {
		switch st.keyword() {
		case "group":
			for _, e := range st.block {
				g.members = append(g.members, e.texts(0)...)
				n.say(e, Carried, "a member of "+g.name)
			}
			n.empty(st)
		case "track_interface", "track_script", "track_file", "track_process":
			g.tracks = append(g.tracks, n.readUses(st)...)
		default:
			g.hooks = append(g.hooks, n.readNotify(st)...)
		}
	}
	g.members = dedupe(g.members)
	n.groups = append(n.groups, g)
}

// quoted lists names in a message.
func quoted(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return fmt.Sprintf("%s and %s", strings.Join(names[:len(names)-1], ", "), names[len(names)-1])
}
