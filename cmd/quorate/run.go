package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/daemon"
)

func newRunCommand() *cobra.Command {
	file := defaultConfig
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: "Run the daemon in the foreground.\n\n" +
			"SIGTERM and SIGINT end it in good order: its groups go to other nodes first. A second one ends it at once;\n" +
			"the fence in the kernel then shuts what it held.\n\n" +
			"SIGHUP has it read the file again: log, peers, fifo and http come into force, and of the rest the log says how.\n" +
			"A file with an error changes nothing.",
		Example: "  quorate run --config /etc/quorate/quorate.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadHere(file)
			if err != nil {
				return err
			}
			log := newLogging(cfg.Log, cmd.ErrOrStderr())
			slog.SetDefault(log.logger)
			for _, w := range cfg.Warnings {
				log.logger.Warn(w)
			}
			return runDaemon(cmd.Context(), file, cfg, log)
		},
	}
	c.Flags().StringVar(&file, "config", file, "configuration file")
	return c
}

// loadHere reads the file and checks it against this host.
func loadHere(file string) (*config.Config, error) {
	cfg, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	links, err := hostLinks()
	if err != nil {
		return nil, err
	}
	return cfg, config.CheckHost(cfg, links)
}

// gcPercent has the garbage collector run when two fifths more is in use than was left: the daemon has
// little to do and some megabytes of state, and is to be small beside what it serves.
const gcPercent = 40

// runDaemon ends the daemon in good order at the first signal, at once at the second.
// SIGHUP has it read the file again.
func runDaemon(ctx context.Context, file string, cfg *config.Config, log *logging) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hangups := make(chan os.Signal, 1) // one more that comes meanwhile is enough
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	stop, ended := stopSignals(ctx, cancel, log.logger, 0, syscall.SIGTERM, syscall.SIGINT)
	defer ended()
	reload := make(chan struct{})
	go func() {
		for {
			select {
			case <-hangups:
			case <-ctx.Done():
				return
			}
			select {
			case reload <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return daemon.Run(ctx, daemon.Options{
		Config: cfg, Version: version, Log: log.logger, Links: hostLinks, Stop: stop,
		Reload: reload, Load: func() (*config.Config, error) { return loadHere(file) }, SetLog: log.set,
	})
}

// stopSignals closes stop at the first of these signals, or after a time if that is not 0,
// and cancels at the second signal. The caller calls ended when all is over.
func stopSignals(ctx context.Context, cancel func(), log *slog.Logger, after time.Duration, which ...os.Signal) (stop chan struct{}, ended func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, which...)
	stop = make(chan struct{})
	var over <-chan time.Time // nil: never
	if after > 0 {
		over = time.After(after)
	}
	go func() {
		select {
		case <-signals:
		case <-over:
		case <-ctx.Done():
			return
		}
		close(stop)
		select {
		case s := <-signals:
			log.Warn("second signal: ending at once", "signal", s.String())
			cancel()
		case <-ctx.Done():
		}
	}()
	return stop, func() { signal.Stop(signals) }
}
