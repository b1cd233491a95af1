package api

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/doctor"
)

func TestDoctor(t *testing.T) {
	want := doctor.Report{Node: "n1", Daemon: true, Nodes: []doctor.Asked{{Name: "n1", Answered: true}},
		Findings: []doctor.Finding{{ID: "udp", Severity: doctor.Broken, Node: "n1", To: "n2", What: "lost"}}, Broken: 1}
	var asked DoctorRequest
	var problem error
	path := serve(t, &fakeAgent{doctor: func(r DoctorRequest) (doctor.Report, error) { asked = r; return want, problem }})
	c := client(t, path)
	got, err := c.Doctor(t.Context(), 2500*time.Millisecond)
	if err != nil || !reflect.DeepEqual(got, want) || asked.Measure() != 2500*time.Millisecond {
		t.Errorf("%+v, %v; asked for %s", got, err, asked.Measure())
	}
	if (DoctorRequest{}).Measure() != doctor.DefaultMeasure {
		t.Error("no time is not the default")
	}
	for _, d := range []time.Duration{time.Millisecond, time.Minute} {
		if _, err := c.Doctor(t.Context(), d); err == nil || !strings.Contains(err.Error(), "want 2s to 8s") {
			t.Errorf("measuring for %s: %v", d, err)
		}
	}
	problem = errors.New("another one is at work")
	if _, err := c.Doctor(t.Context(), doctor.MinMeasure); err == nil || !strings.Contains(err.Error(), "at work") {
		t.Errorf("a refusal arrives as %v", err)
	}
}
