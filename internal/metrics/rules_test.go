package metrics

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v4"

	"github.com/quorate/quorate/internal/agent/core"
)

const rulesFile = "../../deploy/prometheus/quorate.rules.yaml"

// families are the names of all that a node shows.
func families(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	m := newFake().metrics()
	m.Transition(core.Transition{Group: "web", To: "active"})
	ch := make(chan *prometheus.Desc)
	go func() {
		m.Describe(ch)
		close(ch)
	}()
	name := regexp.MustCompile(`fqName: "([a-z_]+)"`)
	for d := range ch {
		names[name.FindStringSubmatch(d.String())[1]] = true
	}
	return names
}

var quorateName = regexp.MustCompile(`quorate_[a-z_]+`)

// base is a family's name of one of its series'.
func base(name string, all map[string]bool) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if b, ok := strings.CutSuffix(name, suffix); ok && all[b] {
			return b
		}
	}
	return name
}

// The rules can be read, and alert on nothing that a node does not show.
func TestRules(t *testing.T) {
	text, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         string            `yaml:"for"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	d := yaml.NewDecoder(strings.NewReader(string(text)))
	d.KnownFields(true)
	if err := d.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	all, seen := families(t), map[string]bool{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if seen[r.Alert] || !strings.HasPrefix(r.Alert, "Quorate") {
				t.Errorf("alert %q is there twice, or has no name of ours", r.Alert)
			}
			seen[r.Alert] = true
			used := quorateName.FindAllString(r.Expr, -1)
			for _, name := range used {
				if !all[base(name, all)] {
					t.Errorf("%s: there is no metric %s", r.Alert, name)
				}
			}
			for _, pair := range []string{"()", "[]", "{}"} {
				if strings.Count(r.Expr, pair[:1]) != strings.Count(r.Expr, pair[1:]) {
					t.Errorf("%s: the brackets %s of %s do not match", r.Alert, pair, r.Expr)
				}
			}
			if _, err := time.ParseDuration(r.For); len(used) == 0 || r.For != "" && err != nil {
				t.Errorf("%s: expr %q, for %q", r.Alert, r.Expr, r.For)
			}
			if s := r.Labels["severity"]; s != "critical" && s != "warning" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: severity %q, annotations %v", r.Alert, s, r.Annotations)
			}
		}
	}
	if len(seen) < 10 {
		t.Errorf("%d alerts", len(seen))
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", rulesFile).CombinedOutput(); err != nil {
			t.Errorf("promtool: %v\n%s", err, out)
		}
	}
}

// The documentation has each metric, and none that is not there.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	all, documented := families(t), map[string]bool{}
	for _, name := range quorateName.FindAllString(string(text), -1) {
		documented[base(name, all)] = true
	}
	for name := range all {
		if !documented[name] {
			t.Errorf("docs/observability.md does not have %s", name)
		}
	}
	for name := range documented {
		if !all[name] {
			t.Errorf("docs/observability.md has %s, which no node shows", name)
		}
	}
}
