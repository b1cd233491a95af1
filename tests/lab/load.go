package lab

import (
	"errors"
	"runtime"
)

// A Load is busy loops beside the daemons under test, of the same priority as they.
type Load struct{ loops []*Process }

// Starve starts twice as many busy loops as the machine has processors.
func (l *Lab) Starve() (*Load, error) {
	ld := &Load{}
	for range 2 * runtime.NumCPU() {
		p, err := l.start(l.bridge, Command{Name: "busy", Args: []string{"sh", "-c", "while :; do :; done"}})
		if err != nil {
			return nil, errors.Join(err, ld.Stop())
		}
		ld.loops = append(ld.loops, p)
	}
	return ld, nil
}

// Stop ends these loops. It may be called again.
func (ld *Load) Stop() error {
	var errs []error
	for _, p := range ld.loops {
		errs = append(errs, p.Kill())
	}
	return errors.Join(errs...)
}
