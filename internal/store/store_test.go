package store_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"authserver/internal/store"
	"authserver/internal/users"
)

// postgres is the address of a PostgreSQL whose databases may be made and dropped; without it these tests run on SQLite
// alone. e2e/run.sh starts one.
func postgres() string { return os.Getenv("TEST_POSTGRES") } // asked within a test, so that a result without it is not taken for one with it

// engines runs a test on every engine, each time with an empty database.
func engines(t *testing.T, test func(t *testing.T, c store.Config)) {
	t.Run("sqlite", func(t *testing.T) { test(t, sqliteConfig(t)) })
	t.Run("postgres", func(t *testing.T) {
		if postgres() == "" {
			t.Skip("TEST_POSTGRES is not set")
		}
		test(t, postgresConfig(t))
	})
}

func sqliteConfig(t *testing.T) store.Config {
	return store.Config{URL: "sqlite:authserver.db", Dir: t.TempDir(), Timeout: time.Minute}
}

func postgresConfig(t *testing.T) store.Config {
	t.Helper()
	ctx := context.Background()
	admin, err := pgx.Connect(ctx, postgres())
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("test_%d", time.Now().UnixNano())
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		if err := errors.Join(err, admin.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
	u, _, _ := strings.Cut(postgres(), "?")
	u = u[:strings.LastIndexByte(u, '/')+1] + name
	return store.Config{URL: u + "?sslmode=disable", MaxConnections: 5, Timeout: time.Minute}
}

func open(t *testing.T, c store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

var now = time.Date(2026, 5, 6, 7, 8, 9, 123456000, time.UTC)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func TestAccounts(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		alice := users.Account{Name: "alice", Kind: users.KindUser, Password: "hash", Created: now}
		must(t, s.AddAccount(ctx, alice))
		is(t, s.AddAccount(ctx, alice), users.ErrConflict)
		must(t, s.AddAccount(ctx, users.Account{Name: "ci", Kind: users.KindRobot, Created: now, Disabled: true}))
		alice.Groups, alice.Changed = []string{}, now
		if got, err := s.Account(ctx, "alice"); err != nil || !reflect.DeepEqual(got, alice) {
			t.Errorf("%+v, %v\nwant %+v", got, err, alice)
		}
		_, err := s.Account(ctx, "Alice")
		is(t, err, users.ErrNotFound)
		if list, err := s.Accounts(ctx, "", 10); err != nil || len(list) != 2 || list[1].Name != "ci" || list[1].Kind != users.KindRobot || !list[1].Disabled {
			t.Errorf("%+v, %v", list, err)
		}
		if list, err := s.Accounts(ctx, "alice", 1); err != nil || len(list) != 1 || list[0].Name != "ci" {
			t.Errorf("%+v, %v", list, err)
		}

		later := now.Add(time.Hour)
		must(t, s.SetPassword(ctx, "alice", "hash2", later))
		is(t, s.SetPassword(ctx, "ci", "hash", later), users.ErrNotFound) // a robot has none
		is(t, s.SetPassword(ctx, "bob", "hash", later), users.ErrNotFound)
		must(t, s.SetDisabled(ctx, "alice", true, later))
		is(t, s.SetDisabled(ctx, "bob", true, later), users.ErrNotFound)
		if got, err := s.Account(ctx, "alice"); err != nil || got.Password != "hash2" || !got.Disabled || !got.Changed.Equal(later) || !got.Created.Equal(now) {
			t.Errorf("%+v, %v", got, err)
		}
		must(t, s.SetDisabled(ctx, "alice", false, later))

		must(t, s.AddGroup(ctx, "dev", now))
		must(t, s.AddGroup(ctx, "ops", now))
		is(t, s.AddGroup(ctx, "dev", now), users.ErrConflict)
		must(t, s.AddMember(ctx, "dev", "alice"))
		must(t, s.AddMember(ctx, "dev", "alice"))
		must(t, s.AddMember(ctx, "ops", "alice"))
		must(t, s.AddMember(ctx, "dev", "ci"))
		is(t, s.AddMember(ctx, "none", "alice"), users.ErrNotFound)
		is(t, s.AddMember(ctx, "dev", "bob"), users.ErrNotFound)
		if list, err := s.Groups(ctx); err != nil || !slices.Equal(list, []string{"dev", "ops"}) {
			t.Errorf("%v, %v", list, err)
		}
		if list, err := s.Members(ctx, "dev"); err != nil || !slices.Equal(list, []string{"alice", "ci"}) {
			t.Errorf("%v, %v", list, err)
		}
		_, err = s.Members(ctx, "none")
		is(t, err, users.ErrNotFound)
		if got, err := s.Account(ctx, "alice"); err != nil || !slices.Equal(got.Groups, []string{"dev", "ops"}) {
			t.Errorf("%v, %v", got.Groups, err)
		}
		must(t, s.RemoveMember(ctx, "ops", "alice"))
		is(t, s.RemoveMember(ctx, "ops", "alice"), users.ErrNotFound)
		must(t, s.RemoveGroup(ctx, "dev"))
		is(t, s.RemoveGroup(ctx, "dev"), users.ErrNotFound)
		if got, err := s.Account(ctx, "alice"); err != nil || len(got.Groups) > 0 {
			t.Errorf("%v, %v", got.Groups, err)
		}
		must(t, s.RemoveAccount(ctx, "alice"))
		is(t, s.RemoveAccount(ctx, "alice"), users.ErrNotFound)
		_, err = s.Account(ctx, "alice")
		is(t, err, users.ErrNotFound)
	})
}

