package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/config"
)

func newSnapshotCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "snapshot save|restore|print FILE",
		Short: "Save the cluster's state in a file, and put it back",
		RunE: func(c *cobra.Command, args []string) error {
			return &usageError{"snapshot takes save, restore or print, and a file"}
		},
	}
	c.AddCommand(newSnapshotSaveCommand(), newSnapshotRestoreCommand(), newSnapshotPrintCommand())
	for _, sub := range c.Commands() {
		markFailures(sub)
	}
	return c
}

func newSnapshotSaveCommand() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:     "save FILE",
		Short:   "Write the cluster's state to a file",
		Long:    "Write the replicated state (document with passwords of VRRP, nodes, owners, history) to a file, mode 0600, as JSON with a checksum.",
		Example: "  quorate snapshot save /var/backups/quorate.json",
		Args:    takes(1, "a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			defer client.Close()
			s, err := client.Snapshot(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := s.Open(); err != nil {
				return err
			}
			if err := writeWhole(args[0], s); err != nil {
				return err
			}
			return write(cmd.OutOrStdout(), fmt.Sprintf("saved %s: cluster %s, revision %d, index %d\n", args[0], s.Cluster, s.Revision, s.Index))
		},
	}
	t.flags(c)
	return c
}

// writeWhole writes a file so that after a crash either the old or the new one is there.
func writeWhole(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the snapshot: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // fails once it is renamed, which is well
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func newSnapshotRestoreCommand() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put back the document and the drained nodes of a file",
		Long: "Put back what a snapshot of this cluster says that operators wanted: the document, as `quorate apply` would, and\n" +
			"who is drained. Owners, epochs and nodes are never put back: an epoch that was used comes from a log that went\n" +
			"on, and used again it would be a second owner's proof; who votes is decided by `quorate remove` and by joining.\n" +
			"A damaged file and one of another cluster are refused.",
		Example: "  quorate snapshot restore /var/backups/quorate.json",
		Args:    takes(1, "a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := readSnapshot(args[0])
			if err != nil {
				return err
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			defer client.Close()
			r, err := client.Restore(cmd.Context(), s)
			if err != nil {
				return err
			}
			return write(cmd.OutOrStdout(), appliedText(r.Applied)+restoredText(r))
		},
	}
	t.flags(c)
	return c
}

func restoredText(r api.Restored) string {
	text := ""
	for _, list := range []struct {
		nodes []string
		what  string
	}{{r.Drained, "drained"}, {r.Undrained, "no longer drained"}, {r.Gone, "drained in the snapshot, and no longer in the cluster"}} {
		if len(list.nodes) > 0 {
			text += strings.Join(list.nodes, ", ") + ": " + list.what + "\n"
		}
	}
	return text
}

func newSnapshotPrintCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "print FILE",
		Short: "Print the document of a snapshot as a configuration file has it",
		Long: "Print the document of a snapshot as a configuration file has it, passwords of VRRP included. No daemon is asked.\n" +
			"With `quorate apply` another cluster takes it.",
		Example: "  quorate snapshot print /var/backups/quorate.json > vips.yaml",
		Args:    takes(1, "a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := readSnapshot(args[0])
			if err != nil {
				return err
			}
			st, err := s.Open()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return write(cmd.OutOrStdout(), string(config.RenderDocument(st.Document)))
		},
	}
}

// maxSnapshot bounds the file that is read, in bytes.
const maxSnapshot = 16 << 20

func readSnapshot(file string) (s api.Snapshot, err error) {
	f, err := os.Open(file)
	if err != nil {
		return s, fmt.Errorf("read the snapshot: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSnapshot+1))
	switch {
	case err != nil:
		return s, fmt.Errorf("read the snapshot: %w", err)
	case len(b) > maxSnapshot:
		return s, fmt.Errorf("read the snapshot: %s is longer than %d bytes; see that it is one", file, maxSnapshot)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read the snapshot: %s is no snapshot, or damaged: %w", file, err)
	}
	return s, nil
}
