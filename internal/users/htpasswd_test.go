package users_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/crypto/bcrypt"

	"authserver/internal/users"
)

// hash is a bcrypt hash of cost 4, or of the cost that is given.
func hash(t *testing.T, password string, cost ...int) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), append(cost, bcrypt.MinCost)[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func usersFile(t *testing.T, lines ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "users.htpasswd")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func loadUsers(t *testing.T, guard *users.Guard, lines ...string) *users.HTPasswd {
	t.Helper()
	if guard == nil {
		guard = users.NewGuard(users.GuardEvents{})
	}
	h, err := users.LoadHTPasswd(usersFile(t, lines...), guard)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func login(t *testing.T, h *users.HTPasswd, name, password string) error {
	t.Helper()
	p, err := h.Authenticate(t.Context(), users.Credentials{Username: name, Password: password})
	if err == nil && (p.Name != name || p.Kind != users.KindUser) {
		t.Errorf("%s is %+v", name, p)
	}
	if err != nil && (p.Name != "" || p.Kind != "") {
		t.Errorf("an error came with the principal %+v", p)
	}
	return err
}

func TestAUserOfTheFileIsKnownByItsPassword(t *testing.T) {
	h := loadUsers(t, nil, "alice:"+hash(t, "a"), "bob:"+hash(t, "b"))
	for _, c := range []struct {
		name, password string
		want           error
	}{
		{"alice", "a", nil},
		{"bob", "b", nil},
		{"alice", "b", users.ErrRefused},
		{"alice", "A", users.ErrRefused},
		{"alice", "", users.ErrRefused},
		{"Alice", "a", users.ErrUnknown},
		{"carol", "a", users.ErrUnknown},
		{"", "", users.ErrUnknown},
	} {
		if err := login(t, h, c.name, c.password); err != c.want {
			t.Errorf("%s/%s: %v, want %v", c.name, c.password, err, c.want)
		}
	}
	if h.Len() != 2 || h.Name() != "htpasswd" {
		t.Errorf("%d users of %s", h.Len(), h.Name())
	}
}

func TestAllFormsOfBcryptThatRegistriesReadAreRead(t *testing.T) {
	for _, form := range []string{"$2a$", "$2b$", "$2y$"} {
		h := loadUsers(t, nil, "alice:"+form+strings.TrimPrefix(hash(t, "a"), "$2a$"))
		if err := login(t, h, "alice", "a"); err != nil {
			t.Errorf("%s: %v", form, err)
		}
		if err := login(t, h, "alice", "b"); err != users.ErrRefused {
			t.Errorf("%s, wrong password: %v", form, err)
		}
	}
}

func TestANameInTheFileIsNormalised(t *testing.T) {
	h := loadUsers(t, nil, "rene\u0301:"+hash(t, "a")) // NFD, as macOS types it
	if err := login(t, h, "ren\u00e9", "a"); err != nil {
		t.Errorf("in NFC: %v", err)
	}
}

func TestEachByteOfA72ByteWordCounts(t *testing.T) {
	password := strings.Repeat("x", 71) + "y"
	h := loadUsers(t, nil, "alice:"+hash(t, password))
	if err := login(t, h, "alice", password); err != nil {
		t.Errorf("72 bytes: %v", err)
	}
	for _, wrong := range []string{password[:71], password[:71] + "z", password + "z", password + strings.Repeat("z", 1000)} {
		if err := login(t, h, "alice", wrong); err != users.ErrRefused {
			t.Errorf("%d bytes: %v", len(wrong), err)
		}
	}
}

func TestAnEmptyPasswordIsRefusedEvenIfItWasHashed(t *testing.T) {
	h := loadUsers(t, nil, "alice:"+hash(t, ""))
	if err := login(t, h, "alice", ""); err != users.ErrRefused {
		t.Error(err)
	}
}

func TestCommentsBlankLinesAndLineEndsArePassedOver(t *testing.T) {
	h := loadUsers(t, nil, "# users", "", "  # more: text", "\t", "alice:"+hash(t, "a")+"\r", "  bob:"+hash(t, "b")+"  ", "#carol:"+hash(t, "c"), "")
	if h.Len() != 2 {
		t.Errorf("%d users", h.Len())
	}
	for name, password := range map[string]string{"alice": "a", "bob": "b"} {
		if err := login(t, h, name, password); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFileWithoutUsersKnowsNobody(t *testing.T) {
	h := loadUsers(t, nil, "# nobody yet", "")
	if err := login(t, h, "alice", "a"); err != users.ErrUnknown {
		t.Error(err)
	}
}

func TestAMissingFileComesWithTheRemedy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.htpasswd")
	_, err := users.LoadHTPasswd(file, users.NewGuard(users.GuardEvents{}))
	if want := file + `: cannot be read: no such file or directory; "authserver user add NAME" makes one`; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("it is not fs.ErrNotExist")
	}
}

func TestEveryOtherHashIsRefusedWithItsLineItsNameAndTheRemedy(t *testing.T) {
	const only = ", only bcrypt can be used"
	good := hash(t, "a")
	for hash, want := range map[string]string{
		"$apr1$0adzfifu$tG":                        "the password is hashed with MD5 (apr1)" + only,
		"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=":        "the password is hashed with SHA-1" + only,
		"$1$0adzfifu$tGsecret":                     "the password is hashed with MD5-crypt" + only,
		"$5$0adzfifu$tGsecret":                     "the password is hashed with SHA-256-crypt" + only,
		"$6$0adzfifu$tGsecret":                     "the password is hashed with SHA-512-crypt" + only,
		"$2x$" + good[4:]:                          "the password is hashed with a bcrypt variant that cannot be trusted ($2x$)" + only,
		"$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aG": "the password is hashed with Argon2" + only,
		"$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94":   "the password is hashed with yescrypt" + only,
		"rqXexS6ZhobKA":                            "the password is not a bcrypt hash", // DES crypt
		"hunter2":                                  "the password is not a bcrypt hash", // in clear
		"":                                         "the password is not a bcrypt hash",
		"$2":                                       "the password is not a bcrypt hash",
		"$2$" + good[4:]:                           "the password is not a bcrypt hash",
		"$2c$" + good[4:]:                          "the password is not a bcrypt hash",
		"$3a$" + good[4:]:                          "the password is not a bcrypt hash",
		"$2a$":                                     "the bcrypt hash is damaged",
		good[:59]:                                  "the bcrypt hash is damaged",
		good + "x":                                 "the bcrypt hash is damaged",
		good + ":x":                                "the bcrypt hash is damaged",
		good[:59] + "!":                            "the bcrypt hash is damaged",
		good[:30] + "=" + good[31:]:                "the bcrypt hash is damaged",
		good[:6] + "." + good[7:]:                  "the bcrypt hash is damaged",
		"$2a$xx$" + good[7:]:                       "the bcrypt hash is damaged",
		"$2a$03$" + good[7:]:                       "the bcrypt hash is damaged",
		"$2a$32$" + good[7:]:                       "the bcrypt hash is damaged",
		"$2a$17$" + good[7:]:                       "bcrypt cost 17 would take seconds a login, at most 16 can be used",
		"$2y$31$" + good[7:]:                       "bcrypt cost 31 would take seconds a login, at most 16 can be used",
	} {
		file := usersFile(t, "# users", "bob:"+good, "alice:"+hash)
		h, err := users.LoadHTPasswd(file, users.NewGuard(users.GuardEvents{}))
		want := fmt.Sprintf(`%s:3: user "alice": %s; set the password anew with "authserver user passwd" or "htpasswd -B"`, file, want)
		if err == nil || err.Error() != want || h != nil {
			t.Errorf("%q:\n got %v\nwant %s", hash, err, want)
			continue
		}
		if len(hash) > 7 && strings.Contains(err.Error(), hash[7:]) {
			t.Errorf("the message repeats the hash: %v", err)
		}
	}
}

func TestAllFaultsOfAFileAreReportedWithoutWhatStandsThere(t *testing.T) {
	good := hash(t, "a")
	file := usersFile(t,
		"alice:"+good,                     // 1
		"hunter2",                         // 2
		":"+good,                          // 3
		"b\x00b:"+good,                    // 4
		"bob :"+good,                      // 5
		"c\xffc:"+good,                    // 6
		"carol:secret",                    // 7
		"alice:"+hash(t, "b"),             // 8
		"ren\u00e9:"+good,                 // 9
		"rene\u0301:"+good,                // 10
		strings.Repeat("x", 300)+":"+good, // 11
		"dave:"+good,                      // 12
	)
	_, err := users.LoadHTPasswd(file, users.NewGuard(users.GuardEvents{}))
	want := []string{
		":2: not a name:hash line",
		":3: a user name cannot be empty",
		":4: a user name cannot hold control or format characters",
		":5: a user name cannot begin or end with a blank",
		":6: a user name must be UTF-8",
		`:7: user "carol": the password is not a bcrypt hash; set the password anew with "authserver user passwd" or "htpasswd -B"`,
		`:8: user "alice" stands on line 1 already; remove one of them`,
		`:10: user "` + "ren\u00e9" + `" stands on line 9 already; remove one of them`,
		":11: a user name has at most 255 bytes",
	}
	if got := strings.Split(fmt.Sprint(err), "\n"+file); !slices.Equal(got, append([]string{file + want[0]}, want[1:]...)) {
		t.Errorf("got\n%v", err)
	}
	for _, secret := range []string{"hunter2", "secret", good} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the message repeats %q", secret)
		}
	}
}

