package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketGroup is the system's group whose members may use the API.
const socketGroup = "quorate"

// aliveTime bounds the question whether anybody listens on a socket that is there.
// The kernel answers it, not the daemon, so a frozen daemon counts as alive.
const aliveTime = time.Second

// ErrInUse means that another daemon listens on the socket.
var ErrInUse = errors.New("the socket is in use")

// listen makes the socket. A second daemon that starts at the same time must not
// take the first one's new socket for a stale one, so both lock the directory.
func listen(path string) (*net.UnixListener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("listen on %s: the path has %d bytes, the kernel's limit is %d; set socket: to a shorter one", path, len(path), maxPath)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, explainListen(path, err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock the directory of socket %s: %w", path, err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// Linux gives the file the mode that the socket has before it is bound: nobody
	// else gets in before the group is set.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, explainListen(path, err)
	}
	return l.(*net.UnixListener), nil
}

// removeStale removes what a dead daemon left at path. A file that is no socket,
// and a socket on which somebody listens, stay.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return explainListen(path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: there is something that is no socket (%s); remove it, or set socket: to another path", path, info.Mode())
	}
	conn, err := net.DialTimeout("unix", path, aliveTime)
	switch {
	case err == nil:
		conn.Close()
		fallthrough
	case errors.Is(err, syscall.EAGAIN): // too many wait to be accepted: somebody listens
		return fmt.Errorf("listen on %s: another daemon listens there; stop it first, or give this one another socket: %w", path, ErrInUse)
	case errors.Is(err, syscall.ECONNREFUSED):
	default:
		return fmt.Errorf("see whether anybody listens on %s: %w; remove it if no daemon runs, or set socket: to another path", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the socket that a dead daemon left: %w", err)
	}
	return nil
}

// explainListen adds to an error of the socket what an operator can do about it.
func explainListen(path string, err error) error {
	dir, advice := filepath.Dir(path), ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		advice = fmt.Sprintf("; make the directory %s (the systemd unit does: RuntimeDirectory=quorate), or set socket: to another path", dir)
	case errors.Is(err, fs.ErrPermission):
		advice = fmt.Sprintf("; the user that runs quorate must be able to write in %s: give it that, or set socket: to another path", dir)
	case errors.Is(err, syscall.EROFS):
		advice = "; the file system is read-only: set socket: to a path on another"
	case errors.Is(err, syscall.ENOTDIR):
		advice = "; a part of the path is a file: set socket: to another path"
	}
	return fmt.Errorf("listen on %s: %w%s", path, err, advice)
}

// openTo gives the socket to the group, if the system has it, and lets it in. A
// group that cannot be given keeps its members out and nobody else in; that is
// worth a warning and no more, so it comes back as one.
func openTo(path, group string) (warning, err error) {
	g, err := user.LookupGroup(group)
	if none := user.UnknownGroupError(""); errors.As(err, &none) {
		return nil, chmod(path, 0o660)
	}
	if err != nil {
		return fmt.Errorf("look up group %s: %w", group, err), nil
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("look up group %s: its number is %q", group, g.Gid), nil
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("give the socket to group %s (that takes CAP_CHOWN): %w", group, err), nil
	}
	return nil, chmod(path, 0o660)
}

func chmod(path string, mode fs.FileMode) error {
	if err := os.Chmod(path, mode); err != nil {
		return fmt.Errorf("set the mode of the socket: %w", err)
	}
	return nil
}
