package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/keepalived"
)

type importFlags struct {
	election, cluster, node string
	configID, peers         []string
	strict, lenient         bool
}

func newImportCommand() *cobra.Command {
	var f importFlags
	c := &cobra.Command{
		Use:   "import [NAME=]FILE...",
		Short: "Translate the keepalived.conf of all nodes to one configuration file",
		Long: "Translate the keepalived.conf of all nodes to one configuration file, on standard output, and say on standard\n" +
			"error what became of each statement. A node's name is NAME, else that of the file's directory, else its router_id.\n" +
			"Nothing is changed, and keepalived is not asked.",
		Example: "  quorate import n1/keepalived.conf n2/keepalived.conf --peers n1=10.0.0.1,n2=10.0.0.2,10.0.0.3 > quorate.yaml\n" +
			"  quorate import --election vrrp n1=/etc/keepalived/keepalived.conf > quorate.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			return importFiles(f, args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&f.election, "election", "raft", "write for a cluster (raft) or for plain VRRP routers (vrrp)")
	c.Flags().StringVar(&f.cluster, "cluster", "prod", "name of the cluster")
	c.Flags().StringVar(&f.node, "node", "", "node to write node: and address: for (default: that of the first file)")
	c.Flags().StringSliceVar(&f.peers, "peers", nil, "addresses of the cluster's nodes, each [NAME=]ADDRESS[:PORT], in the order of the files (default: from unicast_peer)")
	c.Flags().StringSliceVar(&f.configID, "config-id", nil, "keepalived's -i, for lines that begin with @: ID for all nodes, or NAME=ID (default: the node's name)")
	c.Flags().BoolVar(&f.strict, "strict", false, "fail if anything is lost")
	c.Flags().BoolVar(&f.lenient, "lenient", false, "leave out what keepalived does not know either, and files that are not there")
	return c
}

func importFiles(f importFlags, args []string, stdout, stderr io.Writer) error {
	opt, err := f.options()
	if err != nil {
		return err
	}
	sources, err := importSources(args)
	if err != nil {
		return err
	}
	// The whole file system, since include may name any file of it.
	res, err := keepalived.Import(os.DirFS("/"), sources, opt)
	if _, werr := res.Report.WriteTo(stderr); werr != nil {
		return werr
	}
	if err != nil {
		return fmt.Errorf("nothing was written:\n%w", err)
	}
	if err := write(stdout, string(res.YAML)); err != nil {
		return err
	}
	if _, err := config.Parse("the written file", res.YAML); err != nil {
		return fmt.Errorf("what was written needs a correction before quorate check accepts it:\n%w", err)
	}
	if f.strict && res.Report.Loses() {
		return errors.New("something is lost: see the report; without --strict that is no error")
	}
	return nil
}

func (f importFlags) options() (keepalived.Options, error) {
	opt := keepalived.Options{Cluster: f.cluster, Node: f.node, Lenient: f.lenient, ConfigID: map[string]string{}}
	switch f.election {
	case keepalived.Raft.String():
		opt.Mode = keepalived.Raft
	case keepalived.VRRP.String():
		opt.Mode = keepalived.VRRP
	default:
		return opt, &usageError{fmt.Sprintf("--election must be raft or vrrp, got %q", f.election)}
	}
	for _, id := range f.configID {
		name, value, ok := strings.Cut(id, "=")
		if !ok {
			name, value = "", id
		}
		opt.ConfigID[name] = value
	}
	for _, s := range f.peers {
		p, err := importPeer(s)
		if err != nil {
			return opt, err
		}
		opt.Peers = append(opt.Peers, p)
	}
	if host, err := os.Hostname(); err == nil {
		opt.Host, _, _ = strings.Cut(host, ".")
	}
	return opt, nil
}

// importPeer reads [NAME=]ADDRESS[:PORT].
func importPeer(s string) (p keepalived.Peer, err error) {
	address := s
	if name, rest, ok := strings.Cut(s, "="); ok {
		p.Node, address = name, rest
	}
	if a, err := netip.ParseAddr(strings.Trim(address, "[]")); err == nil {
		p.Address = netip.AddrPortFrom(a, config.DefaultPort)
		return p, nil
	}
	if p.Address, err = netip.ParseAddrPort(address); err != nil {
		return p, &usageError{fmt.Sprintf("--peers %s: must be [NAME=]ADDRESS[:PORT], such as n1=10.0.0.1", s)}
	}
	return p, nil
}

// importSources reads the command line's [NAME=]FILE.
func importSources(args []string) ([]keepalived.Source, error) {
	if len(args) == 0 {
		return nil, &usageError{"import takes the keepalived.conf of each node"}
	}
	var out []keepalived.Source
	for _, a := range args {
		s := keepalived.Source{Name: a}
		if name, file, ok := strings.Cut(a, "="); ok && !strings.Contains(name, "/") {
			s.Node, s.Name = name, file
		}
		abs, err := filepath.Abs(s.Name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		s.Path = strings.TrimPrefix(filepath.ToSlash(abs), "/")
		out = append(out, s)
	}
	return out, nil
}
