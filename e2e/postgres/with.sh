#!/bin/sh
# with.sh COMMAND...: runs a command beside a PostgreSQL of its own, in a
# temporary folder, whose address is in AUTHSERVER_TEST_POSTGRES. Needs a Debian
# with apt, as root; PostgreSQL itself runs as nobody.
set -eu

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
if [ -z "$bin" ]; then
	# Without a cluster of the system's own: it would take a port and start at boot.
	mkdir -p /etc/postgresql-common
	[ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
	apt-get -qq update
	DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends postgresql >/dev/null
	bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
fi

dir=$(mktemp -d /tmp/authserver-postgres-XXXXXX)
as() { setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME="$dir" "$@"; }
stop() {
	status=$?
	as "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1 || true
	rm -rf "$dir"
	exit $status
}
trap stop EXIT
trap 'exit 130' INT TERM
chown nobody:nogroup "$dir"
port=$((20000 + $$ % 20000))
as "$bin/initdb" -D "$dir/data" -U authserver --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/log" -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir -c max_connections=200" start >/dev/null || {
	cat "$dir/log" >&2
	exit 1
}
AUTHSERVER_TEST_POSTGRES="postgres://authserver@127.0.0.1:$port/postgres?sslmode=disable" "$@"
