package main

import (
	"context"
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
	"github.com/quorate/quorate/internal/term"
)

func newSnapshotCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "snapshot save|restore|print FILE",
		Short:   "Save the cluster's state in a file, and put it back",
		Example: "  quorate snapshot save /var/backups/quorate.json\n  quorate snapshot restore /var/backups/quorate.json",
		RunE: func(c *cobra.Command, args []string) error {
			text := "snapshot takes save, restore or print, and a file"
			if len(args) > 0 {
				for _, near := range c.SuggestionsFor(args[0]) {
					text += fmt.Sprintf("; did you mean snapshot %s?", near)
				}
			}
			return &usageError{text}
		},
	}
	c.AddCommand(newSnapshotSaveCommand(), newSnapshotRestoreCommand(), newSnapshotPrintCommand())
	c.SuggestionsMinimumDistance = 2
	for _, sub := range c.Commands() {
		markFailures(sub)
	}
	return c
}

// A savedReport is the JSON of `quorate snapshot save`.
type savedReport struct {
	File     string `json:"file"`
	Cluster  string `json:"cluster"`
	Revision uint64 `json:"revision"`
	Index    uint64 `json:"index"`
}

func newSnapshotSaveCommand() *cobra.Command {
	return asking(&cobra.Command{
		Use:     "save FILE",
		Short:   "Write the cluster's state to a file",
		Long:    "Write the replicated state (document with passwords of VRRP, nodes, owners, history) to a file, mode 0600, as JSON with a checksum.",
		Example: "  quorate snapshot save /var/backups/quorate.json",
		Args:    takes(1, "a file"),
	}, question[savedReport]{ask: saveSnapshot, text: func(_ term.Screen, r savedReport) string {
		return fmt.Sprintf("saved %s: cluster %s, revision %d, index %d\n", r.File, r.Cluster, r.Revision, r.Index)
	}})
}

func saveSnapshot(ctx context.Context, client *api.Client, args []string) (savedReport, error) {
	s, err := client.Snapshot(ctx)
	if err == nil {
		_, err = s.Open()
	}
	if err == nil {
		err = writeWhole(args[0], s)
	}
	return savedReport{args[0], s.Cluster, s.Revision, s.Index}, err
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
	return asking(&cobra.Command{
		Use:   "restore FILE",
		Short: "Put back the document and the drained nodes of a file",
		Long: "Put back what a snapshot of this cluster says that operators wanted: the document, as `quorate apply` would, and\n" +
			"who is drained. Owners, epochs and nodes are never put back: an epoch that was used comes from a log that went\n" +
			"on, and used again it would be a second owner's proof; who votes is decided by `quorate remove` and by joining.\n" +
			"A damaged file and one of another cluster are refused.",
		Example: "  quorate snapshot restore /var/backups/quorate.json",
		Args:    takes(1, "a file"),
	}, question[api.Restored]{text: restoredText, ask: func(ctx context.Context, client *api.Client, args []string) (api.Restored, error) {
		s, err := readSnapshot(args[0])
		if err != nil {
			return api.Restored{}, err
		}
		return client.Restore(ctx, s)
	}})
}

func restoredText(screen term.Screen, r api.Restored) string {
	text := appliedText(screen, r.Applied)
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
