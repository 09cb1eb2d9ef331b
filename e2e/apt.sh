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
apt-get -qq update </dev/null
apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" </dev/null >/dev/null
