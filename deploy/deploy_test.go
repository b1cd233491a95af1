package deploy

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/config"
)

// bare is a host that has nothing to give: an example that leaves a key to the
// host does not parse on it.
var bare = config.Host{
	Name:      func() (string, error) { return "", errors.New("the example leaves node to the host") },
	Addresses: func() ([]netip.Addr, error) { return nil, errors.New("the example leaves address to the host") },
}

func parse(t *testing.T, name string) *config.Config {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("examples", name))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := bare.Parse(name, b)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestExamples(t *testing.T) {
	files, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d examples, err %v", len(files), err)
	}
	for _, f := range files {
		if cfg := parse(t, filepath.Base(f)); len(cfg.Warnings) > 0 {
			t.Errorf("%s: an example must not be warned about: %q", f, cfg.Warnings)
		}
	}
}

// TestExamplesShow checks that each example is about what its name says.
func TestExamplesShow(t *testing.T) {
	if c := parse(t, "witness.yaml"); c.Role != fsm.Witness {
		t.Errorf("witness.yaml: role %s", c.Role)
	}
	if c := parse(t, "fence-lifetime.yaml"); c.Fence != config.Lifetime || c.Lease != 3*time.Second {
		t.Errorf("fence-lifetime.yaml: fence %s, lease %s", c.Fence, c.Lease)
	}
	if c := parse(t, "vrrp-router.yaml"); c.Election != config.ElectVRRP || c.Document.Groups[0].VRRP.Priority != 150 {
		t.Errorf("vrrp-router.yaml: election %s, priority %d", c.Election, c.Document.Groups[0].VRRP.Priority)
	}
	if g := parse(t, "dual-master.yaml").Document.Groups; len(g) != 2 || g[0].Priority["n1"] <= g[0].Priority["n2"] || g[1].Priority["n1"] >= g[1].Priority["n2"] ||
		!g[0].Preempt.Yes || g[0].Placement != fsm.PlacementPriority {
		t.Errorf("dual-master.yaml: %+v", g)
	}
	if c := parse(t, "spread-five.yaml"); len(c.Peers) != 5 || slices.ContainsFunc(c.Document.Groups, func(g fsm.Group) bool { return g.Placement != fsm.PlacementSpread }) {
		t.Errorf("spread-five.yaml: %+v", c)
	}
	c := parse(t, "ipv6.yaml")
	if first := c.Document.Groups[0].Addresses[0].Addr(); !first.IsLinkLocalUnicast() || !c.Address.Addr().Is6() {
		t.Errorf("ipv6.yaml: own address %s, first address %s", c.Address, first)
	}
}

// TestKeepalivedExample: the configuration beside with-keepalived.yaml is one
// that keepalived takes, for the same router and the same address.
func TestKeepalivedExample(t *testing.T) {
	const conf = "examples/with-keepalived.conf"
	b, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"vrrp_version 3", "virtual_router_id 51", "10.0.0.200/24", "interface eth0"} {
		if !strings.Contains(string(b), line+"\n") {
			t.Errorf("%s has no line %q", conf, line)
		}
	}
	g := parse(t, "with-keepalived.yaml").Document.Groups[0]
	if g.VRRP.ID != 51 || g.VRRP.Priority <= 100 || g.Addresses[0].String() != "10.0.0.200/24" || g.Interface != "eth0" {
		t.Errorf("with-keepalived.yaml does not fit: %+v", g)
	}
	keepalived, err := exec.LookPath("keepalived")
	if err != nil {
		t.Skip("keepalived is not installed, so its own check of the file was left out: apt-get install keepalived")
	}
	if os.Geteuid() != 0 {
		t.Skip("not root, so keepalived's own check of the file was left out: it wants an eth0, which is made in a network namespace")
	}
	cmd := exec.Command("sh", "-ec", `ip link add eth0 type veth peer name eth1; exec "$0" --config-test --use-file="$1"`, keepalived, conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("keepalived --config-test: %v\n%s", err, out)
	}
}

const unitFile = "systemd/quorate.service"

