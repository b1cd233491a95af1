package fsm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// checkChecks reports the first rule that the document's checks break, and returns
// their names.
func (d Document) checkChecks() (map[string]bool, error) {
	names := map[string]bool{}
	for _, c := range d.Checks {
		if c.Name == "" || len(c.Name) > MaxGroupName || names[c.Name] {
			return nil, fmt.Errorf("check name %q is empty, longer than %d bytes, or there twice", c.Name, MaxGroupName)
		}
		names[c.Name] = true
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("check %q: %w", c.Name, err)
		}
	}
	return names, nil
}

func (c Check) check() error {
	within := func(d, least, most time.Duration) bool { return d >= least && d <= most }
	switch {
	case !within(c.Interval, minInterval, maxDelay):
		return fmt.Errorf("interval is %s, want %s to %s", c.Interval, minInterval, maxDelay)
	case !within(c.Timeout, minTimeout, maxTimeout):
		return fmt.Errorf("timeout is %s, want %s to %s", c.Timeout, minTimeout, maxTimeout)
	case c.Rise < 1 || c.Rise > maxCount || c.Fall < 1 || c.Fall > maxCount:
		return fmt.Errorf("rise is %d and fall is %d, want 1 to %d", c.Rise, c.Fall, maxCount)
	case c.Weight < -maxScore || c.Weight > maxScore:
		return fmt.Errorf("weight is %d, want %d to %d", c.Weight, -maxScore, maxScore)
	}
	return c.checkKind()
}

// checkKind: a check tests one thing, and says what.
func (c Check) checkKind() error {
	var kinds []string
	var err error
	kind := func(name string, set bool, check func() error) {
		if set {
			kinds = append(kinds, name)
			if e := check(); e != nil {
				err = fmt.Errorf("%s: %w", name, e)
			}
		}
	}
	kind("http", c.HTTP != nil, func() error { return c.HTTP.check() })
	kind("tcp", c.TCP != "", func() error { return checkHostPort(c.TCP) })
	kind("icmp", c.ICMP != "", func() error { return checkWord(c.ICMP) })
	kind("command", c.Command != nil, func() error { return c.Command.check() })
	kind("process", c.Process != "", func() error { return checkName(c.Process) })
	kind("file", c.File != nil, func() error { return c.File.check() })
	kind("systemd", c.Systemd != "", func() error { return checkWord(c.Systemd) })
	switch len(kinds) {
	case 0:
		return errors.New("it tests nothing; give it one of http, tcp, icmp, command, process, file or systemd")
	case 1:
		return err
	}
	return fmt.Errorf("it has %s; give each a check of its own", strings.Join(kinds, " and "))
}

func (h HTTPCheck) check() error {
	rest, secure := strings.CutPrefix(h.URL, "https://")
	if !secure {
		var plain bool
		if rest, plain = strings.CutPrefix(h.URL, "http://"); !plain {
			return fmt.Errorf("url is %q, want one that begins with http:// or https://", h.URL)
		}
	}
	switch {
	case rest == "" || checkWord(h.URL) != nil:
		return fmt.Errorf("url %q has no host, has a space in it, or is longer than %d bytes", h.URL, maxText)
	case h.Host != "" && checkWord(h.Host) != nil:
		return fmt.Errorf("host %q is no name of a host", h.Host)
	case h.StatusMin < 100 || h.StatusMax > 599 || h.StatusMin > h.StatusMax:
		return fmt.Errorf("status %d to %d, want 100 to 599 in order", h.StatusMin, h.StatusMax)
	case len(h.Match) > maxText:
		return fmt.Errorf("match has %d bytes, want at most %d", len(h.Match), maxText)
	case !secure && (h.CA != "" || h.Insecure):
		return fmt.Errorf("ca or insecure with %q, which is not encrypted; write https:// or take them out", h.URL)
	case h.CA != "" && h.Insecure:
		return errors.New("ca and insecure: a certificate that is not verified needs no certificates to verify it by; take one out")
	case h.CA != "":
		return checkPath(h.CA)
	}
	return nil
}

func (c CommandCheck) check() error {
	if c.User != "" && checkWord(c.User) != nil {
		return fmt.Errorf("user %q is no name of a user", c.User)
	}
	return checkArgv(c.Argv)
}

func (f FileCheck) check() error {
	if len(f.Match) > maxText {
		return fmt.Errorf("match has %d bytes, want at most %d", len(f.Match), maxText)
	}
	return checkPath(f.Path)
}

func checkPath(p string) error {
	if !strings.HasPrefix(p, "/") || len(p) > maxText || strings.Contains(p, "\x00") {
		return fmt.Errorf("%q is no absolute path of at most %d bytes; a check runs on every node, in no folder of its own", p, maxText)
	}
	return nil
}

// checkWord: one word, as names of hosts, units and programs are.
func checkWord(s string) error {
	if s == "" || len(s) > maxText || strings.ContainsAny(s, " \t\r\n\x00") {
		return fmt.Errorf("%q is empty, has a space in it, or is longer than %d bytes", s, maxText)
	}
	return nil
}

// checkName: as a word, but the names of programs may have spaces in them.
func checkName(s string) error {
	if s == "" || len(s) > maxText || strings.ContainsAny(s, "\r\n\x00") {
		return fmt.Errorf("%q is empty, has a line end in it, or is longer than %d bytes", s, maxText)
	}
	return nil
}

func checkHostPort(s string) error {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || checkWord(s) != nil {
		return fmt.Errorf("%q, want host:port, such as 127.0.0.1:80 or [::1]:80", s)
	}
	if host := s[:i]; strings.Contains(host, ":") && (host[0] != '[' || host[len(host)-1] != ']') {
		return fmt.Errorf("%q, want an IPv6 address in brackets, such as [::1]:80", s)
	}
	if port, err := strconv.ParseUint(s[i+1:], 10, 16); err != nil || port == 0 {
		return fmt.Errorf("%q: the port is %q, want 1 to 65535", s, s[i+1:])
	}
	return nil
}
