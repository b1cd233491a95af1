package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// showJSON prints a value for programs, indented because people look at it too.
func showJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	return write(w, string(b)+"\n")
}

// write prints text; a full disk behind a redirection must not look like success.
func write(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func showMillis(ms float64) string { return fmt.Sprintf("%.1f ms", ms) }

// shortMillis is for a glance.
func shortMillis(ms float64) string {
	if ms < 10 {
		return showMillis(ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}
