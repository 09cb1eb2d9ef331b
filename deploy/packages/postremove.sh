#!/bin/sh
# After the files are gone. "purge" is Debian's word for everything: configuration, keys and database too. The user stays,
# so that nobody else gets its number.
set -e
if [ "$1" = purge ]; then
	rm -rf "$DPKG_ROOT/etc/authserver" "$DPKG_ROOT/var/lib/authserver" "$DPKG_ROOT/var/log/authserver"
fi
case "$1" in
remove | 0)
	if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
		systemctl daemon-reload
	fi
	;;
esac
