package users_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"authserver/internal/users"
)

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mode(t *testing.T, file string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func edit(file string) users.HTPasswdFile { return users.HTPasswdFile{Path: file, Cost: 4} }

func TestTheFirstUserMakesTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.htpasswd")
	if err := edit(file).Add("alice", "a"); err != nil {
		t.Fatal(err)
	}
	if m := mode(t, file); m != 0o600 {
		t.Errorf("mode %v", m)
	}
	text := read(t, file)
	if !strings.HasPrefix(text, "alice:$2a$04$") || strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
		t.Errorf("the file is %q", text)
	}
	h, err := users.LoadHTPasswd(file, users.NewGuard(users.GuardEvents{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := login(t, h, "alice", "a"); err != nil {
		t.Error(err)
	}
}

// before is a file as somebody keeps it, of mode 0640.
func before(t *testing.T) (file string, lines []string) {
	t.Helper()
	lines = []string{"# team red", "zoe:" + hash(t, "z"), "", "  # team blue", "alice:$2y$" + hash(t, "a")[4:], "bob:" + hash(t, "b"), "# the end"}
	file = usersFile(t, append(lines, "")...)
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	return file, lines
}

func TestAnEditKeepsCommentsOrderAndMode(t *testing.T) {
	for name, c := range map[string]struct {
		change func(users.HTPasswdFile) error
		want   func(lines []string) []string // "alice:*" is any hash
	}{
		"add": {
			func(f users.HTPasswdFile) error { return f.Add("carol", "c") },
			func(lines []string) []string { return append(lines, "carol:*") },
		},
		"passwd": {
			func(f users.HTPasswdFile) error { return f.SetPassword("alice", "new") },
			func(lines []string) []string { lines[4] = "alice:*"; return lines },
		},
		"remove": {
			func(f users.HTPasswdFile) error { return f.Remove("alice") },
			func(lines []string) []string { return slices.Delete(lines, 4, 5) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			file, lines := before(t)
			if err := c.change(edit(file)); err != nil {
				t.Fatal(err)
			}
			want := c.want(lines)
			got := strings.Split(strings.TrimSuffix(read(t, file), "\n"), "\n")
			for i, line := range want {
				if prefix, any := strings.CutSuffix(line, "*"); any && i < len(got) {
					if !strings.HasPrefix(got[i], prefix+"$2a$04$") {
						t.Errorf("line %d is %q", i+1, got[i])
					}
					got[i] = line
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			if m := mode(t, file); m != 0o640 {
				t.Errorf("mode %v", m)
			}
		})
	}
}

func TestANewPasswordReplacesTheOld(t *testing.T) {
	file, _ := before(t)
	if err := edit(file).SetPassword("alice", "new"); err != nil {
		t.Fatal(err)
	}
	h, err := users.LoadHTPasswd(file, users.NewGuard(users.GuardEvents{}))
	if err != nil {
		t.Fatal(err)
	}
	if old, now := login(t, h, "alice", "a"), login(t, h, "alice", "new"); old != users.ErrRefused || now != nil {
		t.Errorf("old password: %v, new password: %v", old, now)
	}
	if err := login(t, h, "bob", "b"); err != nil {
		t.Errorf("another user: %v", err)
	}
}

func TestNamesAreListedInTheOrderOfTheFile(t *testing.T) {
	file, _ := before(t)
	names, err := edit(file).Names()
	if err != nil || !slices.Equal(names, []string{"zoe", "alice", "bob"}) {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := edit(file + ".missing").Names(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestRemovingTheLastUserLeavesAnEmptyFile(t *testing.T) {
	file := usersFile(t, "alice:"+hash(t, "a"), "")
	if err := edit(file).Remove("alice"); err != nil {
		t.Fatal(err)
	}
	if text := read(t, file); text != "" {
		t.Errorf("the file is %q", text)
	}
	if err := edit(file).Add("bob", "b"); err != nil {
		t.Fatal(err)
	}
	if text := read(t, file); !strings.HasPrefix(text, "bob:") {
		t.Errorf("the file is %q", text)
	}
}

func TestALastLineWithoutItsEndIsNotGluedTo(t *testing.T) {
	file := usersFile(t, "alice:"+hash(t, "a")) // no line end
	if err := edit(file).Add("bob", "b"); err != nil {
		t.Fatal(err)
	}
	names, err := edit(file).Names()
	if err != nil || !slices.Equal(names, []string{"alice", "bob"}) {
		t.Errorf("%q, %v", names, err)
	}
}

func TestEditsFindAUserByItsCanonicalName(t *testing.T) {
	file := usersFile(t, "ren\u00e9:"+hash(t, "a"), "")
	if err := edit(file).Add("rene\u0301", "b"); !errors.Is(err, users.ErrExists) {
		t.Errorf("adding: %v", err)
	}
	if err := edit(file).SetPassword("rene\u0301", "b"); err != nil {
		t.Errorf("setting: %v", err)
	}
	if err := edit(file).Remove("rene\u0301"); err != nil {
		t.Errorf("removing: %v", err)
	}
	if text := read(t, file); text != "" {
		t.Errorf("the file is %q", text)
	}
}

func TestARefusedEditLeavesTheFileUntouched(t *testing.T) {
	file, _ := before(t)
	was := read(t, file)
	f := edit(file)
	for name, c := range map[string]struct {
		err  error
		is   error
		want string
	}{
		"taken":           {f.Add("alice", "x"), users.ErrExists, `user "alice" in ` + file + `: the user exists already; "user passwd" changes a password`},
		"missing":         {f.SetPassword("carol", "x"), users.ErrMissing, `user "carol" in ` + file + `: there is no such user`},
		"missing, remove": {f.Remove("carol"), users.ErrMissing, `user "carol" in ` + file + `: there is no such user`},
		"colon":           {f.Add("a:b", "x"), nil, "a user name cannot hold a colon"},
		"line end":        {f.Add("a\nb:x", "x"), nil, "a user name cannot hold control or format characters"},
		"control":         {f.Add("a\nb", "x"), nil, "a user name cannot hold control or format characters"},
		"comment":         {f.Add("#a", "x"), nil, "a user name in an htpasswd file cannot begin with #: the line would be a comment"},
		"long password":   {f.Add("carol", strings.Repeat("x", 73)), nil, "a password has at most 72 bytes (bcrypt reads no more)"},
		"long new one":    {f.SetPassword("alice", strings.Repeat("x", 73)), nil, "a password has at most 72 bytes (bcrypt reads no more)"},
	} {
		if c.err == nil || c.err.Error() != c.want || c.is != nil && !errors.Is(c.err, c.is) {
			t.Errorf("%s:\n got %v\nwant %s", name, c.err, c.want)
		}
	}
	if read(t, file) != was {
		t.Error("the file was changed")
	}
}

// The remedy for a hash that cannot be used is a new password, whatever else is wrong with the file.
func TestADamagedLineIsMendedByANewPassword(t *testing.T) {
	file := usersFile(t, "alice:$apr1$x$y", "bob:{SHA}x", "hunter2", "carol:"+hash(t, "a"), "dave:")
	if _, err := edit(file).Names(); err == nil {
		t.Error("names of a damaged file were listed")
	}
	for name, err := range map[string]error{
		"passwd": edit(file).SetPassword("alice", "b"), "remove": edit(file).Remove("bob"), "add": edit(file).Add("erin", "e"),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := edit(file).Add("dave", "d"); !errors.Is(err, users.ErrExists) {
		t.Errorf("a name that stands on a damaged line: %v", err)
	}
	lines := strings.Split(read(t, file), "\n")
	if len(lines) != 6 || !strings.HasPrefix(lines[0], "alice:$2a$") || lines[1] != "hunter2" || !strings.HasPrefix(lines[2], "carol:$2") || lines[3] != "dave:" || !strings.HasPrefix(lines[4], "erin:$2a$") {
		t.Errorf("lines %q", lines)
	}
}

func TestAFolderThatIsNotThereIsNotMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	if err := edit(filepath.Join(dir, "users.htpasswd")).Add("alice", "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the folder was made")
	}
}

func TestEditsAtOnceLoseNothing(t *testing.T) {
	file := usersFile(t, "# users", "gone:"+hash(t, "a"), "")
	var wg sync.WaitGroup
	errs := make(chan error, 20)
	want := []string{}
	for i := range 8 {
		name := fmt.Sprintf("user%02d", i)
		want = append(want, name)
		wg.Go(func() { errs <- edit(file).Add(name, "a") })
	}
	wg.Go(func() { errs <- edit(file).Remove("gone") })
	for range 10 { // a reader sees a whole file at any time
		wg.Go(func() {
			_, err := users.LoadHTPasswd(file, users.NewGuard(users.GuardEvents{}))
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	names, err := edit(file).Names()
	slices.Sort(names)
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("%q, %v", names, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".users*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestALinkStaysALink(t *testing.T) {
	real := usersFile(t, "alice:"+hash(t, "a"), "")
	link := filepath.Join(t.TempDir(), "users.htpasswd")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if err := edit(link).Add("bob", "b"); err != nil {
		t.Fatal(err)
	}
	if mode(t, link)&fs.ModeSymlink == 0 {
		t.Error("the link was replaced by a file")
	}
	names, err := edit(real).Names()
	if err != nil || !slices.Equal(names, []string{"alice", "bob"}) {
		t.Errorf("behind the link: %q, %v", names, err)
	}
}

func TestHashPasswordRefusesWhatNobodyCouldLogInWith(t *testing.T) {
	for password, want := range map[string]string{
		"":                      "a password cannot be empty",
		strings.Repeat("x", 73): "a password has at most 72 bytes (bcrypt reads no more)",
	} {
		if h, err := users.HashPassword(password, 4); err == nil || err.Error() != want || h != "" {
			t.Errorf("%d bytes: %q, %v; want %s", len(password), h, err, want)
		}
	}
	h, err := users.HashPassword(strings.Repeat("x", 72), 5)
	if err != nil || !strings.HasPrefix(h, "$2a$05$") {
		t.Errorf("72 bytes: %q, %v", h, err)
	}
	if _, err := users.HashPassword("a", 32); err == nil {
		t.Error("a cost that bcrypt does not have was taken")
	}
}

// Two configurations may name one file, one of them through a link: they must wait for each other.
func TestEditsThroughALinkLoseNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		path := []string{file, link}[i%2]
		wg.Go(func() {
			if err := (users.HTPasswdFile{Path: path, Cost: 4}).Add(fmt.Sprintf("user%d", i), "x"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	names, err := users.HTPasswdFile{Path: file}.Names()
	if err != nil || len(names) != 8 {
		t.Errorf("%d users, %v", len(names), err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v: a registry may read the same file", info.Mode(), err)
	}
}

func TestResetLeavesOneUser(t *testing.T) {
	file := users.HTPasswdFile{Path: filepath.Join(t.TempDir(), "users"), Cost: 4}
	if err := os.WriteFile(file.Path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][2]string{{"#a", "x"}, {"a:b", "x"}, {"a", ""}, {"a", strings.Repeat("x", 73)}} {
		if err := file.Reset(bad[0], bad[1]); err == nil {
			t.Errorf("%q, %q: taken", bad[0], bad[1])
		}
	}
	if text, _ := os.ReadFile(file.Path); string(text) != "damaged" {
		t.Errorf("a refused reset wrote %q", text)
	}
	if err := file.Reset("admin", "x"); err != nil {
		t.Fatal(err)
	}
	if names, err := file.Names(); err != nil || len(names) != 1 || names[0] != "admin" {
		t.Errorf("%q, %v", names, err)
	}
}

func TestAnEmptyPasswordIsRefusedAndChangesNothing(t *testing.T) {
	file := users.HTPasswdFile{Path: filepath.Join(t.TempDir(), "users"), Cost: 4}
	if err := file.Add("alice", "x"); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(file.Path)
	for name, err := range map[string]error{"add": file.Add("bob", ""), "passwd": file.SetPassword("alice", "")} {
		if err == nil || !strings.Contains(err.Error(), "a password cannot be empty") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after, _ := os.ReadFile(file.Path); string(after) != string(before) {
		t.Errorf("the file reads %q", after)
	}
}
