package sim

import "testing"

// TestReturns asks what TestChaos asks, with processes that come back within their lease.
func TestReturns(t *testing.T) { manyRuns(t, (*chaosSeeds+3)/4, RunReturns) }