func TestPagesOfGroups(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		for _, group := range []string{"c", "a", "b"} {
			must(t, s.AddGroup(ctx, group, now))
			for _, name := range []string{"bob", "alice", "ci"} {
				if group == "c" {
					must(t, s.AddAccount(ctx, users.Account{Name: name, Kind: users.KindUser, Created: now}))
				}
				if group != "b" {
					must(t, s.AddMember(ctx, group, name))
				}
			}
		}
		if list, err := s.GroupsAfter(ctx, "a", 1); err != nil || !slices.Equal(list, []string{"b"}) {
			t.Errorf("%v, %v", list, err)
		}
		if list, err := s.MembersAfter(ctx, "a", "alice", 5); err != nil || !slices.Equal(list, []string{"bob", "ci"}) {
			t.Errorf("%v, %v", list, err)
		}
		if list, err := s.MembersAfter(ctx, "b", "", 5); err != nil || len(list) > 0 {
			t.Errorf("%v, %v", list, err)
		}
		_, err := s.MembersAfter(ctx, "none", "", 5)
		is(t, err, users.ErrNotFound)
		groups, err := s.GroupsOf(ctx, "alice", "bob")
		if want := map[string][]string{"alice": {"a", "c"}, "bob": {"a", "c"}}; err != nil || !reflect.DeepEqual(groups, want) {
			t.Errorf("%v, %v", groups, err)
		}
	})
}

