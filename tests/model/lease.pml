/*
 * The lease protocol of docs/lease.md, for Spin: at no instant do two hosts answer.
 * docs/safety.md, section 8, says what this covers, what it leaves out and what came of it.
 *
 * WITHOUT_x takes rule x of lease.md out, WITH_x puts in what its section 2 tells of. The
 * test beside this file does so, one at a time, and fails unless Spin then finds two hosts
 * that answer.
 *
 * The environment is as hostile as the bounds allow. Every step is optional, so every
 * process may be frozen at any point for any time, while the fence goes on by itself.
 * Questions, answers and releases are lost, delayed, repeated and overtaken. Processes
 * end and start again as often as they like. A node that owns and votes is two processes
 * here, which may stop together and hear each other at once.
 *
 * VOTERS is 1 where one voter stands for that which the majorities of both owners share:
 * what the others say is left out, as if they confirmed everything at once. With 3 there
 * are majorities.
 *
 * Unless EPOCHS is set everybody may ask at any time, as if all were named at once: for
 * an address that stays where it is, the exclusion does not need Raft.
 *
 * Time is true time, in ticks, and every instant is kept as the ticks since or until
 * then, so that the states are finitely many without a bound on time. The clocks are at
 * their worst: what lasts is measured by the slowest, LEASE + GRACE taking DRIFT ticks
 * more than that, and what is waited for by the fastest.
 */

/* ---- The bounds ---- */

#ifndef VOTERS
#define VOTERS 1
#endif
#ifndef OWNERS
#define OWNERS 2
#endif
#ifndef LEASE
#define LEASE 1
#endif
#ifndef GRACE
#define GRACE 1
#endif
#ifndef DRIFT
#define DRIFT 1
#endif
#ifdef TWO_LEASES	/* a question may ask for a shorter one, too */
#define SHORT (LEASE - 1)
#else
#define SHORT LEASE
#endif
#define USEFUL (LEASE + DRIFT)	/* an older question is worth nothing any more */
#ifndef DELAY
#define DELAY USEFUL	/* a release arrives within so many ticks, or never */
#endif

#define PAIRS (VOTERS * OWNERS)
#define VO(v, o) ((v) * OWNERS + (o))

/* ---- Raft: whom each entry names ---- */

#ifdef EPOCHS
byte owner[EPOCHS + 1];
byte committed;
bit learnt = 1;		/* somebody applied the last of them */
byte knows[OWNERS];	/* the last entry that it applied: its epoch */
byte applied[VOTERS];
byte mustApply[VOTERS];	/* what its log held when it started */
#define NAMED(o) (knows[o] > 0 && owner[knows[o]] == (o))
#define EPOCH(o) knows[o]
#else
#define NAMED(o) true
#define EPOCH(o) 1
#endif

/* ---- An owner ---- */

byte fence[OWNERS];	/* the host answers for so many ticks more, grace included */
byte notBefore[OWNERS];	/* ticks since its start or last release, up to USEFUL */
byte said[OWNERS];	/* a bit for each age: a release of that stamp is under way */
byte wait[PAIRS];	/* of the answer that counts: ticks until it may be used */
byte left[PAIRS];	/* of the answer that counts: ticks until its deadline; 0: none */
#ifdef FREEZE_BEFORE_WRITE
byte toWrite[OWNERS];	/* as fence, computed and not written yet; 0: nothing */
#define AWAKE(o) (toWrite[o] == 0)
#else
#define AWAKE(o) true
#endif
#ifdef WITHOUT_ANEW
bit started[OWNERS];	/* since it was named */
#endif

/* Whoever may ask asks in each tick, unless it says a release in it: no two stamps of one
 * owner are equal. */
#define ASKED(o, at) (NAMED(o) && !(said[o] & (1 << (at))))

/* ---- A voter ---- */

byte silent[VOTERS];	/* ticks for which it confirms nothing after its start */
byte note[PAIRS];	/* the owner may answer for so many ticks more */
byte stamp[PAIRS];	/* ticks since the newest stamp that the note was taken for, up to DELAY */
#ifdef TWO_LEASES
byte longest[VOTERS];	/* on disk: the longest hold ever confirmed */
#define LONGEST(v) longest[v]
#else
#define LONGEST(v) (LEASE + GRACE)
#endif

