package main

import (
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/config"
)

// defaultConfig is the configuration file that the packages install.
const defaultConfig = "/etc/quorate/quorate.yaml"

// A target says which daemon of this host a command asks.
type target struct{ socket, config string }

func (t *target) flags(c *cobra.Command) {
	c.Flags().StringVar(&t.socket, "socket", "", "socket of the daemon (default "+config.DefaultSocket+")")
	c.Flags().StringVar(&t.config, "config", "", "configuration file that names the daemon's socket")
}

func (t *target) client() (*api.Client, error) {
	path := config.DefaultSocket
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
