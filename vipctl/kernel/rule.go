package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
)

// A rule as it is in the kernel, or is to be; for one family.
type rule struct {
	family          byte
	from, to        netip.Prefix // zero: any
	device          string
	mark            uint32
	table, priority uint32
}

// rulesOf are the rules that one of the document stands for: one that names no address is for both families.
func rulesOf(r fsm.Rule) []rule {
	of := func(family byte) rule {
		return rule{family: family, from: anyOrMasked(r.From), to: anyOrMasked(r.To), device: r.Interface,
			mark: r.Mark, table: r.Table, priority: r.Priority}
	}
	switch {
	case r.From.IsValid():
		return []rule{of(familyOf(r.From.Addr()))}
	case r.To.IsValid():
		return []rule{of(familyOf(r.To.Addr()))}
	default:
		return []rule{of(unix.AF_INET), of(unix.AF_INET6)}
	}
}

// anyOrMasked is the prefix as the kernel knows it, in which a whole family is any.
func anyOrMasked(p netip.Prefix) netip.Prefix {
	if p.Bits() <= 0 {
		return netip.Prefix{}
	}
	return p.Masked()
}

// is reports whether h, as it is in the kernel, is what r asks for.
func (r rule) is(h rule) bool {
	if r.priority == 0 {
		r.priority = h.priority // which the kernel has chosen
	}
	return r == h
}

// anyOf reports whether one of the document's rules asks for h.
func (h rule) anyOf(rules []fsm.Rule) bool {
	return slices.ContainsFunc(rules, func(r fsm.Rule) bool {
		return slices.ContainsFunc(rulesOf(r), func(w rule) bool { return w.is(h) })
	})
}

// String is the rule as ip(8) would have it.
func (h rule) String() string {
	s := "rule"
	if h.priority != 0 {
		s += fmt.Sprintf(" %d", h.priority)
	}
	if h.from.IsValid() {
		s += " from " + h.from.String()
	}
	if h.to.IsValid() {
		s += " to " + h.to.String()
	}
	if h.device != "" {
		s += " iif " + h.device
	}
	if h.mark != 0 {
		s += fmt.Sprintf(" fwmark %#x", h.mark)
	}
	s += fmt.Sprintf(" lookup %d", h.table)
	if h.family == unix.AF_INET6 {
		s += " (IPv6)"
	}
	return s
}

// rules returns those with our mark.
func (k *Kernel) rules() ([]rule, error) {
	return dump("rules", func() (all []rule, err error) {
		for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
			body := make([]byte, unix.SizeofRtMsg) // struct fib_rule_hdr has the same size
			body[0] = family
			err = k.conn.ask(unix.RTM_GETRULE, body, func(m message) {
				if r, ok := ruleOf(m, family); ok {
					all = append(all, r)
				}
			})
			if err != nil && !(family == unix.AF_INET6 && noFamily(err)) {
				return nil, err
			}
		}
		return all, nil
	})
}

const frActToTable = 1 // FR_ACT_TO_TBL of include/uapi/linux/fib_rules.h

// ruleOf reads a message of struct fib_rule_hdr, if it is of a rule with our mark.
func ruleOf(m message, family byte) (r rule, ok bool) {
	if m.kind != unix.RTM_NEWRULE || len(m.data) < unix.SizeofRtMsg || m.data[0] != family || m.data[7] != frActToTable {
		return r, false
	}
	r.family, r.table = family, uint32(m.data[4])
	for kind, value := range attributes(m.data[unix.SizeofRtMsg:]) {
		addr, _ := netip.AddrFromSlice(value)
		switch kind {
		case unix.FRA_DST:
			r.to = netip.PrefixFrom(addr, int(m.data[1]))
		case unix.FRA_SRC:
			r.from = netip.PrefixFrom(addr, int(m.data[2]))
		case unix.FRA_IIFNAME:
			r.device = unix.ByteSliceToString(value)
		case unix.FRA_PRIORITY:
			r.priority = uint32Of(value)
		case unix.FRA_FWMARK:
			r.mark = uint32Of(value)
		case unix.FRA_TABLE:
			r.table = uint32Of(value)
		case unix.FRA_PROTOCOL:
			ok = len(value) == 1 && value[0] == Protocol
		}
	}
	return r, ok
}