/* The answer under way from a voter to an owner. */
byte answer[PAIRS];	/* its epoch; 0: none */
byte age[PAIRS];	/* ticks since the stamp that it echoes */
byte blocked[PAIRS];
#ifdef TWO_LEASES
bit echoesShort[PAIRS];
#define ECHOES_SHORT(p) echoesShort[p]
#else
#define ECHOES_SHORT(p) false
#endif
inline clearAnswer(p) {
	answer[p] = 0; age[p] = 0; blocked[p] = 0;
#ifdef TWO_LEASES
	echoesShort[p] = 0;
#endif
}

#define LEASE_IF(isShort) (isShort -> SHORT : LEASE)

/* ==== The rules of the owner ==== */

/* answer-epoch, answer-since: an answer counts only for its epoch, and if its question
 * was asked after the start and the last release. */
#if !defined(EPOCHS) || defined(WITHOUT_ANSWER_EPOCH)
#define OF_EPOCH(o, e) true
#else
#define OF_EPOCH(o, e) (knows[o] == (e))
#endif
#ifdef WITHOUT_ANSWER_SINCE
#define ASKED_SINCE(o, at) true
#else
#define ASKED_SINCE(o, at) ((at) < notBefore[o])
#endif
#define COUNTS(o, p) (answer[p] && OF_EPOCH(o, answer[p]) && ASKED_SINCE(o, age[p]))

/* let-go-from-sending, stated-lease */
#if defined(WITHOUT_LET_GO_FROM_SENDING)
#define LEFT(p) USEFUL
#elif defined(WITHOUT_STATED_LEASE)
#define LEFT(p) (USEFUL - age[p])
#else
#define LEFT(p) (LEASE_IF(ECHOES_SHORT(p)) + DRIFT - age[p])
#endif

/* claim-from-receipt, start-after-blocked */
#if defined(WITHOUT_CLAIM_FROM_RECEIPT)
#define WAIT(p) (blocked[p] > age[p] -> blocked[p] - age[p] : 0)
#elif defined(WITHOUT_START_AFTER_BLOCKED)
#define WAIT(p) 0
#else
#define WAIT(p) blocked[p]
#endif

/* one-answer: start and deadline come from the same one. Of several of one voter, any may
 * be the last to arrive. */
inline receive(p) {
#ifdef WITHOUT_ONE_ANSWER
	wait[p] = (left[p] && wait[p] < WAIT(p) -> wait[p] : WAIT(p));
	left[p] = (left[p] > LEFT(p) -> left[p] : LEFT(p))
#else
	wait[p] = WAIT(p);
	left[p] = (LEFT(p) > 0 -> LEFT(p) : 0)
#endif
}

/* anew: both are judged each time. */
#ifdef WITHOUT_ANEW
#define MAY_START(o, p) (wait[p] == 0 || started[o])
#else
#define MAY_START(o, p) (wait[p] == 0)
#endif

/* majority, every-member: n is the latest that each of a majority allows, as the ticks
 * until then and the grace; 0: nothing. */
#ifdef WITHOUT_MAJORITY
#define MAJORITY 1
#else
#define MAJORITY (VOTERS / 2 + 1)
#endif
inline deadline(o) {
	n = 0; most = 0;
	for (d : 1 .. USEFUL) {
#ifdef WITHOUT_EVERY_MEMBER
		for (v : 0 .. VOTERS - 1) { most = most + (left[VO(v, o)] > 0 && MAY_START(o, VO(v, o))) }
		for (v : 0 .. VOTERS - 1) { n = (most >= MAJORITY && left[VO(v, o)] >= d -> d + GRACE : n) }
#else
		for (v : 0 .. VOTERS - 1) { most = most + (left[VO(v, o)] >= d && MAY_START(o, VO(v, o))) }
		n = (most >= MAJORITY -> d + GRACE : n);
#endif
		most = 0
	}
	d = 0; v = 0
}

