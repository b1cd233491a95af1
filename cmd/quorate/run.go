package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

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
			"the fence in the kernel then shuts what it held.",
		Example: "  quorate run --config /etc/quorate/quorate.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			links, err := hostLinks()
			if err != nil {
				return err
			}
			if err := config.CheckHost(cfg, links); err != nil {
				return err
			}
			log := newLogger(cfg.Log, cmd.ErrOrStderr())
			slog.SetDefault(log)
			for _, w := range cfg.Warnings {
				log.Warn(w)
			}
			return runDaemon(cmd.Context(), cfg, log)
		},
	}
	c.Flags().StringVar(&file, "config", file, "configuration file")
	return c
}

// runDaemon ends the daemon in good order at the first signal, at once at the second.
func runDaemon(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	stop := make(chan struct{})
	go func() {
		select {
		case <-signals:
			close(stop)
		case <-ctx.Done():
			return
		}
		select {
		case s := <-signals:
			log.Warn("second signal: ending at once", "signal", s.String())
			cancel()
		case <-ctx.Done():
		}
	}()
	return daemon.Run(ctx, daemon.Options{Config: cfg, Version: version, Log: log, Links: hostLinks, Stop: stop})
}

func newLogger(l config.Log, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: l.Level}
	if l.JSON {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