// request writes the request that adds or deletes the rule.
func (h rule) request(b *batch, kind, flags uint16) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0], body[7] = h.family, frActToTable
	if h.to.IsValid() {
		body[1] = byte(h.to.Bits())
	}
	if h.from.IsValid() {
		body[2] = byte(h.from.Bits())
	}
	b.add(kind, flags, body)
	if h.to.IsValid() {
		b.attr(unix.FRA_DST, h.to.Addr().AsSlice())
	}
	if h.from.IsValid() {
		b.attr(unix.FRA_SRC, h.from.Addr().AsSlice())
	}
	if h.device != "" {
		b.attr(unix.FRA_IIFNAME, append([]byte(h.device), 0))
	}
	if h.mark != 0 {
		b.attr32(unix.FRA_FWMARK, h.mark)
	}
	if h.priority != 0 {
		b.attr32(unix.FRA_PRIORITY, h.priority)
	}
	b.attr32(unix.FRA_TABLE, h.table)
	b.attr(unix.FRA_PROTOCOL, []byte{Protocol})
}

// lacks returns what of the document's rule is not there.
func (v *View) lacks(r fsm.Rule) (missing []rule) {
	for _, want := range rulesOf(r) {
		if !slices.ContainsFunc(v.rules, want.is) {
			missing = append(missing, want)
		}
	}
	return missing
}

// PutRules has the rules in the kernel, in order, all or nothing: on an error those that
// this call has added are taken out again, in reverse. Rules that are there are left as
// they are. One of the host that is just the same is left alone; ours comes beside it, or
// is an error where the kernel does not tell them apart.
func (k *Kernel) PutRules(rules []fsm.Rule) error {
	if len(rules) == 0 {
		return nil
	}
	k.addrs.Lock()
	defer k.addrs.Unlock()
	have, err := k.rules()
	if err != nil {
		return err
	}
	v := &View{k: k, rules: have}
	var added []rule
	for _, r := range rules {
		if r.Table == 0 { // the kernel would take any that is empty
			return errors.Join(fmt.Errorf("put the %s: it has no table", rulesOf(r)[0]), k.takeOutRules(added))
		}
		for _, want := range v.lacks(r) {
			var b batch
			want.request(&b, unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
			err := k.conn.run(&b, true)[0]
			if noFamily(err) && want.family == unix.AF_INET6 && !r.From.IsValid() && !r.To.IsValid() {
				continue // no IPv6 here, and no address of it that could be meant
			}
			if err == nil || errors.Is(err, errUnanswered) {
				added = append(added, want)
			}
			if err != nil {
				return errors.Join(ruleError(want, err), k.takeOutRules(added))
			}
		}
	}
	return nil
}

func ruleError(r rule, err error) error {
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("put the %s: the host has the same rule already, which is not taken over; "+
			"remove that one, or give this one another priority: %w", r, err)
	}
	return fmt.Errorf("put the %s: %w", r, err)
}

// takeOutRules deletes rules, the last first.
func (k *Kernel) takeOutRules(rules []rule) error {
	if len(rules) == 0 {
		return nil
	}
	var b batch
	for _, r := range slices.Backward(rules) {
		r.request(&b, unix.RTM_DELRULE, 0)
	}
	var errs []error
	for i, err := range k.conn.run(&b, false) {
		if err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("take out the %s: %w", rules[len(rules)-1-i], err))
		}
	}
	return several(errs)
}

// TakeRules takes the rules out, the last first, and returns nil only when a look
// afterwards shows them all gone. Only rules with our mark are touched; one that is not there is gone.
func (k *Kernel) TakeRules(rules []fsm.Rule) error {
	if len(rules) == 0 {
		return nil
	}
	k.addrs.Lock()
	defer k.addrs.Unlock()
	const looks = 3
	for look := 0; ; look++ {
		have, err := k.rules()
		if err != nil {
			return err
		}
		var there []rule
		for _, h := range have {
			if h.anyOf(rules) {
				there = append(there, h)
			}
		}
		if len(there) == 0 {
			return nil
		}
		if look == looks {
			return fmt.Errorf("take out the %s: it came back each of %d times", there[0], looks)
		}
		if err := k.takeOutRules(there); err != nil {
			return err
		}
	}
}
