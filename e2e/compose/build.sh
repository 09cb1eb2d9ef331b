#!/bin/sh
# Builds the plugins of the docker CLI that go.mod names, compose and buildx (which compose is built of): tools of a module
# that has nothing else.
set -eu

cd "$(dirname "$0")"
plugins=$PWD/../.cache/cli-plugins # as docker looks for them, in DOCKER_CONFIG
mkdir -p "$plugins"
# version MODULE: as it stands in go.mod; each looks at that of the other.
version() { sed -n "s,^	$1 \([^ ]*\).*,\1,p" go.mod; }
flags="-s -w -X github.com/docker/compose/v2/internal.Version=$(version github.com/docker/compose/v2)"
flags="$flags -X github.com/docker/buildx/version.Version=$(version github.com/docker/buildx)"

build() {
	if [ -x "$plugins/$1" ] && [ -z "$(find . -newer "$plugins/$1")" ]; then
		return
	fi
	echo "building $1"
	CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$plugins/$1" "$2"
	touch "$plugins/$1" # go leaves the file alone when nothing in it would change
}
build docker-compose github.com/docker/compose/v2/cmd
build docker-buildx github.com/docker/buildx/cmd/buildx
