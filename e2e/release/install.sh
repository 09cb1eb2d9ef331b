#!/bin/sh
# Installs what the tests of releases need: systemd, which is booted in a copy of this machine, packages' own tools, a
# manual's, and Debian's registry.
set -eu
packages=
need() { # PROGRAM PACKAGE
	command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || packages="$packages $2"
}
need systemctl systemd
need nsenter util-linux
need rpm rpm
need groff groff-base
need man man-db
need curl curl
need openssl openssl
need pgrep procps
need docker-registry docker-registry
# shellcheck disable=SC2086 # the list is meant to be split
"$(dirname "$0")/../apt.sh" $packages
