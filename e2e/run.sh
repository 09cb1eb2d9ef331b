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

# images builds the product as harness.BuildProduct does, for the build cache in the image that deploy's tests build from: that
# takes minutes from nothing, and those of the tests are counted.
images() {
	for architecture in amd64 arm64; do
		GOCACHE=$PWD/.cache/golang-image CGO_ENABLED=0 GOOS=linux GOARCH=$architecture go -C .. build -trimpath -buildvcs=false -o /dev/null ./cmd/authserver
	done
}

part "authserver" make -C .. build
[ -z "$whole" ] || part "authserver for images" images
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
