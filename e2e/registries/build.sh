#!/bin/sh
# Builds the registries, or those named: build.sh [2.5.2 2.8.3 3.0.0 3.1.2 debian notary].
# "debian" is Debian's docker-registry, 2.8.2; "notary" is Notary's server.
# Each is a Go module of its own, because the versions exclude one another; the code is in _shared.
# Nothing happens for a binary that is newer than its sources.
set -eu

notary_version=v0.7.0

cd "$(dirname "$0")"
bin=$PWD/../.cache/bin
mkdir -p "$bin"

[ $# -gt 0 ] || set -- 2.5.2 2.8.3 3.0.0 3.1.2 debian notary
for version; do
	case $version in
	debian)
		command -v docker-registry >/dev/null 2>&1 || ../apt.sh docker-registry
		continue
		;;
	notary)
		if [ "$(cat "$bin/notary-server.version" 2>/dev/null)" != $notary_version ]; then
			echo "building notary-server"
			GOBIN=$(cd "$bin" && pwd) CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' \
				github.com/theupdateframework/notary/cmd/notary-server@$notary_version
			echo $notary_version >"$bin/notary-server.version"
		fi
		continue
		;;
	esac
	binary=$bin/registry-$version
	if [ -x "$binary" ] && [ -z "$(find -L "v$version" build.sh -newer "$binary")" ]; then
		continue
	fi
	echo "building registry $version"
	tags=
	case $version in
	2.5.2) tags=noresumabledigest ;; # the resumable hashes it names are no longer to be had
	esac
	(cd "v$version" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -tags "$tags" -o "$binary" .)
	touch "$binary" # go leaves the file alone when nothing in it would change
done
