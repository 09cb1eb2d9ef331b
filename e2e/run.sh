#!/bin/sh
# All of the end-to-end tests, from nothing: builds the product, OPA and the
# registries, installs the clients and PostgreSQL, runs the tests, and the unit
# tests of the product that want PostgreSQL. Needs Go, gcc, make, git and a Debian
# with apt, as root (dockerd and containerd are started).
# Arguments go to "go test": e2e/run.sh ./flows -run Catalog -v
set -eu

cd "$(dirname "$0")"
exec </dev/null
whole=
[ $# -gt 0 ] || { whole=1; set -- ./...; }

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
part "compose" compose/build.sh
part "release" release/install.sh
part "vet" go vet ./...
[ -z "$whole" ] || part "store on PostgreSQL" postgres/with.sh go -C .. test -count=1 ./internal/store ./internal/api
# Packages one after another: two dockerds at once would not be quicker on two
# cores, and ports are picked before they are used.
part "tests" postgres/with.sh go test -count=1 -p 1 -timeout 15m "$@"
