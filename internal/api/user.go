package api

import (
	"fmt"
	"net"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// Root is the user that may do everything.
const Root = "root"

// Trusted reports whether a user is root or the daemon's own: the others who may use the
// socket are to stay less than those.
func Trusted(who string) bool {
	if who == Root {
		return true
	}
	self, err := user.Current()
	return err == nil && self.Username == who
}

// A userListener gives each connection the name of its user for its remote address,
// which a unix socket's client does not have otherwise.
type userListener struct{ *net.UnixListener }

// Accept waits for the next connection.
func (l userListener) Accept() (net.Conn, error) {
	conn, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return userConn{conn, userAddr(userOn(conn))}, nil
}

type userConn struct {
	*net.UnixConn
	user userAddr
}

// RemoteAddr is whose connection it is.
func (c userConn) RemoteAddr() net.Addr { return c.user }

type userAddr string

func (userAddr) Network() string  { return "unix" }
func (a userAddr) String() string { return string(a) }

// userOn is the user that opened the connection, as the kernel knows it: the name, or
// the number of one who has none.
func userOn(conn *net.UnixConn) string {
	raw, err := conn.SyscallConn()
	if err != nil {
		return "unknown"
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil || err != nil {
		return "unknown"
	}
	if cred.Uid == 0 {
		return Root
	}
	uid := strconv.FormatUint(uint64(cred.Uid), 10)
	if u, err := user.LookupId(uid); err == nil && u.Username != "" {
		return u.Username
	}
	return fmt.Sprintf("uid %s", uid)
}
