#!/bin/sh
# apt.sh PACKAGE...: installs Debian packages, as root. Services that come with them are not started: the tests start
# their own. Nothing to do without packages.
set -eu

[ $# -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "apt.sh: missing: $*; run as root, or install them first" >&2
	exit 1
fi
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
n=0 # another may be at it, on a machine that has just started
until apt-get -qq update </dev/null; do
	n=$((n + 1))
	[ $n -lt 30 ] || exit 1
	sleep 10
done
apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" </dev/null >/dev/null