func TestTokensEndWithTheirOwner(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		token := users.AccessToken{
			ID: "t1", Owner: "alice", Backend: "database", Name: "laptop", Shown: "asat_abc", Scopes: []string{"repository:team/**:pull"},
			Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Created: now, Expires: now.Add(time.Hour),
		}
		refresh := users.RefreshToken{ID: "r1", Owner: "alice", Backend: "database", Mark: "m", Service: "s", Client: "docker", Created: now, LastUsed: now}
		fill := func() {
			t.Helper()
			must(t, s.AddAccount(ctx, users.Account{Name: "alice", Kind: users.KindUser, Password: "x", Created: now}))
			must(t, s.AddAccessToken(ctx, "h1", token))
			must(t, s.AddRefreshToken(ctx, "h1", refresh))
		}
		fill()
		if got, err := s.AccessToken(ctx, "h1"); err != nil || !reflect.DeepEqual(got, token) {
			t.Errorf("%+v, %v\nwant %+v", got, err, token)
		}
		if got, err := s.RefreshToken(ctx, "h1"); err != nil || !reflect.DeepEqual(got, refresh) {
			t.Errorf("%+v, %v\nwant %+v", got, err, refresh)
		}
		for _, hash := range []string{"", "H1", "h2", "h1' OR '1'='1"} {
			_, err := s.AccessToken(ctx, hash)
			is(t, err, users.ErrNotFound)
			_, err = s.RefreshToken(ctx, hash)
			is(t, err, users.ErrNotFound)
		}
		again := token
		again.ID = "t2"
		is(t, s.AddAccessToken(ctx, "h2", again), users.ErrConflict) // the name
		again.Name = "other"
		is(t, s.AddAccessToken(ctx, "h1", again), users.ErrConflict) // the hash
		again.Scopes, again.Networks, again.Expires = nil, nil, time.Time{}
		must(t, s.AddAccessToken(ctx, "h2", again))
		if got, err := s.AccessToken(ctx, "h2"); err != nil || got.Scopes != nil || got.Networks != nil || !got.Expires.IsZero() {
			t.Errorf("%+v, %v", got, err)
		}
		if list, err := s.AccessTokens(ctx, "alice", "t1", 10); err != nil || len(list) != 1 || list[0].ID != "t2" {
			t.Errorf("%+v, %v", list, err)
		}
		if list, err := s.AccessTokens(ctx, "", "", 10); err != nil || len(list) != 2 {
			t.Errorf("%+v, %v", list, err)
		}
		if list, err := s.AccessTokens(ctx, "bob", "", 10); err != nil || len(list) != 0 {
			t.Errorf("%+v, %v", list, err)
		}

		must(t, s.AccessTokenUsed(ctx, "t1", now.Add(time.Minute), "192.0.2.1"))
		must(t, s.AccessTokenUsed(ctx, "t1", now, "192.0.2.9")) // another replica's, late
		must(t, s.RefreshTokenUsed(ctx, "r1", now.Add(time.Minute)))
		if got, _ := s.AccessToken(ctx, "h1"); !got.LastUsed.Equal(now.Add(time.Minute)) || got.LastFrom != "192.0.2.1" {
			t.Errorf("%+v", got)
		}
		if got, _ := s.RefreshToken(ctx, "h1"); !got.LastUsed.Equal(now.Add(time.Minute)) {
			t.Errorf("%+v", got)
		}

		ends := func(what string, access, refresh bool, change error) {
			t.Helper()
			must(t, change)
			if _, err := s.AccessToken(ctx, "h1"); errors.Is(err, users.ErrNotFound) != access {
				t.Errorf("%s: access token: %v", what, err)
			}
			if _, err := s.RefreshToken(ctx, "h1"); errors.Is(err, users.ErrNotFound) != refresh {
				t.Errorf("%s: refresh token: %v", what, err)
			}
			if refresh && !access {
				must(t, s.AddRefreshToken(ctx, "h1", users.RefreshToken{ID: "r1", Owner: "alice", Backend: "database", Created: now, LastUsed: now}))
			}
		}
		ends("a new password", false, true, s.SetPassword(ctx, "alice", "y", now))
		ends("a lock", false, true, s.SetDisabled(ctx, "alice", true, now))
		ends("the end of a lock", false, false, s.SetDisabled(ctx, "alice", false, now))
		ends("somebody of that name elsewhere", false, false, s.RemoveTokens(ctx, "htpasswd", "alice"))
		ends("revoked", true, false, s.RevokeAccessToken(ctx, "t1"))
		is(t, s.RevokeAccessToken(ctx, "t1"), users.ErrNotFound)
		must(t, s.RevokeRefreshToken(ctx, "r1"))
		is(t, s.RevokeRefreshToken(ctx, "r1"), users.ErrNotFound)
		must(t, s.RemoveAccount(ctx, "alice"))
		fill()
		ends("removed", true, true, s.RemoveAccount(ctx, "alice"))
	})
}

func TestSweep(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		for i, expires := range []time.Time{{}, now.Add(time.Hour), now.Add(-time.Hour), now.Add(-8 * 24 * time.Hour)} {
			must(t, s.AddAccessToken(ctx, fmt.Sprint(i), users.AccessToken{ID: fmt.Sprint(i), Owner: "a", Name: fmt.Sprint(i), Created: now, Expires: expires}))
		}
		for i, r := range []users.RefreshToken{{Created: now, LastUsed: now}, {Created: now.Add(-100 * time.Hour), LastUsed: now}, {Created: now, LastUsed: now.Add(-20 * time.Hour)}} {
			r.ID = fmt.Sprint(i)
			must(t, s.AddRefreshToken(ctx, fmt.Sprint(i), r))
		}
		if n, err := s.Sweep(ctx, now, now.Add(-10*time.Hour), now.Add(-50*time.Hour)); err != nil || n != 3 {
			t.Errorf("%d, %v", n, err)
		}
		for i, kept := range []bool{true, true, true, false} {
			if _, err := s.AccessToken(ctx, fmt.Sprint(i)); (err == nil) != kept {
				t.Errorf("access token %d: %v", i, err)
			}
		}
		for i, kept := range []bool{true, false, false} {
			if _, err := s.RefreshToken(ctx, fmt.Sprint(i)); (err == nil) != kept {
				t.Errorf("refresh token %d: %v", i, err)
			}
		}
	})
}

