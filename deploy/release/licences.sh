#!/usr/bin/env bash
# Prints the licences of all that is linked into authserver, on any of the platforms that are released. A module without
# a licence is an error: what may not be passed on is not released. Run it in the root of the sources.
set -euo pipefail
export LC_ALL=C
go=${GO:-go}
names='( -iname LICENSE* -o -iname LICENCE* -o -iname COPYING* -o -iname NOTICE* -o -iname PATENTS* ) -not -name *.go'
faults=0

# Path, version and folder of each module, and the folders of its packages that are linked.
linked=$(for platform in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do
	CGO_ENABLED=0 GOOS=${platform%/*} GOARCH=${platform#*/} "$go" list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}} {{$.Dir}}{{end}}{{end}}' "${@:-./cmd/authserver}"
done | sort -u)

show() { # TITLE FILE
	printf '%s\n%s\n\n' "================================================================================" "$1"
	cat "$2"
	printf '\n'
}

show "Go, its runtime and standard library ($("$go" env GOVERSION)): LICENSE" "$("$go" env GOROOT)/LICENSE"
set -f # names holds patterns that are find's
while read -r path version dir; do
	# Of the module, and of the folders between it and its packages: some hold what others wrote.
	files=$(while read -r package; do
		while :; do
			find "$package" -maxdepth 1 -type f $names
			[ "$package" != "$dir" ] || break
			package=$(dirname "$package")
		done
	done < <(awk -v dir="$dir" '$3 == dir { print $4 }' <<<"$linked") | sort -u)
	if ! grep -qi "^$dir/\(licen[cs]e\|copying\)" <<<"$files"; then
		echo "licences: $path $version has no licence" >&2
		faults=1
		continue
	fi
	for file in $files; do
		show "$path $version: ${file#"$dir"/}" "$file"
	done
done < <(awk 'NF { print $1, $2, $3 }' <<<"$linked" | sort -u)
exit $faults