/* The fence is opened until n, and the promise is looked at. */
inline write(o) {
#ifdef WITHOUT_ANEW
	started[o] = (n > GRACE -> 1 : started[o]);
#endif
	fence[o] = (n > GRACE && n > fence[o] -> n : fence[o]);
	n = 0; most = 0;
	for (i : 0 .. OWNERS - 1) { most = most + (fence[i] > 0) }
	i = 0;
	assert(most <= 1);
	most = 0;
#ifdef WITNESS
	assert(!(WITNESS));	/* what is to be shown possible */
#endif
	skip
}

/* Shutting leaves what the kernel has accepted already: that is gone within the grace. */
inline shut(o) { fence[o] = (fence[o] > GRACE -> GRACE : fence[o]) }

/* gone-first, drained-first: a release is said when nothing of the tenure can be heard. */
#if defined(WITHOUT_GONE_FIRST)
#define MAY_RELEASE(o) true
#elif defined(WITHOUT_DRAINED_FIRST)
#define MAY_RELEASE(o) (fence[o] <= GRACE)
#else
#define MAY_RELEASE(o) (fence[o] == 0)
#endif
/* release-voids, release-forgets */
inline sayReleased(o) {
	said[o] = said[o] | 1;
#ifndef WITHOUT_RELEASE_VOIDS
	notBefore[o] = 0;
#endif
#ifndef WITHOUT_RELEASE_FORGETS
	forgetAnswers(o);
#endif
	skip
}

inline forgetAnswers(o) {
	for (v : 0 .. VOTERS - 1) { wait[VO(v, o)] = 0; left[VO(v, o)] = 0 }
	v = 0
}

/* this-life: a process that ends and starts again is one that was frozen, but that it
 * forgets. The fence goes on without it, and here it need not even shut it at its start. */
inline restartOwner(o) {
#ifdef WITHOUT_THIS_LIFE
	notBefore[o] = USEFUL;
#else
	notBefore[o] = 0;
#endif
#ifdef EPOCHS
	knows[o] = 0;
#endif
#ifdef FREEZE_BEFORE_WRITE
	toWrite[o] = 0;
#endif
#ifdef WITHOUT_ANEW
	started[o] = 0;
#endif
	forgetAnswers(o)
}

/* ==== The rules of the voter ==== */

#ifdef WITHOUT_DRIFT
#define WITH_DRIFT(d) (d)
#else
#define WITH_DRIFT(d) ((d) + DRIFT)
#endif

/* applied-only, never-superseded */
#if !defined(EPOCHS)
#define STATE_SAYS(v, e, o) true
#else
#define STATE_NAMES(v, e, o) (applied[v] == (e) && owner[applied[v]] == (o))
#if defined(WITHOUT_APPLIED_ONLY)
#define STATE_SAYS(v, e, o) (applied[v] < (e) || STATE_NAMES(v, e, o))
#elif defined(WITHOUT_NEVER_SUPERSEDED)
#define STATE_SAYS(v, e, o) (applied[v] > (e) || STATE_NAMES(v, e, o))
#else
#define STATE_SAYS(v, e, o) STATE_NAMES(v, e, o)
#endif
#endif

/* log-replayed: rule (a) */
#if !defined(EPOCHS) || defined(WITHOUT_LOG_REPLAYED)
#define REPLAYED(v) true
#else
#define REPLAYED(v) (applied[v] >= mustApply[v])
#endif

/* restart-wait: rule (b) */
#if defined(WITHOUT_RESTART_WAIT)
#define RESTART_WAIT(v) 0
#elif defined(WITH_RESTART_WAIT_OF_TODAY)
#define RESTART_WAIT(v) WITH_DRIFT(SHORT + GRACE)
#elif defined(WITH_RESTART_WAIT_SANS_GRACE)
#define RESTART_WAIT(v) WITH_DRIFT(LONGEST(v) - GRACE)
#else
#define RESTART_WAIT(v) (LONGEST(v) -> WITH_DRIFT(LONGEST(v)) : 0)
#endif

/* longest-written-first */
#ifdef WITHOUT_LONGEST_WRITTEN_FIRST
#define WRITTEN(v, hold) true
#else
#define WRITTEN(v, hold) (LONGEST(v) >= (hold))
#endif

/* asked-in-order, as long as the note stands. */
#ifdef WITHOUT_ASKED_IN_ORDER
#define IN_ORDER(p, at) true
#else
#define IN_ORDER(p, at) (note[p] == 0 || (at) < stamp[p])
#endif