// Several processes open an empty database at once, write to it at once, and see each other's changes.
func TestManyAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		const processes, accounts = 4, 20
		var all sync.WaitGroup
		for p := range processes {
			all.Go(func() {
				s, err := store.Open(context.Background(), c)
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = s.Close() }()
				for i := range accounts {
					name := fmt.Sprintf("p%d-%d", p, i)
					if err := s.AddAccount(context.Background(), users.Account{Name: name, Kind: users.KindUser, Created: now}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if list, err := open(t, c).Accounts(t.Context(), "", 1000); err != nil || len(list) != processes*accounts {
			t.Errorf("%d accounts, %v", len(list), err)
		}
	})
}

// A crowd of requests does not open a connection each.
func TestConnectionsAreBounded(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		var all sync.WaitGroup
		for range 300 {
			all.Go(func() {
				if _, err := s.Account(ctx, "nobody"); !errors.Is(err, users.ErrNotFound) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if stats := s.DB().Stats(); stats.MaxOpenConnections < 1 || stats.MaxOpenConnections > 16 || stats.MaxIdleClosed > 0 {
			t.Errorf("%+v", stats)
		}
	})
}

func TestADatabaseOfANewerProgramIsRefused(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s := open(t, c)
		if _, err := s.DB().Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, TRUE)"); err != nil {
			t.Fatal(err)
		}
		_, err := store.Open(t.Context(), c)
		is(t, err, store.ErrNewer)
		if err == nil || !strings.Contains(err.Error(), "version 9999") {
			t.Error(err)
		}
	})
}

