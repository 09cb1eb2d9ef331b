#!/bin/sh
# After the files are there: the user and its folders, and a running service takes over the new program. Nothing is
# started that was not: there is no configuration yet. Debian says "configure", RPM the number of versions installed.
set -e
case "$1" in
configure | [1-9]*) ;;
*) exit 0 ;;
esac
systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} authserver.conf
systemd-tmpfiles ${DPKG_ROOT:+--root="$DPKG_ROOT"} --create authserver.conf
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# A configuration that it refuses is no fault of the package, which would be left half installed.
	systemctl try-restart authserver.service || echo "authserver did not start again: journalctl -u authserver" >&2
fi