#define MAY_CONFIRM(v, o, at, isShort) (ASKED(o, at) && IN_ORDER(VO(v, o), at) && silent[v] == 0 && REPLAYED(v) \
	&& STATE_SAYS(v, EPOCH(o), o) && WRITTEN(v, LEASE_IF(isShort) + GRACE))

/* blocked, note-per-address, boots-block: the longest note of anyone else. */
#if defined(WITHOUT_BLOCKED)
#define BLOCKS(i, o) false
#elif defined(WITHOUT_NOTE_PER_ADDRESS)
#define BLOCKS(i, o) ((i) == (o) && (i) != (o))	/* each knows the address in a group of its own */
#elif defined(WITHOUT_BOOTS_BLOCK)
#define BLOCKS(i, o) ((i) / 2 != (o) / 2)	/* 0 and 1 are one instance on two boots */
#else
#define BLOCKS(i, o) ((i) != (o))
#endif
/* What a voter notes and what blocks goes by the addresses of the state that it applied. */
#ifdef DOCUMENTS
#define HAS_ADDRESS(v, o) (applied[v] > 0 && owner[applied[v]] == (o))
#else
#define HAS_ADDRESS(v, o) true
#endif

/* grace-counts */
#ifdef WITHOUT_GRACE_COUNTS
#define NOTED(isShort) WITH_DRIFT(LEASE_IF(isShort))
#else
#define NOTED(isShort) WITH_DRIFT(LEASE_IF(isShort) + GRACE)
#endif
/* note, note-max */
inline take(p, at, isShort) {
#ifndef WITHOUT_NOTE
#ifdef WITHOUT_NOTE_MAX
	note[p] = 0;
#endif
	stamp[p] = (note[p] == 0 || stamp[p] > at -> at : stamp[p]);
	note[p] = (note[p] < NOTED(isShort) -> NOTED(isShort) : note[p]);
#endif
	skip
}

/* Compute what blocks, take the note and answer, in one step. An answer that is still
 * under way is lost. */
inline confirm(v, o, at, isShort) {
	clearAnswer(VO(v, o));
	if
	:: HAS_ADDRESS(v, o) ->
		for (i : 0 .. OWNERS - 1) {
			blocked[VO(v, o)] = (BLOCKS(i, o) && note[VO(v, i)] > blocked[VO(v, o)] -> note[VO(v, i)] : blocked[VO(v, o)])
		}
		i = 0;
		take(VO(v, o), at, isShort)
	:: else
	fi;
	answer[VO(v, o)] = EPOCH(o);
	age[VO(v, o)] = at;
#ifdef TWO_LEASES
	echoesShort[VO(v, o)] = isShort;
#endif
#ifdef PROMPT	/* it arrives at once */
	if
	:: COUNTS(o, VO(v, o)) -> receive(VO(v, o))
	:: else
	fi;
	clearAnswer(VO(v, o))
#endif
}

/* release-order: only a note with an older stamp goes. */
#ifdef WITHOUT_RELEASE_ORDER
#define ENDED_BY(p, at) (note[p] > 0)
#else
#define ENDED_BY(p, at) (note[p] > 0 && stamp[p] > (at))
#endif

inline crashVoter(v) {
#ifdef EPOCHS
	mustApply[v] = (applied[v] > mustApply[v] -> applied[v] : mustApply[v]);
	applied[v] = 0;
#endif
	silent[v] = RESTART_WAIT(v);
	for (i : 0 .. OWNERS - 1) { note[VO(v, i)] = 0; stamp[VO(v, i)] = 0 }
	i = 0
}

/* ==== Time ==== */

inline less(x) { x = (x > 0 -> x - 1 : 0) }
inline older(x, most) { x = (x < most -> x + 1 : most) }

