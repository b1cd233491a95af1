package hooks

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// words are keepalived's for the states.
var words = map[string]string{Active: "MASTER", Backup: "BACKUP", Fault: "FAULT"}

// line is a transition as keepalived writes it to its pipe (notify_fifo in
// keepalived.conf(5)). A group counts as an instance.
func line(t Transition, priority uint8) string {
	return fmt.Sprintf("INSTANCE \"%s\" %s %d\n", t.Group, words[t.To], priority)
}

// maxLines is how many lines wait to be written to the pipe. They do so only for as
// long as the writer takes: the pipe never makes it wait.
const maxLines = 4096

// lines are what waits to be written, oldest first. The zero value is empty.
type lines struct {
	waiting []string
	dropped uint64
}

func (l *lines) add(s string) {
	if len(l.waiting) >= maxLines {
		l.dropped++
		return
	}
	l.waiting = append(l.waiting, s)
}

func (l *lines) take() (out []string, dropped uint64) {
	out, dropped = l.waiting, l.dropped
	*l = lines{}
	return out, dropped
}

// A fifo is a named pipe that is never waited for. It belongs to one goroutine.
type fifo struct {
	path    string // empty: there is none
	fd      int    // of the open pipe, if inode is set
	inode   uint64 // zero: not open
	dropped uint64 // lines that nobody will read
	err     error  // why the last was
}

// open makes sure that the pipe at the path is open: it makes one if there is none, and
// finds out if somebody put another in its place.
func (f *fifo) open() error {
	var at unix.Stat_t
	err := unix.Lstat(f.path, &at)
	if errors.Is(err, unix.ENOENT) {
		if err := unix.Mkfifo(f.path, 0o600); err != nil {
			return fmt.Errorf("make the pipe %s: %w; its directory must exist", f.path, err)
		}
		err = unix.Lstat(f.path, &at)
	}
	if err != nil {
		return fmt.Errorf("look at the pipe %s: %w", f.path, err)
	}
	if at.Mode&unix.S_IFMT != unix.S_IFIFO {
		return fmt.Errorf("%s is not a named pipe: remove it, or write another path for fifo", f.path)
	}
	if at.Ino == f.inode {
		return nil
	}
	f.close()
	// Open for reading too, so that it opens without a reader, and the lines stay in it
	// until there is one; keepalived does the same.
	fd, err := unix.Open(f.path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("open the pipe %s: %w", f.path, err)
	}
	if err := unix.Fstat(fd, &at); err != nil || at.Mode&unix.S_IFMT != unix.S_IFIFO {
		_ = unix.Close(fd)
		return fmt.Errorf("%s was changed into something that is not a named pipe", f.path)
	}
	f.fd, f.inode = fd, at.Ino
	return nil
}

func (f *fifo) close() {
	if f.inode != 0 {
		_ = unix.Close(f.fd)
		f.inode = 0
	}
}

// write writes lines, each as a whole or not at all: they are shorter than PIPE_BUF. It
// returns how many could not be written, for err.
func (f *fifo) write(out []string) (dropped uint64) {
	if len(out) == 0 {
		return 0
	}
	if f.err = f.open(); f.err != nil {
		return uint64(len(out))
	}
	for _, s := range out {
		n, err := unix.Write(f.fd, []byte(s))
		if err != nil || n != len(s) {
			f.err = err
			dropped++
		}
	}
	return dropped
}
