package config

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quorate/quorate/fsm"
)

// A Problem is something in a document that has to be corrected, or that a person
// should know of, whatever file it came from.
type Problem struct {
	Path  string // the key, as vips.web.on_quorum_loss
	Text  string // what is wrong
	Value string // as the document has it; empty where there is none to show
	Do    string // what to write instead
}

// String is one line: path: what, the value; what to write.
func (p Problem) String() string {
	e := Error{Text: p.Text, Value: p.Value, Do: p.Do, Path: p.Path}
	return e.Error()
}

// replicated checks what becomes the document: the checks, the hooks and the groups.
func (c *checker) replicated(raw rawConfig) {
	c.checks(raw)
	c.cfg.Document.Hooks = c.hooks(raw.hooks)
	c.groups(raw)
	for _, p := range Warnings(c.cfg.Document) {
		c.cfg.Warnings = append(c.cfg.Warnings, c.cfg.At(p).Error())
	}
}

// At is a problem of the configuration's document at its place in the file.
func (c *Config) At(p Problem) *Error {
	at := c.where[p.Path]
	return &Error{File: c.file, Line: at.line, Column: at.column, Path: p.Path, Text: p.Text, Value: p.Value, Do: p.Do, src: c.src}
}

// ParseDocument reads the document of a cluster from a configuration file, or from a
// file that has only vips, checks and hooks. Of a configuration file it checks these,
// and lease and fence, which give the document's bound on leases: the rest is about the
// node that it was written for. Whether adverts leave the time for a failover depends
// on each node's lease and is left to CheckDocument. The name is for messages. The error
// joins an *Error for all that is wrong. The document's revision is zero.
func ParseDocument(name string, b []byte) (fsm.Document, error) {
	r := &report{file: name, least: "write at least vips with one group"}
	root := r.document(b)
	if root == nil {
		return fsm.Document{}, r.err()
	}
	raw := readRaw(r, root)
	c := &checker{r: r, applied: true, top: raw.topPos, cfg: &Config{file: name, src: r.src, where: map[string]pos{}}}
	c.cfg.Election = oneOf(c, raw.election, ElectRaft)
	if c.plain() {
		bad(c, raw.election, "routers of their own share no document", "change vips in each router's own file")
		return fsm.Document{}, r.err()
	}
	c.cfg.Fence = oneOf(c, raw.fence, BPF)
	c.timing(raw)
	c.cfg.Lease = 0 // the nodes have theirs
	c.replicated(raw)
	if err := r.err(); err != nil {
		return fsm.Document{}, err
	}
	return c.cfg.Document, nil
}

// Warnings are what a document allows and its author may not want: what gives up the
// promise, and what is without effect. It reads nothing but its argument.
func Warnings(doc fsm.Document) []Problem {
	used := map[string]bool{}
	for _, g := range doc.Groups {
		for _, name := range g.Checks {
			used[name] = true
		}
	}
	var out []Problem
	for _, k := range doc.Checks {
		path := join("checks", k.Name)
		if !used[k.Name] {
			out = append(out, Problem{Path: path, Text: "no group names this check, so its result changes nothing",
				Do: "write checks: [" + k.Name + "] in a group, or remove it"})
		}
		if k.Timeout > k.Interval {
			out = append(out, Problem{Path: path + ".timeout", Value: short(k.Timeout),
				Text: fmt.Sprintf("a run may take longer than the interval (%s), and then delays the next one", short(k.Interval)),
				Do:   "write " + short(k.Interval) + " or less, or a longer interval"})
		}
	}
	for _, g := range doc.Groups {
		out = append(out, groupWarnings(g)...)
	}
	return out
}

func groupWarnings(g fsm.Group) []Problem {
	var out []Problem
	warn := func(key, text, value, do string) {
		out = append(out, Problem{Path: join(join("vips", g.Name), key), Text: text, Value: value, Do: do})
	}
	if g.OnQuorumLoss == fsm.QuorumLossHold {
		warn("on_quorum_loss", "GIVES UP THE PROMISE OF ONE OWNER for this group: an owner that is cut off keeps answering without proof, "+
			"while the majority gives the group to another node; two hosts then answer, and each gets some of the connections", g.OnQuorumLoss.String(),
			"write release, or leave the key out, unless two answering hosts are better than none for this service")
	}
	if g.Placement < fsm.PlacementPriority || g.Placement == fsm.PlacementSpread {
		for _, name := range slices.Sorted(maps.Keys(g.Priority)) {
			if g.Priority[name] != 0 {
				warn("priority", fmt.Sprintf("with placement: %s only a priority of 0 has an effect, which means never on that node", max(g.Placement, fsm.PlacementLeader)), "",
					"write placement: priority, or only the nodes with 0")
				break
			}
		}
	}
	if g.Weight > 1 && g.Placement != fsm.PlacementSpread {
		warn("weight", "only groups with placement: spread count for spreading", fmt.Sprint(g.Weight), "write placement: spread, or remove the key")
	}
	if g.WhenAllFail == fsm.AllFailRelease && len(g.Checks) == 0 && len(g.TrackInterfaces) == 0 {
		warn("when_all_fail", "the group has neither checks nor track_interfaces that could fail", g.WhenAllFail.String(), "write some, or remove the key")
	}
	for _, t := range g.TrackInterfaces {
		if t.Interface == g.Interface {
			out = append(out, Problem{Path: trackPath(g.Name, t.Interface), Value: t.Interface, Do: "remove it",
				Text: "is the device of the group's own addresses, which counts anyway: without it no node holds the group"})
		}
	}
	return out
}

// CheckDocument checks a document against the devices of a member, which is to hold its
// groups. Worst is how long a failover may take with this node's lease (WorstFailover),
// to find adverts that would let an outside backup claim a group meanwhile; zero: not
// looked at. It reads nothing but its arguments.
func CheckDocument(doc fsm.Document, links []Link, worst time.Duration) []Problem {
	h := &hostChecker{links: WithoutVIPs(doc, links)}
	used := map[vridOn]string{}
	for _, g := range doc.Groups {
		h.group(g, used)
		if text, do := Outrun(g.VRRP, worst); worst > 0 && g.VRRP.Version == 3 && text != "" {
			h.add(join("vips", g.Name)+".vrrp.interval", text, "", do)
		}
	}
	return h.problems
}
