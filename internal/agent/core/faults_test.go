package core

import "time"

// kill ends the process; the kernel goes on. What can be promised of a fence on a
// slewed clock needs a daemon that looks, so the slewing ends with it.
func (m *machine) kill() {
	m.endSlew()
	m.alive, m.frozen = false, false
	m.life++
}

func (m *machine) freeze() {
	m.endSlew()
	m.frozen = true
}

// thaw runs what was waiting, and lets the host hear of the log again. The agent's
// loop finds its timer and its mailbox ready and takes either first.
func (m *machine) thaw() {
	m.frozen = false
	pending := m.pending
	m.pending = nil
	if m.c.chance(0.5) {
		m.event(Woke{})
	}
	for _, ev := range pending {
		m.event(ev)
	}
	m.event(Woke{})
	for _, w := range []*worker{&m.host, &m.lan} {
		halted := w.halted
		w.halted = nil
		for _, job := range halted {
			job()
		}
	}
	m.heal()
}

// heal is Raft's part of a host coming back: it learns of the leader and the log.
func (m *machine) heal() {
	m.later(20*time.Millisecond, func() Event {
		if m.c.lead < 0 {
			return Leader{}
		}
		return Leader{ID: m.c.hosts[m.c.lead].node.ID, Self: m.c.lead == m.i, Term: m.c.term}
	})
	m.c.after(30*time.Millisecond, m.catchUp)
}

// restart ends the process and starts it again after a while.
func (m *machine) restart(after time.Duration) {
	m.kill()
	m.c.after(after, m.revive)
}

// revive starts a process that has ended.
func (m *machine) revive() {
	if !m.alive {
		m.start()
		m.heal()
	}
}

// reboot is a kill of the whole host: the kernel forgets everything, and its clock
// begins anew.
func (m *machine) reboot() {
	m.kill()
	m.boot++
	clear(m.fence)
	clear(m.addrs)
	m.offset = m.c.jitter(time.Second, time.Minute) - time.Duration(float64(m.c.now)*m.drift)
}

// beginSlew has something like chrony steer the clock off its rate. The daemon sees
// it when it next looks.
func (m *machine) beginSlew(by float64) {
	m.endSlew()
	m.slew, m.slewAt = by, m.c.now
	m.clockAt = m.clock().Add(m.c.jitter(0, m.lease/10))
	m.sleep()
}

func (m *machine) endSlew() {
	m.offset += time.Duration(m.slew * float64(m.c.now-m.slewAt))
	m.slew = 0
}

// flap takes the carrier away for a while.
func (m *machine) flap(d time.Duration) {
	m.event(Link{Name: "eth0", OK: false})
	m.c.after(d, func() { m.event(Link{Name: "eth0", OK: true}) })
}

func (c *cluster) cut(i int) {
	c.reach = func(from, to int) bool { return from != i && to != i }
}

func (c *cluster) mend(i int) {
	c.reach = func(int, int) bool { return true }
	c.hosts[i].heal()
}
