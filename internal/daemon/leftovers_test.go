package daemon

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// One process at a time may change a cluster's fence; another cluster's is another
// matter.
func TestLockFence(t *testing.T) {
	cluster := fmt.Sprintf("test-%d", os.Getpid())
	unlock, err := LockFence(cluster)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockFence(cluster); err == nil || !strings.Contains(err.Error(), "another quorate process") {
		t.Fatalf("locked twice: %v", err)
	}
	other, err := LockFence(cluster + "-other")
	if err != nil {
		t.Fatal(err)
	}
	other()
	unlock()
	again, err := LockFence(cluster)
	if err != nil {
		t.Fatalf("after the unlock: %v", err)
	}
	again()
}