// counted is a guard that adds up the work of the comparisons it makes: 1 for each at cost 4, 2 at 5, 4 at 6.
func counted() (*users.Guard, *atomic.Int64) {
	var n atomic.Int64
	return users.NewGuard(users.GuardEvents{Check: func(cost int) func() { return func() { n.Add(1 << (cost - 4)) } }}), &n
}

// A comparison at cost n is as much work as two at n-1. So a refusal at 4, 4 and 5 is one at 6.
func TestEveryRefusalIsAsMuchWorkAsOneAtTheHighestCostOfTheFile(t *testing.T) {
	guard, count := counted()
	h := loadUsers(t, guard, "middle:"+hash(t, "a", 5), "high:"+hash(t, "a", 6), "low:"+hash(t, "a", 4))
	chain := users.NewChain([]users.Authenticator{h}, guard, nil)
	for _, c := range []struct {
		name, password string
		work           int64
	}{
		{"high", "wrong", 4},
		{"middle", "wrong", 4}, // 5, 5
		{"low", "wrong", 4},    // 4, 4, 5
		{"nobody", "wrong", 4}, // 6
		{"low", "a", 1},
		{"high", "a", 4},
		// What bcrypt cannot tell apart costs nothing, for known and unknown users alike.
		{"low", strings.Repeat("x", 73), 0},
		{"nobody", strings.Repeat("x", 73), 0},
		{"low", "", 0},
		{"nobody", "", 0},
	} {
		count.Store(0)
		_, err := ask(t, chain, c.name, c.password)
		if (c.password == "a") != (err == nil) {
			t.Errorf("%s/%s: %v", c.name, c.password, err)
		}
		if got := count.Load(); got != c.work {
			t.Errorf("%s/%s: work %d, want %d", c.name, c.password, got, c.work)
		}
	}
}

