#!/bin/sh
# Before the files go, and not when another version comes: Debian says "remove", RPM 0 versions left.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
	systemctl disable --now authserver.service authserver.socket
fi
