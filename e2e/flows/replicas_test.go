package flows_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// soon is how long a change may take until every process knows of it.
const soon = 2 * time.Second

// Three processes share a database and a data folder. What one command changes holds for all of them.
func TestAChangeHoldsInEveryProcess(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			first := harness.StartAuthserver(t, harness.Options{
				Policy: policy, Database: engine.url(t), RefreshTokens: true,
			})
			// init hashes at the usual cost, and refusals take that of the highest.
			first.Command(t, first.Password+"\n", "user", "passwd", "admin", "--password-stdin")
			all := []*harness.Authserver{first, first.Replica(t), first.Replica(t)}
			query := url.Values{"service": {first.Service}, "scope": {"repository:alice/app:pull"}}

			// everywhere waits until all processes give status to a credential.
			everywhere := func(what, user, password string, status int) {
				t.Helper()
				for i, a := range all {
					becomes(t, fmt.Sprintf("%s: process %d", what, i), status, func() harness.Answer { return a.Get(t, user, password, query) })
				}
			}
			refresh := func(a *harness.Authserver, user, password string) string {
				t.Helper()
				answer := a.Get(t, user, password, url.Values{"service": {a.Service}, "offline_token": {"true"}})
				if answer.RefreshToken == "" {
					t.Fatalf("no refresh token: status %d: %s", answer.Status, answer.Body)
				}
				return answer.RefreshToken
			}

			first.AddUser(t, "alice", "one")
			everywhere("a new account", "alice", "one", http.StatusOK)
			token, id := first.AccessToken(t, "alice", "laptop")
			everywhere("a new token", "alice", token, http.StatusOK)
			login := refresh(all[1], "alice", "one")
			everywhere("a login at another process", "", login, http.StatusOK)

			first.Command(t, "", "token", "revoke", id)
			everywhere("a revoked token", "alice", token, http.StatusUnauthorized)
			token, _ = first.AccessToken(t, "alice", "found")
			everywhere("a token that somebody has found", "alice", token, http.StatusOK)
			all[2].Revoke(t, token)
			everywhere("a token that was revoked at one process", "alice", token, http.StatusUnauthorized)
			lost := refresh(all[0], "alice", "one")
			all[1].Revoke(t, lost)
			everywhere("a login that was revoked at one process", "", lost, http.StatusUnauthorized)
			everywhere("the other login", "", login, http.StatusOK)
			first.Command(t, "two\n", "user", "passwd", "alice", "--password-stdin")
			everywhere("the old password", "alice", "one", http.StatusUnauthorized)
			everywhere("a login with the old password", "", login, http.StatusUnauthorized)
			everywhere("the new password", "alice", "two", http.StatusOK)
			login = refresh(all[2], "alice", "two")
			token, _ = first.AccessToken(t, "alice", "laptop")
			everywhere("the next token", "alice", token, http.StatusOK)
			first.Command(t, "", "user", "disable", "alice")
			for _, c := range [][2]string{{"alice", "two"}, {"alice", token}, {"", login}} {
				everywhere("a locked account", c[0], c[1], http.StatusUnauthorized)
			}
			first.Command(t, "", "user", "enable", "alice")
			everywhere("let in again", "alice", token, http.StatusOK)
			first.Command(t, "", "group", "add", "admins-of-nothing", "alice")
			first.Command(t, "", "user", "remove", "alice")
			for _, c := range [][2]string{{"alice", "two"}, {"alice", token}} {
				everywhere("a removed account", c[0], c[1], http.StatusUnauthorized)
			}

			// A user of the file has tokens too; the file is looked at twice a second.
			token, id = first.AccessToken(t, "admin", "laptop")
			login = refresh(all[1], "admin", first.Password)
			everywhere("a token of the administrator", "admin", token, http.StatusOK)
			first.Command(t, "", "token", "revoke", id)
			everywhere("a revoked token of the administrator", "admin", token, http.StatusUnauthorized)
			first.Command(t, "another one\n", "user", "passwd", "admin", "--password-stdin")
			everywhere("the administrator's old password", "admin", first.Password, http.StatusUnauthorized)
			everywhere("a login with the administrator's old password", "", login, http.StatusUnauthorized)
			everywhere("the administrator's new password", "admin", "another one", http.StatusOK)
		})
	}
}

// While commands change the database, the processes that share it go on answering.
func TestWritesDoNotDisturbReaders(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			first := harness.StartAuthserver(t, harness.Options{Policy: policy, Database: engine.url(t), RefreshTokens: true})
			second := first.Replica(t)
			first.AddUser(t, "alice", alicePassword)
			token, _ := first.AccessToken(t, "alice", "laptop")
			query := url.Values{"service": {first.Service}, "scope": {"repository:alice/app:pull"}, "offline_token": {"true"}}

			done := make(chan struct{})
			var readers, writers sync.WaitGroup
			for _, a := range []*harness.Authserver{first, second} {
				for _, password := range []string{alicePassword, token} { // a login with a password writes, too
					readers.Go(func() {
						for {
							select {
							case <-done:
								return
							case <-time.After(50 * time.Millisecond): // SQLite's lock is not fair
							}
							if answer := a.Get(t, "alice", password, query); answer.Status != http.StatusOK {
								t.Errorf("status %d: %s", answer.Status, answer.Body)
								return
							}
						}
					})
				}
			}
			for w := range 2 {
				writers.Go(func() {
					for i := range 5 {
						name := fmt.Sprintf("user-%d-%d", w, i)
						first.Command(t, "password\n", "user", "add", name, "--group", "everybody", "--password-stdin")
						first.Command(t, "", "token", "create", "--user", name, "--name", "one")
					}
				})
			}
			writers.Wait()
			close(done)
			readers.Wait()
			if members := strings.Fields(first.Command(t, "", "group", "list", "everybody")); len(members) != 10 {
				t.Errorf("%d of 10 accounts are in the group: %v", len(members), members)
			}
			if log := first.Log() + second.Log(); strings.Contains(log, "no refresh token could be given") {
				t.Error("a login got no refresh token")
			}
		})
	}
}

// A backup that was made while the database was in use is put in its place, as docs/accounts.md says.
func TestABackupIsRestored(t *testing.T) {
	a := harness.StartAuthserver(t, harness.Options{Policy: policy})
	query := url.Values{"service": {a.Service}}
	want := func(what, user, password string, status int) {
		t.Helper()
		becomes(t, what, status, func() harness.Answer { return a.Get(t, user, password, query) })
	}
	a.AddUser(t, "alice", alicePassword)
	token, _ := a.AccessToken(t, "alice", "laptop")
	want("before the backup", "alice", token, http.StatusOK)
	copied := filepath.Join(t.TempDir(), "copy.db")
	a.Command(t, "", "database", "backup", copied)
	a.Command(t, "", "user", "remove", "alice")
	a.AddUser(t, "bob", bobPassword)
	want("removed after the backup", "alice", token, http.StatusUnauthorized)

	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	database := filepath.Join(a.Dir, "data", "authserver.db")
	if err := os.Rename(copied, database); err != nil {
		t.Fatal(err)
	}
	for _, beside := range []string{"-wal", "-shm"} {
		if err := os.Remove(database + beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	a = a.Replica(t)
	want("of the backup", "alice", token, http.StatusOK)
	want("of the backup", "alice", alicePassword, http.StatusOK)
	want("added after the backup", "bob", bobPassword, http.StatusUnauthorized)
}
