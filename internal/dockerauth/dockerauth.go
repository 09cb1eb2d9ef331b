// Package dockerauth reads a configuration of cesanta/docker_auth (1.14, examples/reference.yml) and says the same in ours.
//
// docker_auth's ACL is a list: the first entry that matches a resource decides, and grants what is both asked and in its
// actions (auth_server/authz/acl.go). So the policy is first-applicable, and an entry becomes two rules: what it allows,
// and behind it a deny rule for the rest, because nothing below it counts any more.
//
// What an entry matches is said with the patterns of our policy where they can say it, else with a condition. Where the
// meaning is dangerous it is kept, and a note says so; Options.Safe writes the safe form.
package dockerauth

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Options say what docker_auth's configuration does not.
type Options struct {
	Safe      bool     // write the safe form of what is dangerous
	Services  []string // names of the registries: their auth.token.service
	PublicURL string   // where clients reach us; "" = guessed
	// Exists tells whether a file that the configuration names is here.
	Exists func(file string) bool
	// Check reads one policy as the server will. A rule that it refuses is lost.
	Check func(policy []byte) error
}

// Result is a configuration of ours.
type Result struct {
	Config, Policy, Users []byte // authserver.yaml, policy.yaml, users.htpasswd
	Entries, Rules        int    // of their list, of our policy
	Notes                 []Note // by line
}

// Severity tells a change of meaning that was avoided from one that was not.
type Severity string

const (
	Warning Severity = "warning" // carried over; the operator should know
	Lost    Severity = "lost"    // not carried over
)

// Note is something to know about one place of docker_auth's configuration.
type Note struct {
	Severity Severity
	Where    string // file:line
	Key      string // as in acl[3].match.name
	Text     string
	line     int
}

func (n Note) String() string { return fmt.Sprintf("%s: %s: %s", n.Where, n.Key, n.Text) }

// DefaultService is the name of the registry when nothing says it.
const DefaultService = "registry.local"

// Convert reads data; file only names it.
func Convert(file string, data []byte, o Options) (*Result, error) {
	theirs, err := read(file, data)
	if err != nil {
		return nil, err
	}
	c := &converter{options: o, file: file, base: filepath.Base(file), theirs: theirs}
	for _, u := range theirs.users {
		c.anonymous = c.anonymous || u.name == "" && !u.hasPassword
	}
	c.services = c.findServices()
	r := &Result{Entries: len(theirs.acl), Users: c.users()}
	r.Policy, r.Rules = c.policy()
	r.Config = c.config()
	slices.SortStableFunc(c.notes, func(a, b Note) int { return cmp.Compare(a.line, b.line) })
	r.Notes = c.notes
	if err := o.Check(r.Policy); err != nil {
		return nil, errors.Join(errors.New("the policy that was made of it cannot be read; this is a fault of the import"), err)
	}
	return r, nil
}

type converter struct {
	options   Options
	file      string
	base      string // its name without folders, which is none of the reader's business
	theirs    *configuration
	anonymous bool     // users may be anonymous
	services  []string // that are served
	notes     []Note
}

func (c *converter) note(severity Severity, line int, key, format string, args ...any) {
	c.notes = append(c.notes, Note{severity, fmt.Sprintf("%s:%d", c.file, line), key, fmt.Sprintf(format, args...), line})
}

// findServices are those given and those that entries name.
func (c *converter) findServices() []string {
	services := slices.Clone(c.options.Services)
	for _, e := range c.theirs.acl {
		s := e.match.service
		if s == nil || !s.literal() || s.text == "" || slices.Contains(services, s.text) {
			continue
		}
		if !claim(s.text) || strings.ContainsAny(s.text, "&+%#\",=\\") {
			c.note(Lost, s.line, "acl", "the service %q cannot be one here: clients would trip over its name", s.text)
			continue
		}
		services = append(services, s.text)
	}
	if len(services) == 0 {
		services = append(services, DefaultService)
	}
	return services
}