func readUnit(t *testing.T) map[string][]string {
	t.Helper()
	f, err := os.Open(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sections, err := unit.DeserializeSections(f)
	if err != nil {
		t.Fatal(err)
	}
	opts := map[string][]string{}
	for _, s := range sections {
		for _, e := range s.Entries {
			key := s.Section + "." + e.Name
			opts[key] = append(opts[key], e.Value)
		}
	}
	return opts
}

func TestUnit(t *testing.T) {
	u := readUnit(t)
	want := map[string]string{
		"Service.Type":             "notify",
		"Service.ExecStart":        "/usr/bin/quorate run --config /etc/quorate/quorate.yaml",
		"Service.ExecStopPost":     `/bin/sh -c 'case "$$SERVICE_RESULT" in success|timeout) exec /usr/bin/quorate release --config /etc/quorate/quorate.yaml;; esac'`,
		"Service.Restart":          "always",
		"Service.KillMode":         "mixed",
		"Service.RuntimeDirectory": "quorate",
		"Service.StateDirectory":   "quorate",
		"Install.WantedBy":         "multi-user.target",
	}
	for key, v := range want {
		if got := u[key]; !slices.Equal(got, []string{v}) {
			t.Errorf("%s = %q, want %q", key, got, v)
		}
	}
	// A file with an error fails the reload before the daemon is told of it.
	reload := []string{"/usr/bin/quorate check /etc/quorate/quorate.yaml", "/bin/kill -HUP $MAINPID"}
	if got := u["Service.ExecReload"]; !slices.Equal(got, reload) {
		t.Errorf("ExecReload = %q, want %q", got, reload)
	}
	if d, err := time.ParseDuration(strings.Join(u["Service.WatchdogSec"], "")); err != nil || d < time.Second {
		t.Errorf("WatchdogSec = %q: %v", u["Service.WatchdogSec"], err)
	}
	caps := strings.Fields(strings.Join(u["Service.CapabilityBoundingSet"], " "))
	for _, c := range []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_SYS_ADMIN"} {
		if !slices.Contains(caps, c) {
			t.Errorf("CapabilityBoundingSet = %q lacks %s", caps, c)
		}
	}
	families := strings.Fields(strings.Join(u["Service.RestrictAddressFamilies"], " "))
	for _, f := range []string{"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET"} {
		if !slices.Contains(families, f) {
			t.Errorf("RestrictAddressFamilies = %q lacks %s", families, f)
		}
	}
}

// TestUnitBreaksNothing names the settings that would stop the daemon, or keep
// one that crashed from coming back.
func TestUnitBreaksNothing(t *testing.T) {
	u := readUnit(t)
	for _, key := range []string{"ProtectClock", "PrivateNetwork", "PrivateUsers", "PrivateDevices", "ProtectKernelTunables", "DynamicUser", "User",
		"RestartPreventExitStatus"} {
		if v, have := u["Service."+key]; have {
			t.Errorf("%s=%s: %s says why not", key, v, unitFile)
		}
	}
}

// TestUnitPaths: the unit makes the directories that the defaults lie in.
func TestUnitPaths(t *testing.T) {
	u := readUnit(t)
	if got := "/var/lib/" + strings.Join(u["Service.StateDirectory"], ""); got != config.DefaultDataDir {
		t.Errorf("StateDirectory is %s, data_dir by default %s", got, config.DefaultDataDir)
	}
	if got := "/run/" + strings.Join(u["Service.RuntimeDirectory"], ""); got != filepath.Dir(config.DefaultSocket) {
		t.Errorf("RuntimeDirectory is %s, socket by default %s", got, config.DefaultSocket)
	}
}

func TestUnitVerify(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed, so the unit was parsed but not verified")
	}
	b, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	// The verifier wants the programs to exist, and these are not installed here.
	local := filepath.Join(t.TempDir(), "quorate.service")
	if err := os.WriteFile(local, bytes.ReplaceAll(b, []byte("/usr/bin/quorate"), []byte("/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--recursive-errors=no", "--man=no", local).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("quorate.service")) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
