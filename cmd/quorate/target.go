package main

import (
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/config"
)

// Where a daemon is looked for when nothing is said. They are variables because the
// tests run the examples of the help texts as they stand.
var (
	// defaultConfig is the configuration file that the packages install.
	defaultConfig = "/etc/quorate/quorate.yaml"
	defaultSocket = config.DefaultSocket
)

// A target says which daemon of this host a command asks.
type target struct{ socket, config string }

func (t *target) flags(c *cobra.Command) {
	c.Flags().StringVar(&t.socket, "socket", "", "socket of the daemon (default "+defaultSocket+")")
	c.Flags().StringVar(&t.config, "config", "", "configuration file that names the daemon's socket")
}

func (t *target) client() (*api.Client, error) {
	path := defaultSocket
	switch {
	case t.socket != "" && t.config != "":
		return nil, &usageError{"--socket and --config both say which daemon is meant: give one of them"}
	case t.socket != "":
		path = t.socket
	case t.config != "":
		cfg, err := config.Load(t.config)
		if err != nil {
			return nil, err
		}
		path = cfg.Socket
	}
	return api.NewClient(path, version), nil
}
