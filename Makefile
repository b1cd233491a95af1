# quorate. The two commands to know: make demo, make test (both as root).

GO          ?= go
BIN         := bin/quorate
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -s -w -X main.version=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 30s
DURATION    ?= 10m
NODES       ?= 3
LEASE       ?= 250ms
NICE        ?= 0

# What the tests call, as program:Debian package. gcc is for the race detector; quorate itself is built without cgo.
NEEDS := ip:iproute2 nft:nftables keepalived:keepalived tcpdump:tcpdump arping:iputils-arping sysctl:procps git:git gcc:gcc mkfs.ext4:e2fsprogs spin:spin \
	jq:jq tmux:tmux groff:groff vtysh:frr tshark:tshark unshare:util-linux

export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin

.PHONY: build test lint demo recordings man soak generate fuzz bench clean help root needs
.NOTPARALLEL:

build: ## bin/quorate, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/quorate

# How often the lab does each fault here; `go test ./tests/lab` does it five times.
RUNS     := 2
# These measure a real kernel's behaviour in network namespaces, whose hosts share one
# neighbour table, and would measure each other: one after the other.
MEASURED := tests/lab|tests/interop|vipctl

# The mutants are binaries of their own, built without -race.
test: root needs build lint ## everything, -race included; installs what it needs (root)
	CGO_ENABLED=1 $(GO) build -race ./...
	CGO_ENABLED=1 $(GO) test -race -p 3 -timeout 12m -skip '^TestMutants$$' $$($(GO) list ./... | grep -vE '$(MEASURED)')
	CGO_ENABLED=0 $(GO) test ./tests/sim -run '^(TestChaos|TestMutants)$$' -seeds 4000
	CGO_ENABLED=0 $(GO) test ./election/raftnode -run TestCompaction
	CGO_ENABLED=1 $(GO) test -race -timeout 10m ./tests/interop
	(CGO_ENABLED=1 $(GO) test -race -timeout 13m ./tests/lab -runs $(RUNS)) & beside=$$!; rc=0; \
	CGO_ENABLED=1 $(GO) test -race -p 1 -timeout 10m ./vipctl/... || rc=1; \
	wait $$beside || rc=1; exit $$rc

lint: ## gofmt, go vet, staticcheck, go.mod
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "not formatted; run gofmt -w on:"; echo "$$out"; exit 1; fi
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

demo: root build ## three nodes and a keepalived, every fault once, a table and out/demo.html (root)
	$(GO) run ./tests/demo

recordings: root needs build ## docs/recordings anew, of a real cluster of three on terminals (root)
	$(GO) run ./tests/record

man: build ## out/man: the manual pages
	$(BIN) man out/man

soak: root needs build ## random faults for DURATION (10m), STARVED for so long besides; SEED and FROM repeat one (root)
	$(GO) run ./tests/soak -duration $(DURATION) -nodes $(NODES) -lease $(LEASE) -nice $(NICE) \
		$(if $(STARVED),-starved $(STARVED)) $(if $(SEED),-seed $(SEED)) $(if $(FROM),-from $(FROM))

generate: ## the BPF object from its C source (needs clang)
	$(GO) generate ./...

fuzz: ## every fuzz target for FUZZTIME (30s)
	@set -e; grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/:func /:/' | sort -u | \
	while IFS=: read -r file name; do \
		echo "$$name in $$(dirname "$$file")"; \
		$(GO) test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" </dev/null; \
	done

bench: ## every benchmark
	$(GO) test -run '^$$' -bench . -benchmem $$(grep -rl --include='*_test.go' '^func Benchmark' . | xargs -n1 dirname | sort -u)

clean: ## remove what was built
	rm -rf bin out

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' $(MAKEFILE_LIST) | awk -F': ' '{ printf "%-10s %s\n", $$1, $$2 }'

root:
	@if [ "$$(id -u)" != 0 ]; then \
		echo "This needs root: it makes network namespaces, sets addresses, loads BPF programs and opens raw sockets." >&2; \
		echo "Everything happens in namespaces of its own. Try: sudo -E make $(MAKECMDGOALS)" >&2; \
		exit 1; \
	fi

needs:
	@missing=; \
	for n in $(NEEDS); do command -v "$${n%%:*}" >/dev/null || missing="$$missing $${n##*:}"; done; \
	[ -e /usr/include/stdlib.h ] || missing="$$missing libc6-dev"; \
	[ -z "$$missing" ] && exit 0; \
	echo "installing$$missing"; \
	command -v apt-get >/dev/null || { echo "no apt-get here: install the packages above yourself and try again" >&2; exit 1; }; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -q && apt-get install -y -q --no-install-recommends $$missing