inline tick() {
	for (i : 0 .. OWNERS - 1) {
#ifdef WITHOUT_CLOCK_BOUND
		fence[i] = (fence[i] == GRACE + 1 || fence[i] == 0 -> fence[i] : fence[i] - 1);	/* its clock stands still */
#else
		less(fence[i]);
#endif
#if defined(FREEZE_BEFORE_WRITE) && !defined(WITH_RELATIVE_DEADLINE)
		toWrite[i] = (toWrite[i] > 1 -> toWrite[i] - 1 : toWrite[i]);	/* at 1 it has passed, and opens nothing */
#endif
		older(notBefore[i], USEFUL);
		said[i] = (said[i] << 1) & ((1 << DELAY) - 1)
	}
	i = 0;
	for (i : 0 .. PAIRS - 1) {
		less(left[i]); less(wait[i]);
		wait[i] = (left[i] -> wait[i] : 0);
		less(note[i]);
		stamp[i] = (note[i] -> (stamp[i] < DELAY -> stamp[i] + 1 : DELAY) : 0);
		if
		:: answer[i] && age[i] < USEFUL - 1 -> age[i]++
		:: else -> clearAnswer(i)
		fi
	}
	i = 0;
	for (i : 0 .. VOTERS - 1) { less(silent[i]) }
	i = 0
}

/* The voters are alike, and so are two owners unless Raft names them: of states that
 * differ only in who is who, one is looked at. */
hidden byte held;
inline swap(a, b) { held = a; a = b; b = held }
inline swapPairs(p, q) {
	swap(note[p], note[q]); swap(stamp[p], stamp[q]); swap(left[p], left[q]); swap(wait[p], wait[q]);
	swap(answer[p], answer[q]); swap(age[p], age[q]); swap(blocked[p], blocked[q]);
#ifdef TWO_LEASES
	swap(echoesShort[p], echoesShort[q]);
#endif
}
#define OWNER_KEY(o) (fence[o] + 16 * (notBefore[o] + 8 * said[o]))
#define PAIR_KEY(p) (note[p] + 8 * (stamp[p] + 4 * (left[p] + 4 * (wait[p] + 8 * (age[p] + 4 * blocked[p])))))
#define VOTER_KEY(v) (silent[v] + 8 * (PAIR_KEY(VO(v, 0)) + 8192 * PAIR_KEY(VO(v, 1))))
inline orderVoters(a, b) {
	if
	:: VOTER_KEY(a) > VOTER_KEY(b) ->
		swap(silent[a], silent[b]);
		swapPairs(VO(a, 0), VO(b, 0));
		swapPairs(VO(a, 1), VO(b, 1))
	:: else
	fi
}
inline sort() {
#if OWNERS == 2 && !defined(EPOCHS)
	if
	:: OWNER_KEY(0) < OWNER_KEY(1) ->
		swap(fence[0], fence[1]); swap(notBefore[0], notBefore[1]); swap(said[0], said[1]);
#ifdef FREEZE_BEFORE_WRITE
		swap(toWrite[0], toWrite[1]);
#endif
#ifdef WITHOUT_ANEW
		swap(started[0], started[1]);
#endif
		swapPairs(VO(0, 0), VO(0, 1));
#if VOTERS > 1
		swapPairs(VO(1, 0), VO(1, 1));
#endif
#if VOTERS > 2
		swapPairs(VO(2, 0), VO(2, 1));
#endif
		skip
	:: else
	fi;
#endif
#if VOTERS > 1 && OWNERS == 2
	orderVoters(0, 1);
#if VOTERS > 2
	orderVoters(1, 2); orderVoters(0, 1);
#endif
#endif
	skip
}

/* ==== What happens ==== */

proctype Time() {
	byte i;
end:	do
	:: d_step { true -> tick(); sort() }
	od
}

#ifdef EPOCHS
/* An entry makes no difference before somebody applies it, so the next comes after that.
 * By symmetry the first names owner 0. With DOCUMENTS each entry moves the address to the
 * other group, and each owner owns one. */
#ifdef DOCUMENTS
#define OTHER (1 - owner[committed - 1])
#else
#define OTHER 1
#endif
proctype Raft() {
end:	do
#ifdef DOCUMENTS
	:: d_step { committed == 0 && learnt -> committed++; learnt = 0 }
#else
	:: d_step { committed < EPOCHS && learnt -> committed++; learnt = 0 }
#endif
	:: d_step { committed < EPOCHS && learnt && committed > 0 -> committed++; owner[committed] = OTHER; learnt = 0 }
	od
}
#endif

