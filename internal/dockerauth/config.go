package dockerauth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"authserver/internal/users"
)

// users writes users.htpasswd.
func (c *converter) users() []byte {
	var out strings.Builder
	fmt.Fprintf(&out, "# The users of %s.\n", c.base)
	for _, u := range c.theirs.users {
		key := fmt.Sprintf("users.%q", u.name)
		switch {
		case u.name == "" && u.hasPassword:
			c.note(Lost, u.line, key, "a user without a name who has a password; anonymous here is who sends no credentials")
		case u.name == "": // the anonymous user: rules say what it may do
		case !u.hasPassword:
			c.note(Lost, u.line, key, "has no password: docker_auth lets anybody in under this name, whatever the password; give the user one with \"authserver user add\"")
		default:
			line, err := users.HTPasswdLine(u.name, u.password)
			if err != nil {
				c.note(Lost, u.line, key, "%v", err)
				continue
			}
			out.WriteString(line + "\n")
		}
	}
	return []byte(out.String())
}

// elsewhere is what becomes of the blocks of docker_auth that we have no equal of.
var elsewhere = map[string]string{
	"ext_authz":    "not carried over; an external decision is acl.webhook here, see docs/webhook.md",
	"plugin_authz": "not carried over; an external decision is acl.webhook here, see docs/webhook.md",
	"acl_mongo":    "entries in a database are not read; write them under acl, below those that are there",
	"acl_xorm":     "entries in a database are not read; write them under acl, below those that are there",
	"casbin_authz": "its policy is not read; write it as entries under acl",
}

// config writes authserver.yaml.
func (c *converter) config() []byte {
	server, token := c.theirs.server, c.theirs.token
	for _, o := range c.theirs.others {
		text, ok := elsewhere[o.key]
		if !ok {
			text = "not carried over"
			if strings.HasSuffix(o.key, "_auth") || o.key == "plugin_authn" {
				text = "there is no such backend here yet; its users cannot log in"
			}
		}
		c.note(Lost, o.line, o.key, "%s", text)
	}
	if !c.theirs.hasACL {
		c.note(Warning, 1, "acl", "there is none, so the policy allows nothing")
	}
	c.leftOut("server", server, "addr", "net", "path_prefix", "certificate", "key", "tls_min_version", "letsencrypt", "real_ip_header", "real_ip_pos", "hsts",
		"tls_curve_preferences", "tls_cipher_suites")
	c.leftOut("token", token, "issuer", "expiration", "certificate", "key", "disable_legacy_key_id")

	var out strings.Builder
	fmt.Fprintf(&out, "# Made from %s. Every key is explained in docs/configuration.md.\nserver:\n", c.base)
	listen := server["addr"].text
	if server["net"].text == "unix" {
		listen = "unix:" + listen
	}
	switch _, port, err := net.SplitHostPort(listen); {
	case listen == "":
	case strings.HasPrefix(listen, "unix:") || err == nil && number.MatchString(port):
		fmt.Fprintf(&out, "  listen: %s\n", quote(listen))
	default:
		c.note(Lost, server["addr"].line, "server.addr", "%q is no host:port with a number; set server.listen", listen)
	}
	fmt.Fprintf(&out, "  public_url: %s   # the registry's realm is this + /token\n", quote(c.publicURL()))
	cert, key := server["certificate"], server["key"]
	switch {
	case (cert.text == "") != (key.text == ""):
		c.note(Lost, max(cert.line, key.line), "server.certificate", "certificate and key go together; set server.tls")
	case cert.text != "":
		fmt.Fprintf(&out, "  tls:\n    cert_file: %s\n    key_file: %s\n", quote(c.path(cert)), quote(c.path(key)))
		switch server["tls_min_version"].text {
		case "TLS13", "0x0304":
			out.WriteString("    min_version: \"1.3\"\n")
		case "", "TLS12", "0x0303":
		default:
			c.note(Warning, server["tls_min_version"].line, "server.tls_min_version", "older than TLS 1.2, which is the least here")
		}
	}

	fmt.Fprintf(&out, "\nissuer:\n")
	switch issuer := token["issuer"]; {
	case issuer.text == "":
	case claim(issuer.text):
		fmt.Fprintf(&out, "  name: %s   # the registry's auth.token.issuer\n", quote(issuer.text))
	default:
		c.note(Lost, issuer.line, "token.issuer", "%q holds a blank at an end, a control character or a letter beyond ASCII; the default is used, change the registry's auth.token.issuer with it", issuer.text)
	}
	fmt.Fprintf(&out, "  token_lifetime: %s\n  data_dir: data   # keys\n\nservices:\n", c.lifetime())
	for _, s := range c.services {
		fmt.Fprintf(&out, "  - name: %s   # the registry's auth.token.service\n", quote(s))
	}
	out.WriteString("\nusers:\n  - kind: htpasswd\n    file: users.htpasswd\n  - kind: database   # accounts that are made from now on\n\nacl:\n  files: [policy.yaml]\n")
	return []byte(out.String())
}

