package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoDisks means that this machine cannot mount a file as a disk.
var ErrNoDisks = errors.New("no disks in files here")

// A Disk is an ext4 file system of its own, in a file: it can fill, hang and turn
// read-only without touching anything else.
type Disk struct{ path, image string }

// diskSize has room for a Raft log, and is full in a moment.
const diskSize = 32 << 20

// NewDisk makes a disk and mounts it under a path, of which the last part has to begin
// with the lab's id, so that [Sweep] knows it. It goes with Close of the lab. The error
// is [ErrNoDisks] where the machine lacks something.
func (l *Lab) NewDisk(path string) (*Disk, error) {
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		return nil, fmt.Errorf("%w: mkfs.ext4 is not installed (apt-get install e2fsprogs)", ErrNoDisks)
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return nil, fmt.Errorf("%w: there are no loop devices: %w", ErrNoDisks, err)
	}
	d := &Disk{path: path, image: path + ".ext4"}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		return nil, fmt.Errorf("make a disk: %w", err)
	}
	if err := os.Truncate(d.image, diskSize); err != nil {
		return nil, fmt.Errorf("make a disk: %w", err)
	}
	if err := run("mkfs.ext4", "-q", "-m", "0", d.image); err != nil {
		return nil, err
	}
	if err := d.Mount(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoDisks, err)
	}
	// A process that waits for a hanging disk cannot be killed: thaw before processes are
	// ended. Detached at the end, it goes when the last of them has.
	l.onClose(func() { _ = d.Thaw() })
	l.onEnd(d.unmount)
	return d, nil
}

// Mount mounts the disk, again after it was unmounted.
func (d *Disk) Mount() error {
	return run("mount", "-o", "loop,errors=remount-ro", d.image, d.path)
}

func (d *Disk) unmount() error {
	if err := unix.Unmount(d.path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", d.path, err)
	}
	return nil
}

// ioctl(2) numbers of linux/fs.h.
const fiFreeze, fiThaw = 0xc0045877, 0xc0045878

// Hang makes every write to the disk, and every sync, wait until Thaw, as those to a
// disk do that does not answer. Reads go on.
func (d *Disk) Hang() error { return freezer(d.path, fiFreeze) }

// Thaw lets the writes go on that waited. Thawing a disk that does not hang is an error.
func (d *Disk) Thaw() error { return freezer(d.path, fiThaw) }

func freezer(path string, request uint) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open a disk: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.IoctlSetInt(int(f.Fd()), request, 0); err != nil {
		return fmt.Errorf("freeze or thaw %s: %w", path, err)
	}
	return nil
}

// Fill writes a file until there is no room left for anything.
func (d *Disk) Fill() error {
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("fill a disk: %w", err)
	}
	defer func() { _ = f.Close() }()
	for block := make([]byte, 1<<16); len(block) > 0; {
		_, err := f.Write(block)
		switch {
		case errors.Is(err, unix.ENOSPC):
			block = block[:len(block)/2]
		case err != nil:
			return fmt.Errorf("fill a disk: %w", err)
		}
	}
	return nil
}

// Empty undoes Fill.
func (d *Disk) Empty() error { return os.Remove(d.filler()) }

func (d *Disk) filler() string { return filepath.Join(d.path, "filler") }

// sweepDisks unmounts what killed runs left mounted.
func sweepDisks() error {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	var errs []error
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[2] != "ext4" { // namespaces are mounts of such names too
			continue
		}
		pid, ok := maker(filepath.Base(fields[1]))
		if !ok || alive(pid) {
			continue
		}
		d := &Disk{path: fields[1]}
		_ = d.Thaw() // most do not hang
		errs = append(errs, d.unmount())
	}
	return errors.Join(errs...)
}