proctype Owner(byte o) {
	byte i, v, n, d, most;
end:	do
	:: d_step { true -> restartOwner(o); sort() }
	/* It may let go at any time: a move, a check, the carrier, a stop, the end of a lease. */
	:: d_step { AWAKE(o) && fence[o] > GRACE -> shut(o); sort() }
	:: d_step { AWAKE(o) && MAY_RELEASE(o) -> sayReleased(o); sort() }
#ifndef PROMPT
#define RECEIVE(x) :: d_step { AWAKE(o) && COUNTS(o, VO(x, o)) -> receive(VO(x, o)); sort() }
	RECEIVE(0)
#if VOTERS == 3
	RECEIVE(1)
	RECEIVE(2)
#endif
#endif
#ifdef EPOCHS
	:: d_step { AWAKE(o) && knows[o] < committed ->
		knows[o]++; learnt = (knows[o] == committed -> 1 : learnt);
#ifdef WITHOUT_ANEW
		started[o] = 0;
#endif
#ifndef WITHOUT_EPOCH_FORGETS
		forgetAnswers(o)
#endif
	   }
#endif
#ifdef FREEZE_BEFORE_WRITE
	/* The deadline is an instant: what is left of it goes by while the process is frozen
	 * with it in its hand. It does nothing else before it has written it. */
	:: d_step { AWAKE(o) && NAMED(o) -> deadline(o); toWrite[o] = n; n = 0; sort() }
	:: d_step { toWrite[o] -> n = toWrite[o]; toWrite[o] = 0; write(o); sort() }
#ifdef WITH_TWO_WRITERS
	:: d_step { toWrite[o] -> shut(o); sort() }
	:: d_step { toWrite[o] && MAY_RELEASE(o) -> sayReleased(o); sort() }
#endif
#else
	/* Without such a freeze, to be frozen before this step is the same. */
	:: d_step { NAMED(o) -> deadline(o); write(o); sort() }
#endif
	od
}

proctype Voter(byte v) {
	byte i;
end:	do
#ifdef TWO_LEASES
#define CONFIRM(x, at) \
	:: d_step { MAY_CONFIRM(v, x, at, 0) -> confirm(v, x, at, 0); sort() } \
	:: d_step { MAY_CONFIRM(v, x, at, 1) -> confirm(v, x, at, 1); sort() }
#else
#define CONFIRM(x, at) :: d_step { MAY_CONFIRM(v, x, at, 0) -> confirm(v, x, at, 0); sort() }
#endif
#define RELEASE(x, at) :: d_step { (said[x] & (1 << at)) && ENDED_BY(VO(v, x), at) -> note[VO(v, x)] = 0; stamp[VO(v, x)] = 0; sort() }
#define FROM(x) CONFIRM(x, 0) CONFIRM(x, 1) RELEASE(x, 0) RELEASE(x, 1)
	FROM(0) FROM(1)
#if OWNERS > 2
	FROM(2)
#endif
#if USEFUL > 2
	CONFIRM(0, 2) CONFIRM(1, 2)
#endif
#if DELAY > 2
	RELEASE(0, 2) RELEASE(1, 2)
#endif
#if USEFUL > 3 || DELAY > 3 || (OWNERS > 2 && DELAY > 2) || OWNERS > 3
#error "not every question or release would be heard: see above"
#endif
	:: d_step { true -> crashVoter(v); sort() }
#ifdef EPOCHS
	:: d_step { applied[v] < committed -> applied[v]++; learnt = (applied[v] == committed -> 1 : learnt) }
#endif
#ifdef TWO_LEASES
	:: d_step { longest[v] < SHORT + GRACE -> longest[v] = SHORT + GRACE }
	:: d_step { longest[v] < LEASE + GRACE -> longest[v] = LEASE + GRACE }
#endif
	od
}

init {
	byte i;
	atomic {
		for (i : 0 .. OWNERS - 1) { notBefore[i] = USEFUL }
		run Time();
#ifdef EPOCHS
		run Raft();
#endif
		for (i : 0 .. OWNERS - 1) { run Owner(i) }
		for (i : 0 .. VOTERS - 1) { run Voter(i) }
		i = 0
	}
}
