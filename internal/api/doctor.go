package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/quorate/quorate/internal/doctor"
)

const pathDoctor = "/v1/doctor"

// doctorSlack is what a survey of all nodes may take beyond the measuring.
const doctorSlack = 4 * time.Second

// A DoctorRequest is the body of POST /v1/doctor; the answer is a doctor.Report.
type DoctorRequest struct {
	MeasureMS int64 `json:"measure_ms,omitempty"` // how long to measure between the nodes; 0: 3 s
}

// Measure is that time.
func (r DoctorRequest) Measure() time.Duration {
	if r.MeasureMS == 0 {
		return doctor.DefaultMeasure
	}
	return time.Duration(r.MeasureMS) * time.Millisecond
}

// CheckMeasure says what is wrong with a time for measuring.
func CheckMeasure(d time.Duration) error {
	if d < doctor.MinMeasure || d > doctor.MaxMeasure {
		return fmt.Errorf("measuring for %s: want %s to %s", d, doctor.MinMeasure, doctor.MaxMeasure)
	}
	return nil
}

func (s *Server) doctor(r *http.Request) answer {
	var req DoctorRequest
	if a, ok := readBody(r, &req); !ok {
		return a
	}
	if err := CheckMeasure(req.Measure()); err != nil {
		return refuse(http.StatusBadRequest, err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), req.Measure()+doctorSlack)
	defer cancel()
	report, err := s.agent.Doctor(ctx, req)
	if err != nil {
		return refuse(orderCode(err), err)
	}
	return answer{http.StatusOK, report}
}

// Doctor has every node measure whether a failover would work, and returns what came of it.
func (c *Client) Doctor(ctx context.Context, measure time.Duration) (doctor.Report, error) {
	var report doctor.Report
	err := c.call(ctx, measure+doctorSlack+c.patience, http.MethodPost, pathDoctor, DoctorRequest{measure.Milliseconds()}, &report)
	return report, err
}
