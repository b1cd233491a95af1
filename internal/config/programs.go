package config

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"strconv"

	"github.com/quorate/quorate/fsm"
)

// CheckPrograms looks on this host for what the checks and hooks of a document need:
// programs that can be executed, users, and certificates. Only a member needs them.
// Each is looked at as the caller may see it, and not run.
func CheckPrograms(doc fsm.Document) []Problem {
	var p programs
	for _, k := range doc.Checks {
		path := join("checks", k.Name)
		if c := k.Command; c != nil {
			p.program(path+".command", c.Argv)
			p.user(path+".command.user", c.User)
		}
		if k.HTTP != nil && k.HTTP.CA != "" {
			p.certificates(path+".http.ca", k.HTTP.CA)
		}
	}
	p.hooks("hooks", doc.Hooks)
	for _, g := range doc.Groups {
		p.hooks(join(join("vips", g.Name), "hooks"), g.Hooks)
	}
	return p
}

type programs []Problem

func (p *programs) add(path, text, value, do string) {
	*p = append(*p, Problem{path, text, value, do})
}

func (p *programs) hooks(path string, h fsm.Hooks) {
	p.program(path+".active", h.Active)
	p.program(path+".backup", h.Backup)
	p.program(path+".fault", h.Fault)
}

func (p *programs) program(path string, argv []string) {
	if len(argv) == 0 {
		return
	}
	info, err := os.Stat(argv[0])
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.add(path, "no such program on this host", argv[0], "install it, or write another path")
	case err != nil:
		p.add(path, "the program cannot be looked at: "+reason(err), argv[0], "see to its directories, or check as the daemon's user")
	case !info.Mode().IsRegular():
		p.add(path, "is not a plain file", argv[0], "write the path of a program")
	case info.Mode().Perm()&0o111 == 0:
		p.add(path, "cannot be executed", argv[0], "chmod +x it")
	}
}

func (p *programs) user(path, name string) {
	if name == "" {
		return
	}
	_, err := user.Lookup(name)
	if _, number := strconv.ParseUint(name, 10, 32); err != nil && number == nil {
		_, err = user.LookupId(name)
	}
	if err != nil {
		p.add(path, "no such user on this host", name, "create it, or write another")
	}
}

func (p *programs) certificates(path, name string) {
	f, err := os.Open(name)
	if err != nil {
		p.add(path, "the certificates cannot be read: "+reason(err), name, "put them there on every node, or remove the key to trust the system's")
		return
	}
	_ = f.Close()
}

// reason is an error without the path that is shown beside it.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}
