package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/internal/store"
	"authserver/internal/users"
)

// writerVariable makes this test program a writer: NAME URL DIR, tab-separated.
const writerVariable = "TEST_STORE_WRITER"

func TestMain(m *testing.M) {
	if what := os.Getenv(writerVariable); what != "" {
		f := strings.Split(what, "\t")
		if err := write(os.Stdout, f[0], store.Config{URL: f[1], Dir: f[2], MaxConnections: 2, Timeout: 10 * time.Second}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// write changes the database until it is killed: it acknowledges every change on a line of its own when, and not
// before, the store has said that it is done. All names begin with prefix.
func write(out io.Writer, prefix string, c store.Config) error {
	ctx := context.Background()
	s, err := store.Open(ctx, c)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		a, g := fmt.Sprintf("%s-%d", prefix, i), fmt.Sprintf("%s-group-%d", prefix, i)
		steps := []struct {
			done string
			do   func() error
		}{
			{"account " + a, func() error {
				return s.AddAccount(ctx, users.Account{Name: a, Kind: users.KindUser, Password: "old", Created: now})
			}},
			{"group " + g, func() error { return s.AddGroup(ctx, g, now) }},
			{"member " + g + " " + a, func() error { return s.AddMember(ctx, g, a) }},
			{"access " + a + "-1", func() error {
				return s.AddAccessToken(ctx, a+"-1", users.AccessToken{ID: a + "-1", Owner: a, Backend: "database", Name: "one", Created: now})
			}},
			{"access " + a + "-2", func() error {
				return s.AddAccessToken(ctx, a+"-2", users.AccessToken{ID: a + "-2", Owner: a, Backend: "database", Name: "two", Created: now})
			}},
			{"refresh " + a, func() error {
				return s.AddRefreshToken(ctx, a, users.RefreshToken{ID: a, Owner: a, Backend: "database", Mark: "old", Created: now, LastUsed: now})
			}},
			{"revoked " + a + "-1", func() error { return s.RevokeAccessToken(ctx, a+"-1") }},
			{"password " + a, func() error { return s.SetPassword(ctx, a, "new", now) }},
			{"disabled " + a, func() error { return s.SetDisabled(ctx, a, true, now) }},
			{"removed " + a, func() error { return s.RemoveAccount(ctx, a) }},
			{"nogroup " + g, func() error { return s.RemoveGroup(ctx, g) }},
		}
		// Every account stops at another step, so that the database holds all states.
		for _, step := range steps[:1+i%len(steps)] {
			if err := step.do(); err != nil {
				return fmt.Errorf("%s: %w", step.done, err)
			}
			if _, err := fmt.Fprintln(out, step.done); err != nil {
				return err
			}
		}
	}
}

// Processes that write to one database are killed at any moment, the first of them while they make the tables. What they
// were told is done is done; what they were not told is done as a whole or not at all.
func TestKilledWriters(t *testing.T) {
	engines(t, func(t *testing.T, c store.Config) {
		const writers, writes = 3, 1000
		self, err := os.Executable()
		must(t, err)
		var lock sync.Mutex
		acknowledged, killed := []string{}, 0
		count := func() int {
			lock.Lock()
			defer lock.Unlock()
			return len(acknowledged)
		}
		// life starts a writer, kills it after a time, and keeps what it has acknowledged.
		life := func(prefix string, after time.Duration) {
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), writerVariable+"="+prefix+"\t"+c.URL+"\t"+c.Dir)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer time.AfterFunc(after, func() { _ = cmd.Process.Kill() }).Stop()
			lines := bufio.NewReader(out)
			for {
				line, err := lines.ReadString('\n')
				if err != nil { // half a line is no word
					break
				}
				lock.Lock()
				acknowledged = append(acknowledged, strings.TrimSuffix(line, "\n"))
				lock.Unlock()
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
				t.Errorf("writer %s was not killed: %v", prefix, err)
			}
			lock.Lock()
			killed++
			lock.Unlock()
		}
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				// The more lives, the longer, so that it comes to an end on a slow machine, too.
				for n := 0; count() < writes && !t.Failed(); n++ {
					life(fmt.Sprintf("w%d-%d", w, n), time.Duration(rand.Int64N(int64(40+5*n)))*time.Millisecond)
				}
			})
		}
		all.Wait()
		t.Logf("%d changes were acknowledged by %d processes before they were killed", len(acknowledged), killed)
		wantWhole(t, c, acknowledged)
	})
}