var number = regexp.MustCompile(`^[0-9]{1,5}$`)

// claim tells whether a text can stand in iss and aud here.
func claim(s string) bool {
	return strings.TrimSpace(s) == s && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > 0x7e })
}

// leftOut notes the settings of a block that are not carried over. known are those of docker_auth.
func (c *converter) leftOut(block string, settings map[string]value, known ...string) {
	texts := map[string]struct {
		severity Severity
		text     string
	}{
		"server.path_prefix":           {Lost, "authserver answers at /token; let a proxy cut the prefix off, and give --public-url with it"},
		"server.letsencrypt":           {Lost, "certificates are not fetched yet; give certificate and key"},
		"server.real_ip_header":        {Lost, "name the proxies in server.trusted_proxies: only their X-Forwarded-For and Forwarded are believed, read from the right"},
		"server.real_ip_pos":           {Warning, "not needed: server.trusted_proxies says how many addresses are proxies"},
		"server.hsts":                  {Warning, "left out, it is for browsers"},
		"server.tls_curve_preferences": {Warning, "left out, Go chooses"},
		"server.tls_cipher_suites":     {Warning, "left out, Go chooses"},
		"token.certificate":            {Warning, "not used: authserver makes its own keys. Append its root certificate to the registry's rootcertbundle, which may hold several, and both servers are trusted while you switch"},
		"token.disable_legacy_key_id":  {Warning, "not needed: registries 2.x and 3.x find the key by x5c"},
	}
	for _, key := range sortedKeys(settings) {
		v, path := settings[key], block+"."+key
		if v.null && v.text == "" && key != "letsencrypt" || v.text == "" && key == "path_prefix" {
			continue
		}
		if t, ok := texts[path]; ok {
			c.note(t.severity, v.line, path, "%s", t.text)
		} else if !slices.Contains(known, key) {
			c.note(Warning, v.line, path, "docker_auth does not know this key either; left out")
		}
	}
}

func sortedKeys(settings map[string]value) []string {
	keys := make([]string, 0, len(settings))
	for k := range settings {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// publicURL is the address that clients reach; docker_auth's configuration does not say it.
func (c *converter) publicURL() string {
	if c.options.PublicURL != "" {
		return c.options.PublicURL
	}
	server := c.theirs.server
	scheme := "http"
	if server["certificate"].text != "" {
		scheme = "https"
	}
	guess := scheme + "://localhost"
	if _, port, err := net.SplitHostPort(server["addr"].text); err == nil {
		guess += ":" + port
	}
	c.note(Warning, max(1, server["addr"].line), "server", "docker_auth does not say where clients reach it; written as %s, correct server.public_url or give --public-url", guess)
	return guess
}

// path makes a file's name absolute: theirs is relative to the folder that docker_auth is started in.
func (c *converter) path(v value) string {
	file := v.text
	if !filepath.IsAbs(file) {
		if abs, err := filepath.Abs(filepath.Join(filepath.Dir(c.file), file)); err == nil {
			file = abs
		}
	}
	if !c.options.Exists(file) {
		c.note(Warning, v.line, "server."+v.key, "%s is not here; authserver does not start without it", file)
	}
	return file
}

// Bounds of token lifetimes here; docker_auth has none.
const minLifetime, maxLifetime = time.Minute, 24 * time.Hour

func (c *converter) lifetime() string {
	v := c.theirs.token["expiration"]
	seconds, err := strconv.ParseInt(v.text, 10, 32)
	lifetime := time.Duration(seconds) * time.Second
	if err != nil {
		if v.text != "" {
			c.note(Lost, v.line, "token.expiration", "%q is no number of seconds", v.text)
		}
		lifetime = 5 * time.Minute
	}
	if bounded := min(max(lifetime, minLifetime), maxLifetime); bounded != lifetime {
		c.note(Warning, v.line, "token.expiration", "%s seconds is out of bounds here, written as %s", v.text, bounded)
		lifetime = bounded
	}
	return fmt.Sprintf("%ds", int(lifetime.Seconds()))
}

// quote writes a YAML scalar that reads back as s; JSON strings are YAML.
func quote(s string) string {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(s) // texts do not fail
	return strings.TrimSuffix(out.String(), "\n")
}

func list(values []string) string {
	texts := make([]string, len(values))
	for i, v := range values {
		if texts[i] = v; !plainText(v) {
			texts[i] = quote(v)
		}
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// plainText tells whether a text needs no quotes in a list.
func plainText(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz") == "" && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, s)
}
