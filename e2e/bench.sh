#!/bin/sh
# What "make bench" calls: builds authserver and the program that measures it, and runs that. Arguments are the program's,
# as in e2e/bench.sh -quick -only a,b. Needs Go and make, on Linux.
set -eu

cd "$(dirname "$0")/.."
make -s build
go -C e2e build -o .cache/bin/bench ./cmd/bench
exec e2e/.cache/bin/bench "$@"
