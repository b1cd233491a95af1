package sim_test

// A mutant is the product without one rule. What is amiss then shows in TestChaos,
// or in an ambush or a test that was made for what chance hardly ever does. A second
// line is seen only when its first line is away as well; then neither alone is.
type mutant struct {
	rule   string
	body   string // in place of the function's
	decl   string // what the body needs besides
	behind string // the first line
	script string // of TestAmbush
	test   string // "package Test"
}

var mutants = []mutant{
	// The voter.
	{rule: "applied-only", body: `return false`},
	{rule: "never-superseded", body: `return false`},
	{rule: "never-older-state", body: `return false`, behind: "anew", script: "a snapshot that comes late"},
	{rule: "asked-in-order", body: `return false`, test: "./election TestVoterRefuses"},
	{rule: "asked-since-release", body: `return false`, test: "./election TestReleaseThenOlderQuestion"},
	{rule: "hold-bounded", body: `return true`, test: "./election TestVoterRefuses"},
	{rule: "slewed-voter-refuses", body: `return true`, script: "the voter of both has a slewed clock"},
	{rule: "note", body: `v.asked[groupKey{g.Group, r.From}] = r.Stamp
		delete(v.behind, groupKey{g.Group, r.From})`},
	{rule: "note-max", body: `return by`, script: "a shorter lease after a restart"},
	{rule: "note-per-address", body: `
		return func(yield func(noted) bool) {
			for _, on := range v.notes {
				for _, n := range on {
					if n.group == g.Name && !yield(n) {
						return
					}
				}
			}
		}`},
	{rule: "boots-block", body: `return k.node != asks.From`, test: "./internal/agent/core TestCopiedDataDirIsBlocked"},
	{rule: "grace-counts", body: `return r.Lease`},
	{rule: "drift", body: `return d`},
	{rule: "blocked", body: `return 0`},
	{rule: "log-replayed", body: `return true`, behind: "anew", script: "a log that is not replayed yet"},
	{rule: "restart-wait", body: `return 0`},
	{rule: "longest-written-first", body: `return false`},
	{rule: "longest-durable", body: `return true`, script: "a longer hold is not on the disk"},
	{rule: "clone-refused", body: `return false`, test: "./election TestClonedInstance"},
	{rule: "slew-waited-out", body: ``},

	// The owner.
	{rule: "let-go-from-sending", body: `return receipt`},
	{rule: "claim-from-receipt", body: `return sent`},
	{rule: "start-after-blocked", body: `return from`},
	{rule: "stated-lease", body: `return from.Add(max(stated, 400*time.Millisecond))`},
	{rule: "one-answer", behind: "never-superseded", body: `
		c := confirmation{start: notBlockedUntil(claimFrom(a.Echo.At, receipt), g.Blocked),
			deadline: holdUntil(letGoFrom(a.Echo.At, receipt), a.Lease), log: a.Log}
		for _, o := range h.answers[a.From] {
			c.start = min(c.start, o.start)
		}
		return c`},
	// As the rules could be misread: what blocks counts until the group was once open
	// under this epoch, and then no more.
	{rule: "anew", behind: "never-superseded", decl: `var startedOnce sync.Map`, body: `
		at := now
		if e, ok := startedOnce.Load(h); ok && e == h.epoch {
			at = now.Add(1 << 60)
		}
		d, ok := h.deadlineAt(now, at, own)
		if ok = ok && d.After(now); ok {
			startedOnce.Store(h, h.epoch)
		}
		return d, ok`},
	{rule: "every-member", body: `return ascending[len(ascending)-1]`},
	{rule: "unexpired", body: `return false`, test: "./election TestRolledBackVoterSetIsForgotten"},
	{rule: "answer-epoch", body: `return true`, test: "./election TestAnswersThatDoNotCount"},
	{rule: "answer-boot", body: `return true`, test: "./election TestAnswersThatDoNotCount"},
	{rule: "answer-not-of-the-future", body: `return true`, behind: "answer-boot", script: "late answer to an earlier boot"},
	{rule: "answer-since", body: `return true`, script: "late answer after a release"},
	{rule: "this-life", body: `return &Holder{boot: boot, notBefore: -1 << 62, answers: map[fsm.InstanceID][]confirmation{}}`, behind: "release-voids", script: "late answer to an earlier life"},
	{rule: "epoch-forgets", body: `h.epoch = epoch`, test: "./election TestNewEpochForgetsAnswers"},
	{rule: "own-vote", body: `
		a, need := c.voter.Renewal(c.poll(), r)
		c.writeHold(need)
		for i := range a.Groups {
			a.Groups[i].Blocked = 0
		}
		c.answered(a)`},
	{rule: "shut-when-named-away", body: `return c.state.Assignments[g.def.Name].Owner == c.cfg.Self.ID || g.open()`, test: "./internal/agent/core TestNamedAwayLetsGo"},
	{rule: "shut-when-stale", body: `return false`, test: "./internal/agent/core TestCalledStaleLetsGo"},
	{rule: "hold-asked", body: `return true`},

	// The voter sets.
	{rule: "majority", body: `return max(1, len(s.Voters)/2)`},
	{rule: "predecessor", body: `return VoterSet{}`},
	{rule: "sets-of-answers", body: `return []VoterLog{own}`, script: "two changes past the owner's log"},
	{rule: "spacing", body: `return true`},
	{rule: "spacing-from-commit", body: `return termCommitted`},
	{rule: "change-after-commit", body: `return true`, test: "./internal/agent/core TestChangeWaitsForTheCommit"},

	// The release.
	{rule: "release-order", body: `return boot == left.Boot`},
	{rule: "release-stamp", body: `return c.now`},
	{rule: "release-forgets", body: `h.voidBefore(at)`},
	{rule: "release-voids", body: ``, script: "late answer after a release"},

	// The epoch and the clock.
	{rule: "reach-is-epoch", body: `return true`},
	{rule: "clock-bound", body: `return nil`},
	{rule: "clock-watched", body: `return time.Hour`},
	{rule: "clock-read-after", body: `return a.clockAt.Add(-a.clockEvery())`},
	{rule: "slewed-asks-nothing", body: `return true`, behind: "slewed-holds-nothing", script: "the owner has had a slewed clock"},
	{rule: "slewed-holds-nothing", body: `return false`},

	// The order of things on the host.
	{rule: "sweep-first", body: `return true`},
	{rule: "inherit-by-log", body: `return false`, test: "./internal/agent/core TestEmptyLogKeepsNothing"},
	{rule: "inherit-in-place", body: `return true`, test: "./internal/agent/core TestKeptIsLetGo"},
	{rule: "inherited-deadline", body: `return left[0].Until.Add(1e9)`},
	{rule: "renounce", body: ``, script: "a slewed clock before the log is replayed"},
	{rule: "release-outlives", body: `return true`, script: "addresses in other groups after a restart"},
	{rule: "sweep-replayed", body: `return true`, test: "./internal/agent/core TestSweepWaitsForTheLog"},
	{rule: "sweep-all", body: `return true`, test: "./internal/agent/core TestSweepFollowsTheDocument"},
	{rule: "address-free", body: `return false`},
	{rule: "own-replies", body: `return 1`},
	{rule: "fence-first", body: `
		c.do(
			Bind{Group: g.def.Name, Gen: gen, Holding: g.holding(at), Until: g.deadline},
			SetFence{Group: g.def.Name, Addrs: addrsOf(at), Until: g.deadline},
		)`},
	{rule: "no-fence-no-address", body: `return false`},
	{rule: "fence-everywhere", body: `return false`},
	{rule: "shut-first", body: ``},
	{rule: "gone-first", body: `return true`},
	{rule: "drained-first", body: `return gone`},
	{rule: "part-briefly", body: `return g.parting.until != 0`, test: "./internal/agent/core TestPartingIsShort"},
	{rule: "reset-over", body: `return true`},
	{rule: "last-word-first", body: `a.Post(ev)`},
	{rule: "nothing-late", body: `return false`},
	{rule: "announce-guard", body: `return deadline`},
}
