package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Plugins is the folder with the docker CLI's plugins, compose and buildx.
func Plugins(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(Root(t), ".cache", "cli-plugins")
	for _, name := range []string{"docker-compose", "docker-buildx"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Fatalf("%v; run e2e/compose/build.sh", err)
		}
	}
	return dir
}

// MakeRegistryImage makes an image like Docker Hub's registry:3, of the registry that the tests have built: same paths, same
// command, same configuration, and busybox beside it.
func (d *Dockerd) MakeRegistryImage(t testing.TB, name string) {
	t.Helper()
	d.ImportImage(t, name, []string{
		`ENTRYPOINT ["/entrypoint.sh"]`, `CMD ["/etc/distribution/config.yml"]`, "EXPOSE 5000", "VOLUME /var/lib/registry",
		"ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}, func(r *Rootfs) {
		r.Shell()
		r.File("bin/registry", ReadFile(t, Program(t, "registry-3.1.2")), 0o755)
		r.File("entrypoint.sh", []byte(`#!/bin/sh
set -e
case "$1" in
*.yaml | *.yml) set -- registry serve "$@" ;;
serve | garbage-collect | help | -*) set -- registry "$@" ;;
esac
exec "$@"
`), 0o755)
		r.File("etc/distribution/config.yml", []byte(`version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
  tag:
    concurrencylimit: 8
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
`), 0o644)
	})
}

// MakePostgresImage makes an image like Docker Hub's postgres, of this machine's PostgreSQL: same paths, same user, same
// variables as far as deploy/ uses them. It runs beside postgres/with.sh, which installs PostgreSQL.
func (d *Dockerd) MakePostgresImage(t testing.TB, name string) {
	t.Helper()
	bin := os.Getenv("TEST_POSTGRES_BIN")
	if bin == "" {
		t.Fatal("TEST_POSTGRES_BIN is not set; run e2e/postgres/with.sh go test …")
	}
	home := filepath.Dir(bin) // /usr/lib/postgresql/15
	d.ImportImage(t, name, []string{
		"ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + bin, "ENV PGDATA=/var/lib/postgresql/data",
		`ENTRYPOINT ["docker-entrypoint.sh"]`, `CMD ["postgres"]`, "EXPOSE 5432", "VOLUME /var/lib/postgresql/data",
	}, func(r *Rootfs) {
		r.File("etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n"), 0o644)
		r.File("etc/group", []byte("root:x:0:\npostgres:x:999:\n"), 0o644)
		r.Shell()
		for _, program := range []string{"postgres", "initdb", "pg_ctl", "pg_isready", "createdb", "psql"} {
			r.Program(filepath.Join(bin, program))
		}
		r.Program("/usr/bin/setpriv") // in the place of gosu
		r.Tree(filepath.Join(home, "lib"), filepath.Join(home, "lib"), func(name string) bool {
			return strings.Contains(name, "bitcode") || strings.Contains(name, "llvmjit") || strings.Contains(name, "pgxs")
		})
		share := filepath.Join("/usr/share/postgresql", filepath.Base(home))
		r.Tree(share, share, func(name string) bool { return name == "man" })
		r.Tree("/usr/share/zoneinfo", "/usr/share/zoneinfo", nil)
		r.Folder("var/run/postgresql", 0o3777)
		r.File("usr/local/bin/docker-entrypoint.sh", []byte(`#!/bin/sh
set -eu
if [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA"
	chown -R postgres "$PGDATA"
	chmod 0700 "$PGDATA"
	exec /usr/bin/setpriv --reuid=999 --regid=999 --clear-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --encoding=UTF8 --locale=C --auth-local=trust --auth-host=trust
	echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
	echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
	pg_ctl --pgdata="$PGDATA" --options="-c listen_addresses=''" --wait start
	createdb --username="$POSTGRES_USER" "$POSTGRES_DB" 2>/dev/null || psql --username="$POSTGRES_USER" --command='select 1' "$POSTGRES_DB"
	pg_ctl --pgdata="$PGDATA" --mode=fast --wait stop
fi
exec "$@"
`), 0o755)
	})
}
