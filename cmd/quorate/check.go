package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/election/peerlink"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/term"
)

func newCheckCommand() *cobra.Command {
	var asJSON, example, schema bool
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file on this host",
		Long: "Check a configuration file against itself and against this host's devices and key, and say what the daemon will\n" +
			"do with it: which address goes to which device, routes, rules, adverts, timers, and the longest failover. Nothing\n" +
			"is changed.\n\n" +
			"--example prints a file to begin with, and --json-schema what an editor needs to complete and check one.",
		Example: "  quorate check /etc/quorate/quorate.yaml\n" +
			"  sed /^lease:/d /etc/quorate/quorate.yaml | quorate check -    # what if\n" +
			"  quorate check --example > quorate.yaml           # every key, with its default and its bounds\n" +
			"  quorate check --json-schema > quorate.schema.json",
		Args: func(cmd *cobra.Command, args []string) error {
			if example && schema {
				return &usageError{"check takes --example or --json-schema, got both"}
			}
			if example || schema {
				return takes(0, "no file with --example and --json-schema")(cmd, args)
			}
			return takes(1, "a configuration file, or - for the standard input")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case example:
				return write(cmd.OutOrStdout(), config.Example())
			case schema:
				return write(cmd.OutOrStdout(), string(config.JSONSchema()))
			}
			r, err := check(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				err = showJSON(cmd.OutOrStdout(), r)
			} else {
				err = r.show(cmd)
			}
			if n := len(r.Errors); err == nil && n > 0 {
				err = fmt.Errorf("%s: %s", r.File, plural(n, "error"))
			}
			return err
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVar(&example, "example", false, "print a commented file with every key")
	c.Flags().BoolVar(&schema, "json-schema", false, "print the JSON Schema of the file (draft 2020-12)")
	return c
}

// A checkReport is the outcome of a check; its JSON is `check --json`.
type checkReport struct {
	OK       bool         `json:"ok"`
	File     string       `json:"file"`
	Warnings []string     `json:"warnings"`
	Errors   []checkError `json:"errors"`
	Plan     *plan        `json:"plan,omitempty"` // absent with errors
}

type checkError struct {
	Line   int           `json:"line,omitempty"`
	Column int           `json:"column,omitempty"`
	Path   string        `json:"path,omitempty"`
	Text   string        `json:"text"`
	Value  string        `json:"value,omitempty"`
	Do     string        `json:"do,omitempty"`
	at     *config.Error // nil: not about a place in the file
}

// check fails only when it cannot look; what is wrong with the file is in the
// report.
func check(in io.Reader, file string) (checkReport, error) {
	r := checkReport{File: file, Warnings: []string{}, Errors: []checkError{}}
	if file == "-" {
		r.File = "standard input"
	}
	cfg, err := load(in, file)
	if err != nil {
		return r, r.add(err)
	}
	r.Warnings = append(r.Warnings, cfg.Warnings...)
	links, err := hostLinks()
	if err != nil {
		return r, err
	}
	if err := config.CheckHost(cfg, links); err != nil {
		if err := r.add(err); err != nil {
			return r, err
		}
	}
	if cfg.Role == fsm.Member {
		for _, p := range config.CheckPrograms(cfg.Document) {
			r.Warnings = append(r.Warnings, cfg.At(p).Error())
		}
	}
	if cfg.Election == config.ElectRaft {
		r.keys(cfg)
	}
	if r.OK = len(r.Errors) == 0; r.OK {
		r.Plan = planOf(cfg, config.WithoutVIPs(cfg.Document, links))
	}
	return r, nil
}

// load reads a configuration file; - is the standard input.
func load(in io.Reader, file string) (*config.Config, error) {
	if file != "-" {
		return config.Load(file)
	}
	b, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return config.Parse("standard input", b)
}

// add takes an error of package config apart. One that is not about what the file
// says is returned.
func (r *checkReport) add(err error) error {
	var all []error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	} else {
		all = []error{err}
	}
	for _, err := range all {
		e := (*config.Error)(nil)
		if !errors.As(err, &e) {
			return err
		}
		r.Errors = append(r.Errors, checkError{Line: e.Line, Column: e.Column, Path: e.Path, Text: e.Text, Value: e.Value, Do: e.Do, at: e})
	}
	return nil
}

// keys checks the files that protect the nodes' traffic, as far as whoever runs the
// check may read them.
func (r *checkReport) keys(cfg *config.Config) {
	if t := cfg.TLS; t != nil {
		if _, err := (peerlink.TLSFiles{CA: t.CA, Cert: t.Cert, Key: t.Key}).Credentials(); err != nil {
			r.secret("tls", err)
		}
	}
	if _, err := peerlink.LoadKey(cfg.KeyFile); err != nil {
		r.secret("key_file", err)
	}
}

func (r *checkReport) secret(path string, err error) {
	if errors.Is(err, fs.ErrPermission) {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%s: %s: not checked: %v; check as the daemon's user", r.File, path, err))
		return
	}
	r.Errors = append(r.Errors, checkError{Path: path, Text: err.Error()})
}

// show prints the errors like a compiler, to stderr, and the rest to out.
func (r *checkReport) show(cmd *cobra.Command) error {
	var b strings.Builder
	out := screenOf(cmd)
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "%s %s\n", out.Paint(term.Warn, "warning:"), w)
	}
	if r.OK {
		r.Plan.text(&b, r.File)
	}
	if err := write(cmd.OutOrStdout(), b.String()); err != nil {
		return err
	}
	b.Reset()
	for _, e := range r.Errors {
		b.WriteString(e.text(r.File, errorScreenOf(cmd)))
	}
	return write(cmd.ErrOrStderr(), b.String())
}

// text is the error with the line of the file that it is about, and a mark below it.
func (e checkError) text(file string, s term.Screen) string {
	if e.at == nil {
		return fmt.Sprintf("%s: %s: %s\n", file, e.Path, s.Paint(term.Bad, e.Text))
	}
	whole := e.at.Error()
	if place, rest, ok := strings.Cut(whole, e.Text); ok {
		whole = s.Paint(term.Strong, place) + s.Paint(term.Bad, e.Text) + rest
	}
	line, mark := e.at.Excerpt(s.Width - len("      | …") - 1)
	if mark == "" {
		return whole + "\n"
	}
	margin := fmt.Sprintf("%5d", e.Line)
	return fmt.Sprintf("%s\n%s\n%s\n", whole, s.Paint(term.Dim, margin+" | ")+line,
		s.Paint(term.Dim, strings.Repeat(" ", len(margin))+" | ")+s.Paint(term.Bad, mark))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
