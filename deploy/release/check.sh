#!/usr/bin/env bash
# Makes the release of what is committed twice, in two clones that have nothing in common but the commit, and compares
# the sums. What it is given goes to release.sh, as in: check.sh -platforms linux/amd64
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
commit=$(git -C "$root" rev-parse HEAD)
for place in here somewhere/else; do
	git clone --quiet --no-hardlinks --no-checkout "$root" "$work/$place/authserver"
	git -C "$work/$place/authserver" checkout --quiet --detach "$commit"
	"$work/$place/authserver/deploy/release/release.sh" "$@" "$work/$place/dist" >"$work/log" || { cat "$work/log" >&2; exit 1; }
done
if ! diff -u "$work/here/dist/SHA256SUMS" "$work/somewhere/else/dist/SHA256SUMS"; then
	echo "release-check: two releases of one commit differ" >&2
	exit 1
fi
cat "$work/here/dist/SHA256SUMS"
echo "release-check: equal"
