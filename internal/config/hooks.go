package config

import (
	"fmt"
	"path"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/quorate/quorate/fsm"
)

// DefaultHookTimeout is for how long a hook may run unless the file says otherwise.
const DefaultHookTimeout = 30 * time.Second

// Bounds of what is run.
const (
	minTimeout     = 10 * time.Millisecond
	maxHookTimeout = time.Hour // the cloud's API may need its time
	maxArgs        = 256       // words of a program with its arguments
	maxText        = 4096      // bytes of any one text, such as a path or an argument
)

type rawHooks struct {
	have                  state
	pos                   pos
	path                  string
	active, backup, fault field[[]field[string]]
	timeout               field[time.Duration]
}

func readHooks(parent mapping) rawHooks {
	m, have := parent.sub("hooks")
	h := rawHooks{have: have, path: join(parent.path, "hooks")}
	if have != present {
		return h
	}
	h.pos = at(parent.vals["hooks"])
	h.active, h.backup, h.fault = readArgv(m, "active"), readArgv(m, "backup"), readArgv(m, "fault")
	h.timeout = m.duration("timeout")
	return h
}

// readArgv reads the list of a program and its arguments.
func readArgv(m mapping, name string) field[[]field[string]] {
	f := read(m, name, toArgv, kindText)
	out := field[[]field[string]]{have: f.have, pos: f.pos, path: f.path, key: f.key}
	for i, n := range f.v {
		out.v = append(out.v, readNode(m.r, n, fmt.Sprintf("%s[%d]", f.path, i), f.key, toText))
	}
	return out
}

// toArgv refuses a command line written as one text: there is no shell to take it apart.
func toArgv(n *yaml.Node) ([]*yaml.Node, string, string) {
	if n.Kind == yaml.SequenceNode {
		return n.Content, "", ""
	}
	do := "write [/path/of/program, argument]"
	if words := strings.Fields(n.Value); len(words) > 0 && isScalar(n, "!!str") {
		if !strings.HasPrefix(words[0], "/") {
			words[0] = "/path/of/" + words[0]
		}
		do = "write [" + printable(strings.Join(words, ", ")) + "]: no shell takes it apart"
	}
	return nil, "a list of the program and its arguments", do
}

// argv checks a program with its arguments. A path that is not absolute would depend
// on where and by whom the daemon was started.
func (c *checker) argv(f field[[]field[string]]) []string {
	if !f.ok() {
		return nil
	}
	if len(f.v) == 0 {
		c.r.add(f.pos, f.path, "names no program", "", "write [/path/of/program, argument], or leave the key out")
		return nil
	}
	if len(f.v) > maxArgs {
		c.r.add(f.pos, f.path, fmt.Sprintf("must have at most %d words, has %d", maxArgs, len(f.v)), "", "put them in a script, and write its path")
		return nil
	}
	c.cfg.where[f.path] = f.pos
	var out []string
	for i, a := range f.v {
		switch {
		case !a.ok():
			continue
		case c.long(a):
		case strings.ContainsRune(a.v, 0):
			bad(c, a, "has a zero byte, which no argument can have", "remove it")
		case i == 0 && a.v == "":
			bad(c, a, "is empty, and should be the program", "write its absolute path")
		case i == 0 && !strings.HasPrefix(a.v, "/"):
			bad(c, a, "must be the absolute path of the program: the daemon searches no directories",
				"write the absolute path, as command -v "+printable(path.Base(a.v))+" may show it")
		case i == 0 && strings.HasSuffix(a.v, "/"):
			bad(c, a, "must be the path of a program, not of a directory", "write the path of the program in it")
		}
		out = append(out, a.v)
	}
	return out
}

// hooks checks the programs of a group, or of the whole cluster.
func (c *checker) hooks(raw rawHooks) fsm.Hooks {
	if raw.have != present {
		return fsm.Hooks{}
	}
	h := fsm.Hooks{Active: c.argv(raw.active), Backup: c.argv(raw.backup), Fault: c.argv(raw.fault)}
	if raw.active.have == absent && raw.backup.have == absent && raw.fault.have == absent {
		c.r.add(raw.pos, raw.path, "names no program", "", "write active:, backup: or fault: with a list of the program and its arguments, or leave the key out")
		return fsm.Hooks{}
	}
	h.Timeout = c.timeout(raw.timeout, DefaultHookTimeout)
	return h
}

// timeout checks for how long a program may run.
func (c *checker) timeout(f field[time.Duration], def time.Duration) time.Duration {
	if !f.ok() {
		return def
	}
	c.cfg.where[f.path] = f.pos
	if !f.key.lasts(f.v) {
		bad(c, f, "must be "+f.key.limits(), fmt.Sprintf("write %s, or leave the key out", short(def)))
		return def
	}
	return f.v
}

// long reports a text that is longer than the document takes.
func (c *checker) long(f field[string]) bool {
	if len(f.v) <= maxText {
		return false
	}
	bad(c, f, fmt.Sprintf("must have at most %d bytes, has %d", maxText, len(f.v)), "write a shorter one")
	return true
}

// short is a duration as a person writes it: without the zero minutes and seconds of
// time.Duration's own form.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