func TestAnEmptyFileStillCostsAComparison(t *testing.T) {
	guard, count := counted()
	chain := users.NewChain([]users.Authenticator{loadUsers(t, guard, "# nobody")}, guard, nil)
	if _, err := ask(t, chain, "alice", "a"); err != users.ErrRefused || count.Load() != 1<<(users.DefaultCost-4) {
		t.Errorf("%v after work %d", err, count.Load())
	}
}

func TestTheNumberOfChecksAtOnceIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const limit = 2
		var started atomic.Int64
		release := make(chan struct{})
		guard := users.NewGuard(users.GuardEvents{Check: func(int) func() {
			started.Add(1)
			<-release
			return func() {}
		}})
		guard.Limit(users.Limits{Parallel: limit})
		// Two backends share the bound. Everybody is somebody else: the same question is asked once.
		lines := []string{"alice:" + hash(t, "a")}
		for i := range limit + 1 {
			lines = append(lines, fmt.Sprintf("user%d:%s", i, hash(t, "a")))
		}
		backends := []*users.HTPasswd{loadUsers(t, guard, lines...), loadUsers(t, guard, lines...)}
		var wg sync.WaitGroup
		for i := range limit + 1 {
			wg.Go(func() {
				if err := login(t, backends[i%2], fmt.Sprintf("user%d", i), "a"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := started.Load(); n != limit {
			t.Errorf("%d checks at once, the bound is %d", n, limit)
		}
		// Who gives up waiting was not checked, and so is neither known nor refused.
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for i := range 20 {
			p, err := backends[i%2].Authenticate(gone, users.Credentials{Username: "alice", Password: "a"})
			if !errors.Is(err, context.Canceled) || errors.Is(err, users.ErrRefused) || p.Name != "" {
				t.Errorf("past the bound: %+v, %v", p, err)
			}
		}
		close(release)
		wg.Wait()
		if n := started.Load(); n != limit+1 {
			t.Errorf("%d checks, want %d", n, limit+1)
		}
	})
}

func TestARequestThatIsGoneIsNoRefusalInTheChain(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	guard := users.NewGuard(users.GuardEvents{Check: func(int) func() {
		entered <- struct{}{}
		<-release
		return func() {}
	}})
	h := loadUsers(t, guard, "alice:"+hash(t, "a"))
	var wg sync.WaitGroup
	wg.Go(func() { _ = login(t, h, "alice", "a") })
	<-entered
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := users.NewChain([]users.Authenticator{h}, guard, nil).Authenticate(gone, users.Credentials{Username: "alice", Password: "a"})
	if want := "users backend htpasswd: context canceled"; err == nil || err.Error() != want || errors.Is(err, users.ErrRefused) {
		t.Errorf("got %v, want %s", err, want)
	}
	close(release)
	wg.Wait()
}
