package main

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"authserver/internal/config"
	"authserver/internal/document"
	"authserver/internal/users"
)

// ours are the commands that TestDocumentedCommands runs, on pages that say nothing else.
var ours = regexp.MustCompile(`(?m)^\$ authserver (acl|config|key|user|group|token|database|import|version) `)

// Every block of commands is run by a test, or says why it cannot be. Who runs it stands right above it:
//
//	<!-- run by TestName -->  or  <!-- run by TestName/part -->  or  <!-- not run: reason -->
func TestEveryShownCommandIsRun(t *testing.T) {
	tests := testsOf(t)
	runBy := regexp.MustCompile(`^run by (Test[A-Za-z0-9]+)(/[a-z0-9-]+)?$`)
	for _, p := range book(t) {
		for _, b := range p.blocks {
			switch b.language {
			case "sh", "bash", "shell", "shell-session", "terminal":
				if !strings.HasPrefix(b.text, "#!") && !strings.HasPrefix(b.text, "# ") && !strings.HasPrefix(b.note, "from ") {
					t.Errorf("%s: what is to be typed stands in ```console, with \"$ \"; a script begins with #! or its name in a comment", p.at(b.number))
				}
				continue
			case "console":
			default:
				if regexp.MustCompile(`(?m)^\$ `).MatchString(b.text) {
					t.Errorf("%s: commands in a block that is not ```console", p.at(b.number))
				}
				continue
			}
			commands := regexp.MustCompile(`(?m)^\$ `).FindAllString(b.text, -1)
			name := runBy.FindStringSubmatch(b.note)
			switch {
			case len(commands) == 0:
				t.Errorf("%s: no command in ```console: it begins with \"$ \"", p.at(b.number))
			case name != nil && tests[name[1]] == nil:
				t.Errorf("%s: there is no %s", p.at(b.number), name[1])
			case name != nil && !slices.ContainsFunc(tests[name[1]], func(source string) bool { return names(source, p.path) }):
				t.Errorf("%s: the package of %s does not name %s", p.at(b.number), name[1], p.path)
			case name != nil:
			case strings.HasPrefix(b.note, "not run: ") && len(b.note) > len("not run: ")+10:
			case strings.HasPrefix(b.note, "not run") || strings.HasPrefix(b.note, "run by"):
				t.Errorf("%s: %q is not to be understood; would be right: run by TestName, run by TestName/part, not run: reason", p.at(b.number), b.note)
			case ours.MatchString(b.text) && (strings.HasPrefix(p.path, "docs/") || p.path == "README.md"): // by TestDocumentedCommands
			default:
				t.Errorf("%s: nothing runs this; put <!-- run by TestName --> or <!-- not run: reason --> right above it", p.at(b.number))
			}
		}
		for _, l := range p.prose {
			if strings.HasPrefix(l.text, "    $ ") {
				t.Errorf("%s: a command in an indented block; put it in ```console", p.at(l.number))
			}
		}
	}
}

// names tells whether a test reads a page: by its path, by folder and name, or as all that is in a folder.
func names(source, file string) bool {
	folder, name := path.Split(file)
	return strings.Contains(source, file) ||
		strings.Contains(source, folder) && (strings.Contains(source, `"`+strings.TrimSuffix(name, ".md")+`"`) || strings.Contains(source, `"*.md"`))
}