func TestFilesAreForNobodyElse(t *testing.T) {
	c := sqliteConfig(t)
	s := open(t, c)
	must(t, s.AddAccount(t.Context(), users.Account{Name: "a", Kind: users.KindUser, Created: now}))
	copied := filepath.Join(t.TempDir(), "it's a copy.db")
	must(t, s.Backup(t.Context(), copied))
	if err := s.Backup(t.Context(), copied); err == nil {
		t.Error("a backup was overwritten")
	}
	files, _ := filepath.Glob(filepath.Join(c.Dir, "authserver.db*"))
	for _, file := range append(files, copied) {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	c.URL = "sqlite:" + copied
	if _, err := open(t, c).Account(t.Context(), "a"); err != nil {
		t.Errorf("the backup: %v", err)
	}
}

// serve is started in the folder of its configuration more often than not, and a folder can have any name.
func TestAFolderIsRelativeToTheWorkingDirectoryAndHasAnyName(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{".", "data", "data/below", "a b", "50%", "50%20", "a?b=c", "a#b", "ä", "it's"} {
		if err := os.MkdirAll(filepath.Join(dir, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"authserver.db", "./x/authserver.db", "a b.db"} {
			c := store.Config{URL: "sqlite:" + name, Dir: dir, Timeout: time.Minute}
			must(t, open(t, c).AddAccount(t.Context(), users.Account{Name: "a", Kind: users.KindUser, Created: now}))
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
				t.Errorf("%q in %q: %v, %v", name, dir, info, err)
			}
		}
	}
}

func TestBadAddresses(t *testing.T) {
	for url, want := range map[string]string{
		"":                                    "of no database",
		"mysql://u:hunter2@h/d":               "of no database",
		"host=h password=hunter2":             "of no database",
		"postgres://u:hunter2@h:port/d":       "the address of PostgreSQL cannot be read",
		"sqlite:missing/folder/authserver.db": "no such file or directory",
		"postgres://u:hunter2@127.0.0.1:1/d":  "connection refused",
	} {
		_, err := store.Open(t.Context(), store.Config{URL: url, Dir: t.TempDir(), Timeout: time.Minute, MaxConnections: 1})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestAFileThatIsNoDatabaseIsRefused(t *testing.T) {
	c := sqliteConfig(t)
	must(t, os.WriteFile(filepath.Join(c.Dir, "authserver.db"), []byte(strings.Repeat("not a database ", 1000)), 0o600))
	if _, err := store.Open(t.Context(), c); err == nil || errors.Is(err, store.ErrUnreachable) {
		t.Errorf("error %v", err)
	}
}

// What limits a token and cannot be read is no reason to be without a limit.
func TestATokenWhoseLimitsAreDamagedIsNoToken(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		must(t, s.AddAccessToken(ctx, "h", users.AccessToken{ID: "t", Owner: "a", Scopes: []string{"repository:a:pull"}, Created: now}))
		for _, change := range []string{"scopes = ''", "scopes = '[\"repository:a:pull\"'", "scopes = '{}'", "networks = 'x'", "networks = '[\"10.0.0.0/99\"]'", "networks = '\"10.0.0.0/8\"'"} {
			if _, err := s.DB().Exec("UPDATE access_tokens SET scopes = '[]', networks = '[]'"); err != nil {
				t.Fatal(err)
			}
			if got, err := s.AccessToken(ctx, "h"); err != nil || got.Scopes == nil || len(got.Scopes) > 0 {
				t.Fatalf("%+v, %v", got, err)
			}
			if _, err := s.DB().Exec("UPDATE access_tokens SET " + change); err != nil {
				t.Fatal(err)
			}
			got, err := s.AccessToken(ctx, "h")
			if err == nil || errors.Is(err, users.ErrNotFound) || !strings.Contains(err.Error(), "access token t is damaged") || got.Owner != "" {
				t.Errorf("%s: %+v, %v", change, got, err)
			}
			if list, err := s.AccessTokens(ctx, "", "", 10); err == nil {
				t.Errorf("%s: %+v", change, list)
			}
		}
	})
}

// A database that does not answer is none of its answers: nobody is unknown, nothing is conflicting.
func TestADatabaseThatIsGoneSaysNothing(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		must(t, s.AddAccount(ctx, users.Account{Name: "a", Kind: users.KindUser, Created: now}))
		must(t, s.Ping(ctx))
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := s.Account(gone, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("out of time: %v", err)
		}
		must(t, s.Close())
		second := func(_ any, err error) error { return err }
		for name, err := range map[string]error{
			"Ping":               s.Ping(ctx),
			"Account":            second(s.Account(ctx, "a")),
			"Account, unknown":   second(s.Account(ctx, "b")),
			"Accounts":           second(s.Accounts(ctx, "", 1)),
			"AddAccount":         s.AddAccount(ctx, users.Account{Name: "a", Kind: users.KindUser}),
			"SetPassword":        s.SetPassword(ctx, "a", "x", now),
			"SetDisabled":        s.SetDisabled(ctx, "a", true, now),
			"RemoveAccount":      s.RemoveAccount(ctx, "a"),
			"RemoveTokens":       s.RemoveTokens(ctx, "database", "a"),
			"Groups":             second(s.Groups(ctx)),
			"Members":            second(s.Members(ctx, "g")),
			"AddGroup":           s.AddGroup(ctx, "g", now),
			"RemoveGroup":        s.RemoveGroup(ctx, "g"),
			"AddMember":          s.AddMember(ctx, "g", "a"),
			"RemoveMember":       s.RemoveMember(ctx, "g", "a"),
			"AddAccessToken":     s.AddAccessToken(ctx, "h", users.AccessToken{ID: "t"}),
			"AccessToken":        second(s.AccessToken(ctx, "h")),
			"AccessTokens":       second(s.AccessTokens(ctx, "", "", 1)),
			"AccessTokenUsed":    s.AccessTokenUsed(ctx, "t", now, ""),
			"RevokeAccessToken":  s.RevokeAccessToken(ctx, "t"),
			"AddRefreshToken":    s.AddRefreshToken(ctx, "h", users.RefreshToken{ID: "r"}),
			"RefreshToken":       second(s.RefreshToken(ctx, "h")),
			"RefreshTokenUsed":   s.RefreshTokenUsed(ctx, "r", now),
			"RevokeRefreshToken": s.RevokeRefreshToken(ctx, "r"),
			"Sweep":              second(s.Sweep(ctx, now, now, now)),
			"Backup":             s.Backup(ctx, filepath.Join(t.TempDir(), "copy")),
		} {
			if err == nil || errors.Is(err, users.ErrNotFound) || errors.Is(err, users.ErrConflict) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// askingForPassword is a PostgreSQL that asks for the password in clear, notes it, and hangs up.
func askingForPassword(t *testing.T) (address string, given <-chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	passwords := make(chan string, 10)
	message := func(r io.Reader, head int) (string, error) { // a type, if head is 5, and a length that counts itself
		header := make([]byte, head)
		if _, err := io.ReadFull(r, header); err != nil {
			return "", err
		}
		body := make([]byte, binary.BigEndian.Uint32(header[head-4:])-4)
		_, err := io.ReadFull(r, body)
		return string(body), err
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, err = message(conn, 4)
			if err == nil {
				_, err = conn.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x03")) // AuthenticationCleartextPassword
			}
			if err == nil {
				var password string
				if password, err = message(conn, 5); err == nil {
					passwords <- strings.TrimSuffix(password, "\x00")
				}
			}
			_ = conn.Close()
		}
	}()
	return ln.Addr().String(), passwords
}

func TestThePasswordFileOfPostgreSQLIsRead(t *testing.T) {
	address, given := askingForPassword(t)
	file := filepath.Join(t.TempDir(), "password")
	c := store.Config{URL: "postgres://u:of-the-url@" + address + "/d?sslmode=disable", MaxConnections: 1, Timeout: time.Minute}
	for text, want := range map[string]string{"": "of-the-url", "hunter2": "hunter2", "hunter2\n": "hunter2", "hunter2\r\n": "hunter2", " hunter 2 \n": " hunter 2 "} {
		c.PasswordFile = ""
		if text != "" {
			must(t, os.WriteFile(file, []byte(text), 0o600))
			c.PasswordFile = file
		}
		_, err := store.Open(t.Context(), c)
		if got := <-given; got != want || err == nil || strings.Contains(err.Error(), want) {
			t.Errorf("%q: gave %q, %v", text, got, err)
		}
		for len(given) > 0 { // tries of the same
			<-given
		}
	}
	c.PasswordFile = filepath.Join(t.TempDir(), "none")
	_, err := store.Open(t.Context(), c)
	is(t, err, os.ErrNotExist)
}

// Whoever logs in again and again fills no table.
func TestOfManyLoginsTheLatestStay(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, ctx := open(t, c), t.Context()
		add := func(id, owner, backend, service string, at time.Time) {
			t.Helper()
			must(t, s.AddRefreshToken(ctx, id, users.RefreshToken{ID: id, Owner: owner, Backend: backend, Service: service, Created: at, LastUsed: at}))
		}
		add("other-service", "alice", "database", "other", now)
		add("other-owner", "bob", "database", "one", now)
		add("other-backend", "alice", "htpasswd", "one", now)
		for i := range 105 {
			add(fmt.Sprint(i), "alice", "database", "one", now.Add(time.Duration(i)*time.Minute))
			if i == 50 {
				must(t, s.RefreshTokenUsed(ctx, "0", now.Add(time.Hour)))
			}
		}
		for id, kept := range map[string]bool{"other-service": true, "other-owner": true, "other-backend": true, "0": true, "1": false, "5": false, "6": true, "104": true} {
			if _, err := s.RefreshToken(ctx, id); (err == nil) != kept || err != nil && !errors.Is(err, users.ErrNotFound) {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
}

// Who only looks makes nothing: tables would belong to whoever looked first.
func TestCheckMakesNothing(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		s, err := store.New(c)
		must(t, err)
		defer func() { must(t, s.Close()) }()
		tables := func() (n int) {
			t.Helper()
			question := "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
			if strings.HasPrefix(c.URL, "sqlite:") {
				question = "SELECT count(*) FROM sqlite_master"
			}
			must(t, s.DB().QueryRowContext(t.Context(), question).Scan(&n))
			return n
		}
		must(t, s.Check(t.Context()))
		if n := tables(); n != 0 {
			t.Errorf("%d tables after a look at an empty database", n)
		}
		must(t, s.Migrate(t.Context()))
		before := tables()
		must(t, s.Check(t.Context()))
		if after := tables(); before == 0 || after != before {
			t.Errorf("%d tables, %d before", after, before)
		}
	})
}
