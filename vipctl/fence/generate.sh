#!/bin/sh
# Compiles fence.bpf.c to fence.bpf.o and notes the source's hash beside it, so
# that a test can tell when the two have parted. Needs clang and llvm-strip, 14
# or later (Debian: apt-get install clang llvm). Run it by: go generate ./vipctl/fence
set -eu
cd "$(dirname "$0")"
# -g is for the BTF of the maps; the debug information proper is stripped.
"${CLANG:-clang}" -target bpfel -O2 -g -Wall -Wextra -Werror \
	-fdebug-compilation-dir=. -c fence.bpf.c -o fence.bpf.o
"${LLVM_STRIP:-llvm-strip}" -g fence.bpf.o
sha256sum fence.bpf.c | cut -d' ' -f1 >fence.bpf.c.sha256