// testsOf is every test of the project, with the tests of the packages that have one of that name.
func testsOf(t *testing.T) map[string][]string {
	t.Helper()
	function := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
	sources := map[string]string{} // of a package
	for _, folder := range []string{"cmd", "internal", "e2e"} {
		err := filepath.WalkDir(filepath.Join(home, folder), func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(file, "_test.go") {
				return err
			}
			source, err := os.ReadFile(file)
			sources[filepath.Dir(file)] += string(source)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string][]string{}
	for _, source := range sources {
		for _, m := range function.FindAllStringSubmatch(source, -1) {
			tests[m[1]] = append(tests[m[1]], source)
		}
	}
	return tests
}

// What pages say of our commands and their flags is so, in blocks and in the middle of a sentence.
func TestShownCommandsExist(t *testing.T) {
	root := (&hand{}).program(new(bool))
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	checked := 0
	try := func(where, command string) {
		for _, words := range calls(root, command) {
			checked++
			if problem := fits(root, words); problem != "" {
				t.Errorf("%s: %s: %s", where, command, problem)
			}
		}
	}
	for _, p := range book(t) {
		for _, l := range p.prose {
			for _, m := range codeSpan.FindAllStringSubmatch(l.text, -1) {
				words := strings.Fields(m[1])
				if found, _, err := root.Find(words); err == nil && found.Parent() != nil && found.Parent() != root { // `token list`
					m[1] = "authserver " + m[1]
				}
				try(p.at(l.number), m[1])
			}
		}
		for _, b := range p.blocks {
			if b.language == "console" || b.language == "sh" || b.language == "bash" {
				for command := range strings.SplitSeq(strings.ReplaceAll(b.text, "\\\n", " "), "\n") {
					try(p.at(b.number), strings.TrimPrefix(command, "$ "))
				}
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d commands were found", checked)
	}
}

var (
	quoted    = regexp.MustCompile(`'[^']*'|"[^"]*"`)
	ends      = regexp.MustCompile(`[|;&>]+|\s#\s|\$\(`)
	isProgram = regexp.MustCompile(`^(\S*/)?authserver$`)
)

// calls are the words behind each "authserver" of a line that is our program, and not a container or a unit of that name.
func calls(root *cobra.Command, command string) (all [][]string) {
	for _, part := range ends.Split(quoted.ReplaceAllString(command, "QUOTED"), -1) {
		words := strings.Fields(part)
		at := -1
		for i, word := range words {
			if isProgram.MatchString(word) {
				at = i
			}
		}
		if at < 0 || at == len(words)-1 {
			continue
		}
		words = words[at:]
		found, _, err := root.Find(words[1:2])
		if at == 0 || err == nil && found != root {
			all = append(all, words[1:])
		}
	}
	return all
}

// fits says what is wrong with a call: a command or a flag that does not exist.
func fits(root *cobra.Command, words []string) string {
	cmd := root
	for i, word := range words {
		switch {
		case strings.HasPrefix(word, "-") && word != "-":
			name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
			known := name == "help" || name == "h"
			for _, flags := range []interface{ FlagUsages() string }{cmd.Flags(), cmd.InheritedFlags(), cmd.PersistentFlags()} {
				for _, f := range flagsOf(flags.FlagUsages()) {
					known = known || f.name == name || f.short == name
				}
			}
			if !known {
				return "there is no " + word
			}
		case cmd.HasSubCommands() && (i == 0 || !strings.HasPrefix(words[i-1], "-")) && regexp.MustCompile(`^[a-z]`).MatchString(word):
			var next *cobra.Command
			for _, one := range strings.Split(word, `|`) {
				found, _, err := cmd.Find([]string{one})
				if err != nil || found == cmd {
					return "there is no command " + one
				}
				next = found
			}
			cmd = next
		}
	}
	return ""
}

var (
	variable = regexp.MustCompile(`\bAUTHSERVER_[A-Z0-9]+(?:__[A-Z0-9_]+)+`)
	keyPath  = regexp.MustCompile(`^[a-z_]+(\[\])?(\.[a-z_]+(\[\])?)+$`)
	isFile   = regexp.MustCompile(`\.(crt|key|pem|yaml|yml|json|db|log|htpasswd|env|md|go|sock|service|socket|toml|conf|rego|token|example|test)$`)
)

// Keys of the configuration that a page names exist: by path, as a variable, with --set, and in YAML.
func TestNamedKeysExist(t *testing.T) {
	known := map[string]bool{}
	configKeys(reflect.TypeFor[config.Config](), "", known)
	configKeys(reflect.TypeFor[users.HTPasswdOptions](), "users[].", known)
	configKeys(reflect.TypeFor[users.DatabaseOptions](), "users[].", known)
	known["users[].kind"] = true
	checked := 0
	try := func(where, key string) {
		section, _, _ := strings.Cut(key, ".")
		if known[strings.TrimSuffix(section, "[]")] || known[section] {
			checked++
			if !known[key] && !known[regexp.MustCompile(`\[\d+\]`).ReplaceAllString(key, "[]")] {
				t.Errorf("%s: there is no key %s", where, key)
			}
		}
	}
	set := regexp.MustCompile(`--set[ =]['"]?([a-z_.\[\]]+)=`)
	for _, p := range book(t) {
		if p.path == "docs/docker-auth.md" || strings.HasPrefix(p.path, "docs/migrating/") {
			continue // they name somebody else's keys
		}
		for _, l := range p.prose {
			for _, m := range codeSpan.FindAllStringSubmatch(l.text, -1) {
				key, _, _ := strings.Cut(m[1], ":")
				if keyPath.MatchString(key) && !isFile.MatchString(key) {
					try(p.at(l.number), key)
				}
			}
		}
		for _, b := range p.blocks {
			for _, m := range set.FindAllStringSubmatch(b.text, -1) {
				try(p.at(b.number), m[1])
			}
			for _, name := range variable.FindAllString(b.text, -1) {
				try(p.at(b.number), strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "AUTHSERVER_"), "__", ".")))
			}
			if b.language == "yaml" {
				checked += fragment(t, p.at(b.number), b.text, known)
			}
		}
	}
	if checked < 120 {
		t.Errorf("only %d keys were found", checked)
	}
}

// configKeys are the paths of keys, and of what holds keys.
func configKeys(t reflect.Type, above string, known map[string]bool) {
	for field := range t.Fields() {
		name := field.Tag.Get("yaml")
		if name == "" {
			continue
		}
		known[above+name] = true
		switch kind := field.Type; {
		case kind.Kind() == reflect.Struct:
			configKeys(kind, above+name+".", known)
		case kind.Kind() == reflect.Slice:
			known[above+name+"[]"] = true
			if kind.Elem().Kind() == reflect.Struct {
				configKeys(kind.Elem(), above+name+"[].", known)
			}
		}
	}
}

// fragment reads a piece of authserver.yaml, if it is one, as strictly as the whole: it returns the number of its keys.
func fragment(t *testing.T, where, text string, known map[string]bool) int {
	d, err := document.Parse(where, []byte(text))
	if err != nil {
		return 0 // another kind of file, or one with several documents
	}
	for key := range d.Root {
		if !known[key] {
			return 0
		}
	}
	c := config.Defaults()
	if err := document.Decode("", d.Root, &c, d.Where); err != nil {
		t.Errorf("%s: %v", where, err)
	}
	return strings.Count(text, ":")
}
