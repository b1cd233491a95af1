package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// A versionReport is the JSON of `quorate version`.
type versionReport struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func newVersionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Example: "  quorate version",
		Args:    takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return showJSON(cmd.OutOrStdout(), versionReport{version, runtime.Version(), runtime.GOOS, runtime.GOARCH})
			}
			return write(cmd.OutOrStdout(), fmt.Sprintf("quorate %s (%s %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH))
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
