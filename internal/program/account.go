package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// An account is whom a program runs as.
type account struct {
	name, home string
	credential *syscall.Credential
}

// lookUp finds an account by its name or number.
func lookUp(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if _, number := strconv.ParseUint(name, 10, 32); number == nil {
			u, err = user.LookupId(name)
		}
	}
	if err != nil {
		return account{}, fmt.Errorf("user %q: %w; create it on this node, or name another", name, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %q: its number %q: %w", name, u.Uid, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %q: its group's number %q: %w", name, u.Gid, err)
	}
	c := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	groups, err := u.GroupIds()
	if err != nil {
		return account{}, fmt.Errorf("user %q: its groups: %w", name, err)
	}
	for _, g := range groups {
		if n, err := strconv.ParseUint(g, 10, 32); err == nil {
			c.Groups = append(c.Groups, uint32(n))
		}
	}
	return account{name: u.Username, home: u.HomeDir, credential: c}, nil
}

// explain says why a program could not be started and what to do.
func explain(j Job, err error) error {
	as := ""
	if j.User != "" {
		as = " by user " + j.User
	}
	do := ""
	switch {
	case errors.Is(err, exec.ErrNotFound):
		do = "it is not in the daemon's PATH; install it on this node, or write its whole path"
	case errors.Is(err, fs.ErrNotExist) && exists(j.Argv[0]):
		do = "it is there, but the interpreter that its first line names, or its loader, is not; install that"
	case errors.Is(err, fs.ErrNotExist):
		do = "it is not on this node; install it, or write another path"
	case errors.Is(err, syscall.EPERM) && j.User != "":
		do = "the daemon may not change to another user; run it as root with CAP_SETUID and CAP_SETGID, or leave user out"
	case errors.Is(err, fs.ErrPermission):
		do = "it cannot be executed" + as + "; chmod +x it, and see to its directories and mount options"
	case errors.Is(err, syscall.ENOEXEC):
		do = "it is neither a binary for this machine nor a script; begin a script with #!/bin/sh"
	case errors.Is(err, exec.ErrDot):
		do = "write its whole path"
	}
	why := err // the innermost: the others repeat the path
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		why = inner
	}
	name := strings.ToValidUTF8(j.Argv[0], "?")
	if do == "" {
		return fmt.Errorf("cannot run %s: %w", name, why)
	}
	return fmt.Errorf("cannot run %s: %w: %s", name, why, do)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
