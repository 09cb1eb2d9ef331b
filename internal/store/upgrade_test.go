package store_test

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"authserver/internal/store"
	"authserver/internal/users"
)

// make-released writes testdata/released/NNNN.* for the newest tables, NNNN being the number of their migration: a
// SQLite file, and with TEST_POSTGRES set a dump of PostgreSQL. It is done once, with the program that is released, and
// what it wrote is never changed.
var makeReleased = flag.Bool("make-released", false, "write the databases of this release")

// What the database of a release holds. It stays as it is: it is in the databases of all releases.
var (
	releasedAccounts = []users.Account{
		{Name: "alice", Kind: users.KindUser, Groups: []string{"dev", "ops"}, Password: "$2a$04$abc", Created: now, Changed: now.Add(time.Hour)},
		{Name: "bob@example.com", Kind: users.KindUser, Groups: []string{}, Password: "$2y$12$d'e\"f", Disabled: true, Created: now, Changed: now.Add(time.Minute)},
		{Name: "ci", Kind: users.KindRobot, Groups: []string{"dev"}, Created: now, Changed: now},
	}
	releasedTokens = map[string]users.AccessToken{
		"hash-1": {
			ID: "t1", Owner: "alice", Backend: "database", Name: "laptop", Shown: "asat_abcdef", Scopes: []string{"repository:team/**:pull,push", "registry:catalog:*"},
			Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")},
			Created:  now, Expires: now.Add(time.Hour), LastUsed: now.Add(time.Minute), LastFrom: "192.0.2.7",
		},
		"hash-2": {ID: "t2", Owner: "ci", Backend: "database", Name: "für immer's", Shown: "asat_ghijkl", Created: now},
		"hash-3": {ID: "t3", Owner: "Ünal O'Hara", Backend: "htpasswd", Name: "laptop", Shown: "asat_mnopqr", Scopes: []string{}, Created: now},
	}
	releasedLogins = map[string]users.RefreshToken{
		"hash-1": {ID: "r1", Owner: "alice", Backend: "database", Mark: "mark", Service: "registry.example.com", Client: "docker", Created: now, LastUsed: now.Add(time.Minute)},
		"hash-2": {ID: "r2", Owner: "Ünal O'Hara", Backend: "htpasswd", Mark: "mark", Service: "other", Client: `client "/'\`, Created: now, LastUsed: now},
	}
)

// fillReleased puts it into an empty database.
func fillReleased(t *testing.T, s *store.Store) {
	t.Helper()
	ctx := t.Context()
	for _, group := range []string{"dev", "empty", "ops"} {
		must(t, s.AddGroup(ctx, group, now))
	}
	for _, a := range releasedAccounts {
		must(t, s.AddAccount(ctx, a))
		for _, group := range a.Groups {
			must(t, s.AddMember(ctx, group, a.Name))
		}
		switch {
		case a.Disabled:
			must(t, s.SetDisabled(ctx, a.Name, true, a.Changed))
		case a.Kind == users.KindUser:
			must(t, s.SetPassword(ctx, a.Name, a.Password, a.Changed))
		}
	}
	for hash, token := range releasedTokens {
		must(t, s.AddAccessToken(ctx, hash, token))
		if !token.LastUsed.IsZero() {
			must(t, s.AccessTokenUsed(ctx, token.ID, token.LastUsed, token.LastFrom))
		}
	}
	for hash, login := range releasedLogins {
		must(t, s.AddRefreshToken(ctx, hash, login))
	}
}

// wantReleased checks that all of it is there.
func wantReleased(t *testing.T, s *store.Store) {
	t.Helper()
	ctx := t.Context()
	for _, want := range releasedAccounts {
		if got, err := s.Account(ctx, want.Name); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("account %+v, %v\nwant %+v", got, err, want)
		}
	}
	if groups, err := s.Groups(ctx); err != nil || !slices.Equal(groups, []string{"dev", "empty", "ops"}) {
		t.Errorf("groups %v, %v", groups, err)
	}
	for hash, want := range releasedTokens {
		if got, err := s.AccessToken(ctx, hash); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("access token %+v, %v\nwant %+v", got, err, want)
		}
	}
	for hash, want := range releasedLogins {
		if got, err := s.RefreshToken(ctx, hash); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("refresh token %+v, %v\nwant %+v", got, err, want)
		}
	}
}

// tables describes what a database is made of.
func tables(t *testing.T, c store.Config, s *store.Store) string {
	t.Helper()
	queries := []string{"SELECT tbl_name || ': ' || name || ': ' || COALESCE(sql, '') FROM sqlite_master ORDER BY 1"}
	if c.Dir == "" {
		queries = []string{
			"SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' || COALESCE(column_default, '') FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1",
			"SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
			"SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1",
		}
	}
	var all strings.Builder
	for _, query := range queries {
		rows, err := s.DB().Query(query)
		must(t, err)
		for rows.Next() {
			var line string
			must(t, rows.Scan(&line))
			fmt.Fprintln(&all, line)
		}
		must(t, rows.Err())
	}
	return all.String()
}

// A database of every release is opened by this program: nothing in it is lost, its tables are those of a new one, and
// it can be worked with.
func TestDatabasesOfEarlierReleases(t *testing.T) {
	folder := filepath.Join("testdata", "released")
	migrations, err := filepath.Glob("migrations/*.sql")
	must(t, err)
	if *makeReleased {
		release(t, filepath.Join(folder, filepath.Base(migrations[len(migrations)-1])[:4]))
	}
	engines(t, func(t *testing.T, c store.Config) {
		kind, load := ".sqlite.gz", unpack
		if c.Dir == "" {
			kind, load = ".postgres.sql", restore
		}
		for _, migration := range migrations {
			file := filepath.Join(folder, filepath.Base(migration)[:4]+kind)
			t.Run(filepath.Base(file), func(t *testing.T) {
				fresh, old := sqliteConfig(t), sqliteConfig(t)
				if c.Dir == "" {
					fresh, old = postgresConfig(t), postgresConfig(t)
				}
				if _, err := os.Stat(file); err != nil {
					t.Fatalf("%v; the argument -make-released makes it", err)
				}
				load(t, file, old)
				s := open(t, old)
				wantReleased(t, s)
				if got, want := tables(t, old, s), tables(t, fresh, open(t, fresh)); got != want {
					t.Errorf("the tables are\n%s\nthose of a new database\n%s", got, want)
				}
				wantReleased(t, open(t, old)) // once more
				ctx := t.Context()
				must(t, s.AddAccount(ctx, users.Account{Name: "new", Kind: users.KindUser, Created: now}))
				must(t, s.AddMember(ctx, "dev", "new"))
				must(t, s.RemoveAccount(ctx, "alice"))
				if members, err := s.Members(ctx, "dev"); err != nil || !slices.Equal(members, []string{"ci", "new"}) {
					t.Errorf("members %v, %v", members, err)
				}
				_, err := s.AccessToken(ctx, "hash-1")
				is(t, err, users.ErrNotFound)
			})
		}
	})
}

func unpack(t *testing.T, file string, to store.Config) {
	t.Helper()
	packed, err := os.Open(file)
	must(t, err)
	defer func() { _ = packed.Close() }()
	r, err := gzip.NewReader(packed)
	must(t, err)
	data, err := io.ReadAll(r)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(to.Dir, "authserver.db"), data, 0o600))
}

func restore(t *testing.T, file string, to store.Config) {
	t.Helper()
	dump, err := os.ReadFile(file)
	must(t, err)
	db, err := pgx.Connect(t.Context(), to.URL)
	must(t, err)
	_, err = db.PgConn().Exec(t.Context(), string(dump)).ReadAll()
	must(t, err)
	must(t, db.Close(t.Context()))
}

// release writes the databases of a release.
func release(t *testing.T, name string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	c := sqliteConfig(t)
	s := open(t, c)
	fillReleased(t, s)
	must(t, s.Close()) // empties the log into the file
	data, err := os.ReadFile(filepath.Join(c.Dir, "authserver.db"))
	must(t, err)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
	must(t, os.WriteFile(name+".sqlite.gz", packed.Bytes(), 0o644))

	if postgres() == "" {
		t.Fatal("only that of SQLite was written: TEST_POSTGRES is not set")
	}
	c = postgresConfig(t)
	fillReleased(t, open(t, c))
	dump, err := exec.Command(filepath.Join(os.Getenv("TEST_POSTGRES_BIN"), "pg_dump"), "--inserts", "--no-owner", "--no-privileges", "-d", c.URL).Output()
	must(t, err)
	// What is for psql alone, and what changes the connection or is not of every version.
	dump = regexp.MustCompile(`(?m)^(--.*|\\.*|SET .*|SELECT pg_catalog.set_config.*)?\n`).ReplaceAll(dump, nil)
	must(t, os.WriteFile(name+".postgres.sql", dump, 0o644))
}
