#!/usr/bin/env bash
# Makes a release of what is committed, in DIR (default dist/): for each platform an archive and a bill of materials, for
# Linux also Debian and RPM packages, and SHA256SUMS over all. The same commit gives the same bytes wherever it is made.
#
#   deploy/release/release.sh [-platforms "linux/amd64 …"] [DIR]
set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022
here=$(cd "$(dirname "$0")" && pwd)
go=${GO:-go}
# What goes into a program is said here, and neither by the environment nor by "go env -w". Where modules come from and are kept
# remains the caller's.
for name in GOAUTH GOCACHE GOINSECURE GOMODCACHE GONOPROXY GONOSUMDB GOPRIVATE GOPROXY GOSUMDB GOTOOLCHAIN GOVCS; do
	value=$("$go" env $name)
	export $name="$value"
done
export GOENV=off GOFLAGS= GOAMD64=v1 GOARM64=v8.0 GOEXPERIMENT= GOFIPS140=off GOWORK=off GOOS= GOARCH=
platforms="linux/amd64 linux/arm64 darwin/amd64 darwin/arm64"
if [ "${1:-}" = -platforms ]; then
	platforms=$2
	shift 2
fi
out=${1:-$here/../../dist}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A clone holds what is committed and nothing else, and Go stamps its revision into what it builds there.
[ -z "$(git -C "$here" status --porcelain)" ] || echo "release: there are changes that are not committed; they are left out" >&2
git -c advice.detachedHead=false clone --quiet --no-hardlinks "$(git -C "$here" rev-parse --show-toplevel)" "$work/src"
cd "$work/src"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
versions=$("$work/src/deploy/release/version.sh")
read -r version packaged <<<"$versions"
echo "release: authserver $version"

mkdir "$work/tools"
"$go" build -trimpath -modfile=deploy/release/tools.mod -o "$work/tools" github.com/goreleaser/nfpm/v2/cmd/nfpm github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
build() { # GOOS GOARCH OUTPUT
	CGO_ENABLED=0 GOOS=$1 GOARCH=$2 "$go" build -trimpath -buildvcs=true -ldflags "-s -w -X main.version=$version" -o "$3" ./cmd/authserver
}

# What is the same for every platform.
mkdir "$work/common" "$work/common/completions"
build '' '' "$work/authserver"
"$work/authserver" man "$work/common/man"
gzip -9n "$work"/common/man/*
for shell in bash zsh fish powershell; do
	"$work/authserver" completion $shell >"$work/common/completions/authserver.$shell"
done
GO=$go deploy/release/licences.sh >"$work/common/THIRD_PARTY_LICENSES"
find deploy -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
cp -R LICENSE README.md CHANGELOG.md SECURITY.md CONTRIBUTING.md docs deploy "$work/common"
rm -r "$work/common/deploy/release" "$work/common/deploy/packages" # which make this

rm -f "$out"/authserver[-_]* "$out/SHA256SUMS"
for platform in $platforms; do
	os=${platform%/*} arch=${platform#*/}
	name=authserver-$version-$os-$arch
	echo "release: $platform"
	cp -R "$work/common" "$work/$name"
	if [ "$platform" = "$("$go" env GOHOSTOS)/$("$go" env GOHOSTARCH)" ]; then
		cp "$work/authserver" "$work/$name"
	else
		build "$os" "$arch" "$work/$name/authserver"
	fi
	chmod -R u=rwX,go=rX "$work/$name"
	find "$work/$name" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	tar -C "$work" --format=gnu --sort=name --owner=0 --group=0 --numeric-owner -cf - "$name" | gzip -9n >"$out/$name.tar.gz"
	"$work/tools/cyclonedx-gomod" bin -json -noserial -std -licenses -version "$version" -output "$out/$name.cdx.json" "$work/$name/authserver" 2>/dev/null
	sed -i "s/\"timestamp\": \"[^\"]*\"/\"timestamp\": \"$(date -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)\"/" "$out/$name.cdx.json" # that the tool ran
	[ "$os" = linux ] || continue
	cp -pR deploy/packages/. "$work/$name"
	for packager in deb rpm; do
		if ! (cd "$work/$name" && VERSION=$packaged ARCH=$arch "$work/tools/nfpm" package --packager $packager --target "$out") >"$work/log" 2>&1; then
			cat "$work/log" >&2
			exit 1
		fi
	done
done
cd "$out"
sha256sum authserver[-_]* >SHA256SUMS
cat SHA256SUMS
