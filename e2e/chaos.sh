#!/bin/sh
# What authserver does when something breaks, from nothing: builds the product and two registries, installs haproxy,
# nginx, sqlite3 and PostgreSQL, and runs the tests of ./chaos, which take about six minutes on two cores. Needs Go, make,
# git and a Debian with apt, as root (PostgreSQL is run as somebody else, and a small disk is mounted).
# Arguments go to "go test": e2e/chaos.sh -run Reloads
set -eu

cd "$(dirname "$0")"
exec </dev/null
PATH=$PATH:/usr/sbin:/sbin

packages=
for program in haproxy nginx sqlite3; do
	command -v $program >/dev/null || case $program in
	nginx) packages="$packages nginx-light" ;;
	*) packages="$packages $program" ;;
	esac
done
# shellcheck disable=SC2086 # the list is meant to be split
./apt.sh $packages
make -C .. build
registries/build.sh 2.8.3 3.1.2
CHAOS=1 postgres/with.sh go test -count=1 -v -timeout 12m ./chaos "$@"
