package fence

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnavailable means that the BPF fence cannot be had here: the daemon does not
// start, unless its configuration says that it may do without.
var ErrUnavailable = errors.New("the BPF fence is not available")

func unavailable(want string, cause error) error {
	return fmt.Errorf("%w: %s: %w. `fence: lifetime` in the configuration does without it, and loses: "+
		"addresses go by the kernel's clock of whole seconds, not exactly at the end of the lease; a process "+
		"that was frozen can re-arm that clock late, so two hosts may answer for a while; and the lease must "+
		"be at least 3s", ErrUnavailable, want, cause)
}

// needed lists what the fence asks of the process. CAP_SYS_ADMIN is for finding
// programs and maps by their id, which is how the fence of an earlier life is
// found again; it includes CAP_BPF.
var needed = []struct {
	bit  uint
	name string
}{
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN (to find the fence of an earlier life)"},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN (to attach to devices)"},
}

func checkCapabilities() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read this process's capabilities: %w", err)
	}
	var missing []string
	for _, n := range needed {
		if data[n.bit/32].Effective&(1<<(n.bit%32)) == 0 {
			missing = append(missing, n.name)
		}
	}
	if missing == nil {
		return nil
	}
	return unavailable("this process lacks "+strings.Join(missing, " and "), unix.EPERM)
}

const offsetsFile = "/proc/self/timens_offsets"

// CheckTimeNamespace refuses a process whose CLOCK_BOOTTIME is shifted against
// the kernel's: the fence's program reads the host's clock, so every deadline
// would be wrong by the offset.
func CheckTimeNamespace() error {
	text, err := os.ReadFile(offsetsFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without time namespaces has no offsets
	}
	if err != nil {
		return fmt.Errorf("read the time namespace's offsets: %w", err)
	}
	return checkOffsets(string(text))
}

// checkOffsets reads lines of a clock's name, seconds and nanoseconds. Kernels
// have written the clock as a name and, in the first version, as a number (7).
func checkOffsets(text string) error {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "boottime" && f[0] != "7" {
			continue
		}
		if f[1] != "0" || f[2] != "0" {
			return fmt.Errorf("%s: boottime is shifted by %s s %s ns: the fence compares with the host's clock, "+
				"so every lease would end at the wrong time; start the daemon outside that time namespace",
				offsetsFile, f[1], f[2])
		}
	}
	return nil
}
