package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeCluster is three nodes in files: who owns each group, who is drained, and who is
// not ready. RUN is a command that does there what quorate would do.
const fakeCluster = `#!/bin/sh
# run HOST COMMAND
cd "$(dirname "$0")" || exit 1
host=$1
echo "$1: $2" >>log
set -- $2
case "$1 $2" in
"quorate status")
	printf 'cluster: prod\n\nNAME ADDRESSES OWNER STATE\n'
	for g in owner.*; do echo "${g#owner.} 10.0.0.200/24 $(cat "$g") backup"; done ;;
"quorate members")
	printf 'NAME  ADDRESS  ROLE  VOTER  ALIVE  READY\n'
	for n in n1 n2 n3; do
		ready=yes
		[ -e "sick.$n" ] && ready=NO
		echo "$n  10.0.0.1:7950  member  yes  yes  $ready"
	done ;;
"quorate move") echo "$4" >"owner.$3" ;;
"quorate drain")
	for g in owner.*; do
		[ "$(cat "$g")" != "$3" ] && continue
		for n in n1 n2 n3; do [ "$n" != "$3" ] && echo "$n" >"$g"; done
	done ;;
"quorate undrain") ;;
"systemctl restart")
	[ -e "breaks.$host" ] && touch "sick.$host"
	true ;;
*) echo "unknown: $*" >&2; exit 1 ;;
esac
`

// roll runs the script on a made-up cluster and returns what it did there.
func roll(t *testing.T, files map[string]string, args ...string) (did []string, output string, err error) {
	t.Helper()
	dir := t.TempDir()
	files["run"] = fakeCluster
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("sh", append([]string{"rolling-restart.sh"}, args...)...)
	c.Env = append(os.Environ(), "RUN="+filepath.Join(dir, "run"))
	out, err := c.CombinedOutput()
	log, logErr := os.ReadFile(filepath.Join(dir, "log"))
	if logErr != nil && !errors.Is(logErr, fs.ErrNotExist) { // not there: nothing was asked of anybody
		t.Fatal(logErr)
	}
	for line := range strings.Lines(string(log)) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasSuffix(line, "quorate status") && !strings.HasSuffix(line, "quorate members") {
			did = append(did, line)
		}
	}
	return did, string(out), err
}

// oneNode is what is done to a node that owns nothing any more.
func oneNode(n string) []string {
	return []string{n + ": quorate drain " + n, n + ": systemctl restart quorate", n + ": quorate undrain " + n}
}

func TestRollingRestart(t *testing.T) {
	var want []string
	want = append(want, oneNode("n3")...)
	want = append(want, "n2: quorate move db n3")
	want = append(want, oneNode("n2")...)
	want = append(want, "n1: quorate move mail n3", "n1: quorate move web n2")
	want = append(want, oneNode("n1")...)
	owners := func() map[string]string {
		return map[string]string{"owner.web": "n1\n", "owner.mail": "n1\n", "owner.db": "n2\n"}
	}
	did, output, err := roll(t, owners(), "n1", "n2", "n3")
	if d := cmp.Diff(want, did); err != nil || d != "" {
		t.Errorf("%v (-want +got)\n%s\nit said:\n%s", err, d, output)
	}
	did, output, err = roll(t, owners(), "-n", "n1", "n2", "n3")
	if err != nil || did != nil {
		t.Errorf("a dry run: %v; it did %q", err, did)
	}
	var shown []string
	for line := range strings.Lines(output) {
		shown = append(shown, strings.NewReplacer("[", "", "]", ":", "\n", "").Replace(line))
	}
	if d := cmp.Diff(want, shown); d != "" {
		t.Errorf("a dry run shows (-want +got)\n%s", d)
	}
}

// A node that does not come back ends it, and no other is touched.
func TestRollingRestartStops(t *testing.T) {
	did, output, err := roll(t, map[string]string{"owner.web": "n1\n", "breaks.n2": ""}, "-t", "0", "n1", "n2", "n3")
	if err == nil || !strings.Contains(output, "n2 is not ready after 0 s") || !strings.Contains(output, "stays drained") {
		t.Errorf("it said %q, error %v", output, err)
	}
	if d := cmp.Diff(oneNode("n2")[:2], did); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	did, output, err = roll(t, map[string]string{"owner.web": "n1\n", "sick.n3": ""}, "n1", "n2", "n3")
	if err == nil || did != nil || !strings.Contains(output, "nothing was restarted") {
		t.Errorf("with a sick node it did %q and said %q, error %v", did, output, err)
	}
}

func TestRollingRestartUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"-x", "n1"}, {"-t", "soon", "n1"}, {"-n"}} {
		did, output, err := roll(t, map[string]string{}, args...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || did != nil || !strings.Contains(output, "usage:") {
			t.Errorf("%s: did %q, said %q, error %v", fmt.Sprint(args), did, output, err)
		}
	}
}
