#!/bin/sh
# All of the end-to-end tests, from nothing: builds the product, OPA and the
# registries, installs the clients, runs the tests. Needs Go, gcc, make, git and
# a Debian with apt, as root (dockerd and containerd are started).
# Arguments go to "go test": e2e/run.sh ./flows -run Catalog -v
set -eu

cd "$(dirname "$0")"
exec </dev/null
[ $# -gt 0 ] || set -- ./...

# part NAME COMMAND...: runs the command and says how long it took.
part() {
	name=$1
	shift
	echo "== $name"
	started=$(date +%s)
	"$@"
	echo "== $name: $(($(date +%s) - started)) s"
}

part "authserver" make -C .. build
part "registries" registries/build.sh
part "opa" opa/build.sh
part "clients" clients/install.sh
part "vet" go vet ./...
# Packages one after another: two dockerds at once would not be quicker on two
# cores, and ports are picked before they are used.
part "tests" go test -count=1 -p 1 -timeout 15m "$@"
