package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/config"
)

// releaseTime is how long a daemon that took the request has to let go.
const releaseTime = 5 * time.Second

// A releasedReport is the JSON of `quorate release`.
type releasedReport struct {
	Groups []string `json:"groups"` // that the daemon let go of
	// Dead: there is no daemon, and Removed is what it had left on this host.
	Dead    bool     `json:"dead"`
	Removed []string `json:"removed"`
}

func newReleaseCommand() *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use:   "release",
		Short: "Let go of every VIP that this host holds",
		Long: "Let go of every VIP that this host holds. A daemon that runs is asked to, and another node takes them over.\n" +
			"When the daemon is dead, what it left on this host is removed: its addresses, and the fence in the kernel.\n" +
			"With nothing to do it says nothing and succeeds; systemd calls it after each end of the daemon.",
		Example: "  quorate release\n  quorate release --config /etc/quorate/quorate.yaml",
		Args:    takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := t.release(cmd)
			switch {
			case err != nil:
				return err
			case asJSON:
				return showJSON(cmd.OutOrStdout(), r)
			}
			return write(cmd.OutOrStdout(), r.text())
		},
	}
	t.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

// text is empty when there was nothing to do.
func (r releasedReport) text() string {
	switch {
	case len(r.Groups) > 0:
		return "released " + strings.Join(r.Groups, ", ") + "\n"
	case len(r.Removed) > 0:
		return "the daemon is dead; removed what it left: " + strings.Join(r.Removed, ", ") + "\n"
	}
	return ""
}

// release asks the daemon. Only when that cannot be and the lock on data_dir says
// that the daemon is dead does it act by itself.
func (t *target) release(cmd *cobra.Command) (releasedReport, error) {
	r := releasedReport{Groups: []string{}, Removed: []string{}}
	if t.socket == "" && t.config == "" {
		t.config = defaultConfig
	}
	client, err := t.client()
	if err != nil {
		return r, err
	}
	defer client.Close()
	groups, asked := askRelease(cmd.Context(), client)
	if err := noteVersion(cmd, client); err != nil {
		return r, err
	}
	if asked == nil {
		r.Groups = append(r.Groups, groups...)
		return r, nil
	}
	if !errors.Is(asked, api.ErrNoDaemon) && !errors.Is(asked, api.ErrNoAnswer) {
		return r, asked
	}
	if t.config == "" {
		return r, fmt.Errorf("%w; with --config instead of --socket this command finds the daemon's data_dir, and acts by itself if the daemon is dead", asked)
	}
	cfg, err := config.Load(t.config)
	if err != nil {
		return r, err
	}
	gone, err := releaseAlone(cfg)
	if errors.Is(err, raftnode.ErrLocked) {
		return r, fmt.Errorf("the daemon holds data_dir (%s) but does not answer; the kernel shuts its VIPs when the lease ends; kill it, then run this again", cfg.DataDir)
	}
	r.Dead, r.Removed = err == nil, append(r.Removed, gone...)
	return r, err
}

// askRelease asks the daemon to let go and waits until it has. It returns the
// groups that it let go of.
func askRelease(ctx context.Context, client *api.Client) ([]string, error) {
	r, err := client.Release(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, releaseTime, errTimeout)
	defer cancel()
	var held []string
	err = poll(ctx, client, func(s core.Status) (bool, error) {
		held = held[:0]
		for _, v := range s.VIPs {
			if v.Held {
				held = append(held, v.Name)
			}
		}
		return len(held) == 0, nil
	})
	if errors.Is(err, errTimeout) {
		return nil, fmt.Errorf("the daemon still holds %s after %s; see quorate status and its log", strings.Join(held, ", "), releaseTime)
	}
	return r.Groups, err
}

// releaseAlone removes what a dead daemon left on this host, under the lock on its
// data_dir, so that none starts meanwhile. Where VRRP elects there is no data_dir, and
// the lock of the host's addresses serves. It fails with raftnode.ErrLocked while a
// daemon runs. The names are of what it removed; none: there was nothing.
func releaseAlone(cfg *config.Config) ([]string, error) {
	if cfg.Election == config.ElectVRRP {
		return removeLeft(cfg)
	}
	unlock, err := raftnode.TryLock(cfg.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no daemon ever ran here
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	return removeLeft(cfg)
}
