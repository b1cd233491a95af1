package daemon

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/config"
)

// diffDocuments shows what is different between two documents, in the form of a
// unified diff of configuration files: one hunk for each group, check or set of hooks
// that changed. Empty: nothing is.
func diffDocuments(a, b fsm.Document) string {
	var out strings.Builder
	before, after := sections(a), sections(b)
	for _, name := range sectionNames(before, after) {
		if before[name] == after[name] {
			continue
		}
		fmt.Fprintf(&out, "@@ %s @@\n", name)
		for _, l := range diffLines(lines(before[name]), lines(after[name])) {
			out.WriteString(l + "\n")
		}
	}
	return out.String()
}

// sections are the parts of a document by the keys that they are under, each as a
// file of its own would have it.
func sections(d fsm.Document) map[string]string {
	// No key says it: it is the longest of any file that was applied.
	out := map[string]string{"lease": fmt.Sprintf("# the longest lease with the fence's grace that any node may have: %s\n", d.MaxHold)}
	for _, g := range d.Groups {
		out["vips."+g.Name] = string(config.RenderDocument(fsm.Document{Groups: []fsm.Group{g}}))
	}
	for _, c := range d.Checks {
		out["checks."+c.Name] = without(string(config.RenderDocument(fsm.Document{Checks: []fsm.Check{c}})))
	}
	if d.Hooks.Any() {
		out["hooks"] = without(string(config.RenderDocument(fsm.Document{Hooks: d.Hooks})))
	}
	return out
}

// without leaves out the line which says that a part of a document has no groups.
func without(text string) string { return strings.TrimPrefix(text, "vips: {}\n") }

func sectionNames(a, b map[string]string) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// diffLines is the shortest way from a to b, each line after a space, - or +. Its time
// is the product of the lengths, which are those of one group.
func diffLines(a, b []string) []string {
	common := make([][]int, len(a)+1) // of what follows each pair of places
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			common[i][j] = max(common[i+1][j], common[i][j+1])
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			}
		}
	}
	var out []string
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, " "+a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out = append(out, "-"+a[i])
			i++
		default:
			out = append(out, "+"+b[j])
			j++
		}
	}
	return out
}

// effects says what a change of documents does to each group that it is about.
func effects(a, b fsm.Document) []string {
	out := []string{}
	for _, g := range a.Groups {
		if _, stays := b.Group(g.Name); !stays {
			out = append(out, fmt.Sprintf("%s: goes, with %s", g.Name, prefixes(g.Addresses)))
		}
	}
	for _, g := range b.Groups {
		was, had := a.Group(g.Name)
		switch {
		case !had:
			out = append(out, fmt.Sprintf("%s: new, with %s", g.Name, prefixes(g.Addresses)))
		case !fsm.SameReach(was, g):
			out = append(out, g.Name+": "+reach(was, g)+"; its owner stays, and proves its lease anew")
		case !reflect.DeepEqual(was, g):
			out = append(out, g.Name+": its addresses are not touched")
		}
	}
	return out
}

// reach says in what two versions of a group answer for other addresses, or elsewhere.
func reach(a, b fsm.Group) string {
	minus := func(of, not []netip.Prefix) []netip.Prefix {
		return slices.DeleteFunc(slices.Clone(of), func(p netip.Prefix) bool { return slices.Contains(not, p) })
	}
	var parts []string
	if gone := minus(a.Addresses, b.Addresses); len(gone) > 0 {
		parts = append(parts, prefixes(gone)+" goes")
	}
	if come := minus(b.Addresses, a.Addresses); len(come) > 0 {
		parts = append(parts, prefixes(come)+" comes")
	}
	switch {
	case a.Interface != b.Interface:
		parts = append(parts, "the device changes")
	case a.VMAC != b.VMAC || b.VMAC && a.VRRP.ID != b.VRRP.ID:
		parts = append(parts, "the hardware address changes")
	case len(parts) == 0 && slices.ContainsFunc(b.Addresses, func(p netip.Prefix) bool { return a.Standing(p.Addr()) != b.Standing(p.Addr()) }):
		parts = append(parts, "how an address stands changes")
	case len(parts) == 0:
		parts = append(parts, "the order of its addresses changes")
	}
	return strings.Join(parts, ", ")
}

func prefixes(p []netip.Prefix) string {
	var out []string
	for _, a := range p {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}
