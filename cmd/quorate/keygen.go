package main

import (
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/election/peerlink"
)

func newKeygenCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "keygen",
		Short: "Make the secret that all nodes of a cluster share",
		Long: "Make the secret that all nodes of a cluster share, once for the whole cluster. Copy the file to every node.\n" +
			"Who has it can be a node: keep it readable by its owner alone.",
		Example: "  quorate keygen --out /etc/quorate/cluster.key",
		Args:    takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return write(cmd.OutOrStdout(), string(peerlink.GenerateKey()))
			}
			return peerlink.WriteKey(out)
		},
	}
	c.Flags().StringVar(&out, "out", "", "write it to this new file, mode 0600, instead of to standard output")
	return c
}
