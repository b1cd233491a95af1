package election

import (
	"fmt"
	"time"
)

// An Instant is a reading of CLOCK_BOOTTIME on the host that took it, in
// nanoseconds since that host's boot. Instants of two hosts, or of two boots of
// one host, are not comparable; a Stamp says which boot it belongs to.
//
// CLOCK_BOOTTIME and not CLOCK_MONOTONIC: it goes on while the host is
// suspended, and the fence in the kernel compares with the same clock.
type Instant int64

// Add returns the instant d later (earlier if d is negative).
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Before reports whether i is earlier than j.
func (i Instant) Before(j Instant) bool { return i < j }

// After reports whether i is later than j.
func (i Instant) After(j Instant) bool { return i > j }

// String prints the instant as seconds since boot, as dmesg does.
func (i Instant) String() string {
	return fmt.Sprintf("%.6fs", time.Duration(i).Seconds())
}

// A BootID tells one boot of a host from the next: Linux's
// /proc/sys/kernel/random/boot_id, or sixteen random bytes in tests.
type BootID [16]byte

// A Stamp is an instant together with the boot that it was read in. Stamps of
// one boot are ordered, also across restarts of the process; that is what makes
// a release from an earlier life of the daemon comparable with a renewal of the
// present one.
type Stamp struct {
	Boot BootID
	At   Instant
}

// NewerThan reports whether s was taken after o. Stamps of different boots are
// not ordered, and then the answer is false both ways.
func (s Stamp) NewerThan(o Stamp) bool { return s.Boot == o.Boot && s.At > o.At }
