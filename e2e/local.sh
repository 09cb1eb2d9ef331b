#!/bin/sh
# What "make run" calls: builds the registry (once) and the program that runs it
# next to authserver, and starts that program. Arguments are the program's.
set -eu

cd "$(dirname "$0")/.."
e2e/registries/build.sh 3.1.2
go -C e2e build -o .cache/bin/local ./cmd/local
exec e2e/.cache/bin/local "$@"