// wantWhole checks a database against what its writers have acknowledged.
func wantWhole(t *testing.T, c store.Config, acknowledged []string) {
	t.Helper()
	s, ctx := open(t, c), t.Context()
	if strings.HasPrefix(c.URL, "sqlite:") {
		var says string
		if must(t, s.DB().QueryRow("PRAGMA integrity_check").Scan(&says)); says != "ok" {
			t.Errorf("integrity_check: %s", says)
		}
	}

	accounts := map[string]users.Account{}
	for after := ""; ; {
		list, err := s.Accounts(ctx, after, 100)
		must(t, err)
		if len(list) == 0 {
			break
		}
		for _, a := range list {
			full, err := s.Account(ctx, a.Name)
			must(t, err)
			accounts[a.Name], after = full, a.Name
		}
	}
	groups, err := s.Groups(ctx)
	must(t, err)
	hasGroup := map[string]bool{}
	for _, g := range groups {
		hasGroup[g] = true
	}
	hasAccess, hasRefresh := func(id string) bool {
		_, err := s.AccessToken(ctx, id)
		return err == nil
	}, func(id string) bool {
		_, err := s.RefreshToken(ctx, id)
		return err == nil
	}

	// The last step that was acknowledged of each account, and what must be there after it. The next one may have been
	// done, too.
	last := map[string]int{}
	order := []string{"account", "group", "member", "access", "access", "refresh", "revoked", "password", "disabled", "removed", "nogroup"}
	for _, line := range acknowledged {
		f := strings.Fields(line)
		var account string
		step := slices.Index(order, f[0])
		switch f[0] {
		case "access", "revoked":
			account = f[1][:len(f[1])-2]
			if f[0] == "access" && strings.HasSuffix(f[1], "-2") {
				step++
			}
		case "group", "nogroup":
			account = strings.Replace(f[1], "-group-", "-", 1)
		case "member":
			account = f[2]
		default:
			account = f[1]
		}
		last[account] = max(last[account], step)
	}
	for name, step := range last {
		i := strings.LastIndexByte(name, '-')
		group := name[:i] + "-group" + name[i:]
		a, there := accounts[name]
		// state tells how far the account has come, and fails when it is between two steps.
		type state struct {
			account, group, member, access1, access2, refresh bool
			password                                          string
			disabled                                          bool
		}
		got := state{there, hasGroup[group], slices.Contains(a.Groups, group), hasAccess(name + "-1"), hasAccess(name + "-2"), hasRefresh(name), a.Password, a.Disabled}
		states := []state{
			{account: true, password: "old"},
			{account: true, group: true, password: "old"},
			{account: true, group: true, member: true, password: "old"},
			{account: true, group: true, member: true, access1: true, password: "old"},
			{account: true, group: true, member: true, access1: true, access2: true, password: "old"},
			{account: true, group: true, member: true, access1: true, access2: true, refresh: true, password: "old"},
			{account: true, group: true, member: true, access2: true, refresh: true, password: "old"},
			{account: true, group: true, member: true, access2: true, password: "new"},
			{account: true, group: true, member: true, access2: true, password: "new", disabled: true},
			{group: true},
			{},
		}
		if got != states[step] && (step+1 == len(states) || got != states[step+1]) {
			t.Errorf("%s: acknowledged up to %s; it is %+v", name, order[step], got)
		}
	}

	// Whoever is nobody's: rows that a killed process has begun, or has left behind.
	for what, query := range map[string]string{
		"memberships without an account": "SELECT COUNT(*) FROM memberships WHERE account NOT IN (SELECT name FROM accounts)",
		"memberships without a group":    "SELECT COUNT(*) FROM memberships WHERE group_name NOT IN (SELECT name FROM account_groups)",
		"access tokens without an owner": "SELECT COUNT(*) FROM access_tokens WHERE owner NOT IN (SELECT name FROM accounts)",
		"logins without an owner":        "SELECT COUNT(*) FROM refresh_tokens WHERE owner NOT IN (SELECT name FROM accounts)",
		"logins with an old password":    "SELECT COUNT(*) FROM refresh_tokens r JOIN accounts a ON a.name = r.owner WHERE a.password <> r.mark",
	} {
		var n int
		if must(t, s.DB().QueryRow(query).Scan(&n)); n != 0 {
			t.Errorf("%d %s", n, what)
		}
	}

	// And it can be written to.
	must(t, s.AddAccount(ctx, users.Account{Name: "afterwards", Kind: users.KindUser, Created: now}))
}
