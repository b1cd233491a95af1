package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// needs are the programs that the demo calls, and the Debian packages that have them.
var needs = []struct{ program, pkg string }{
	{"ip", "iproute2"},
	{"nft", "nftables"},
	{"keepalived", "keepalived"},
}

// install gets what is missing, by apt-get, and nothing when all is there.
func install(ctx context.Context) error {
	missing := missingPackages()
	if len(missing) == 0 {
		return nil
	}
	byHand := fmt.Sprintf("install these packages yourself and try again: %s", strings.Join(missing, " "))
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("this machine has no apt-get: %s", byHand)
	}
	fmt.Printf("installing %s\n", strings.Join(missing, ", "))
	err := aptGet(ctx, append([]string{"install", "-y", "--no-install-recommends"}, missing...)...)
	if err != nil {
		// A machine whose package lists are old or empty needs them first.
		if uerr := aptGet(ctx, "update"); uerr != nil {
			return fmt.Errorf("%w; %s", uerr, byHand)
		}
		err = aptGet(ctx, append([]string{"install", "-y", "--no-install-recommends"}, missing...)...)
	}
	if err != nil {
		return fmt.Errorf("%w; %s", err, byHand)
	}
	if still := missingPackages(); len(still) > 0 {
		return fmt.Errorf("apt-get installed %s, and their programs are still not in PATH (%s)",
			strings.Join(still, " "), os.Getenv("PATH"))
	}
	return nil
}

func missingPackages() (out []string) {
	for _, n := range needs {
		if _, err := exec.LookPath(n.program); err != nil {
			out = append(out, n.pkg)
		}
	}
	return out
}

func aptGet(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("apt-get %s: %w:\n%s", strings.Join(args, " "), err, lastLines(string(out), 8))
	}
	return nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
