#!/bin/sh
# with.sh COMMAND...: runs a command beside a PostgreSQL of its own, in a
# temporary folder, whose address is in TEST_POSTGRES and whose
# programs are in TEST_POSTGRES_BIN. Needs a Debian with apt, as root;
# PostgreSQL itself runs as nobody.
set -eu

programs() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1; }

bin=$(programs)
if [ -z "$bin" ]; then
	# Without a cluster of the system's own: it would take a port and start at boot.
	mkdir -p /etc/postgresql-common
	[ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
	"$(dirname "$0")/../apt.sh" postgresql
	bin=$(programs)
	if [ -z "$bin" ]; then
		echo "with.sh: PostgreSQL is still missing" >&2
		exit 1
	fi
fi

dir=$(mktemp -d /tmp/authserver-postgres-XXXXXX)
as() { (cd / && exec setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME="$dir" "$@"); }
stop() {
	status=$?
	as "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1 || true
	rm -rf "$dir"
	exit $status
}
trap stop EXIT
trap 'exit 130' INT TERM
chown nobody:nogroup "$dir"
# The same text and the same order everywhere, whatever the machine speaks.
as "$bin/initdb" -D "$dir/data" -U authserver --auth=trust --no-sync --encoding=UTF8 --locale=C.UTF-8 >/dev/null

# A port below those that the system gives out by itself; somebody else may have it.
start() {
	as "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/log" -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir -c max_connections=200 -c fsync=off" start >/dev/null
}
port=$((20000 + $$ % 12000))
tries=1
until start; do
	if [ $tries = 5 ]; then
		cat "$dir/log" >&2
		exit 1
	fi
	tries=$((tries + 1))
	port=$((port + 7))
done
export TEST_POSTGRES="postgres://authserver@127.0.0.1:$port/postgres?sslmode=disable"
export TEST_POSTGRES_BIN="$bin"
"$@"
