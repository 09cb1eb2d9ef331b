package release_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// typist types what a page says, in a machine, with the names of this release.
type typist struct {
	*harness.Machine
	page  string
	names *strings.Replacer
}

// steps types the commands of a part of the page, and returns what each has printed. All of a part is typed into one shell.
func (m typist) steps(t *testing.T, part string) []string {
	t.Helper()
	const end = "~~~ end of a step ~~~"
	script := "set -e\n"
	steps := harness.Documented(t, m.page, part)
	for _, step := range steps {
		script += m.names.Replace(step.Command) + "\necho '" + end + "'\n"
	}
	out, err := m.Try(t, script)
	if err != nil {
		journal, _ := m.Try(t, "systemctl status authserver --no-pager --full; journalctl --no-pager --unit authserver --lines 10")
		t.Fatalf("%s, %s: %v\n%s\n%s", m.page, part, err, out, journal)
	}
	printed := strings.Split(out, end+"\n")
	for i, step := range steps {
		if step.Prints != "" && step.Prints != printed[i] {
			t.Errorf("%s: $ %s\nprints\n%sand the page says\n%s", m.page, step.Command, printed[i], step.Prints)
		}
	}
	return printed[:len(steps)]
}

// start starts the service, or shows why it cannot be.
func (m typist) start(t *testing.T) {
	t.Helper()
	m.Type(t, "systemctl enable --now authserver || { journalctl --no-pager --unit authserver --lines 10; exit 1; }")
}

// property is what systemd says of the service.
func (m typist) property(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(m.Type(t, "systemctl show --value --property "+name+" authserver.service"))
}

// newTypist is a machine with this release's files in root's home.
func newTypist(t *testing.T) typist {
	t.Helper()
	dist, _ := released(t)
	m := typist{Machine: harness.StartMachine(t), page: "docs/systemd.md"}
	names := []string{"docker login localhost:5000 --username admin", "docker login localhost:5000 --username admin --password-stdin </root/password 2>&1",
		// Nobody types as fast as this test.
		"systemctl restart docker-registry", "systemctl restart docker-registry && curl --silent --retry 100 --retry-delay 1 --retry-connrefused http://localhost:5000/v2/"}
	for file, documented := range map[string]string{"*.deb": "authserver_1.2.3_amd64.deb", "*.tar.gz": "authserver-1.2.3-linux-amd64.tar.gz"} {
		made := filepath.Base(one(t, dist, file))
		m.Put(t, filepath.Join(dist, made), "/root/"+made)
		names = append(names, documented, made, strings.TrimSuffix(documented, ".tar.gz"), strings.TrimSuffix(made, ".tar.gz"))
	}
	m.names = strings.NewReplacer(append(names, "apt install", "DEBIAN_FRONTEND=noninteractive apt-get install --yes", "systemctl status", "systemctl status --no-pager")...)
	m.Type(t, "rm -rf /etc/authserver /var/lib/authserver") // of this machine's own, if there are
	return m
}

var printedPassword = regexp.MustCompile(`Password: +(\S+)`)

// keep notes the administrator's password where "docker login" gets it.
func (m typist) keep(t *testing.T, printed []string) {
	t.Helper()
	found := printedPassword.FindStringSubmatch(strings.Join(printed, ""))
	if found == nil {
		t.Fatalf("init printed no password: %s", printed)
	}
	if err := os.WriteFile(m.Path("/root/password"), []byte(found[1]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// token asks for one as admin, and returns the status; curl gets the flags.
func (m typist) token(t *testing.T, url, flags string) string {
	t.Helper()
	out, err := m.Try(t, `curl --silent --output /dev/null --write-out '%{http_code}' `+flags+` --user "admin:$(cat /root/password)" '`+url+`/token?service=registry.example.com&scope=repository:admin/a:push'`)
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return out
}

// From nothing to a pushed image, then what production wants, as the page says, under a real systemd with all of the unit's
// hardening. What the system call filter forbids is deadly here, so that nothing is refused without being noticed.
func TestSystemd(t *testing.T) {
	released(t)
	started := time.Now()
	m := newTypist(t)
	m.Type(t, `mkdir -p /run/systemd/system/authserver.service.d
printf '[Service]\nSystemCallErrorNumber=\n' >/run/systemd/system/authserver.service.d/deadly.conf
systemctl daemon-reload`)
	m.keep(t, m.steps(t, "install"))
	if state := m.property(t, "ActiveState") + m.property(t, "StatusText"); state != "activeserving" {
		t.Fatalf("the service is %s", state)
	}
	if errno := m.property(t, "SystemCallErrorNumber"); errno != "2147483646" { // to kill
		t.Fatalf("SystemCallErrorNumber %s", errno)
	}

	// A docker of the machine's own; it runs no container.
	m.Type(t, `mkdir -p /etc/docker
echo '{"storage-driver": "vfs", "bridge": "none", "iptables": false, "ip6tables": false}' >/etc/docker/daemon.json
systemctl start docker`)
	printed := m.steps(t, "push")
	t.Logf("from an empty machine to a pushed image: %s\n%s", time.Since(started).Round(time.Second), printed[len(printed)-1])
	if out := m.Type(t, "curl --silent --user admin:wrong 'http://localhost:5001/token?service=registry.example.com'"); !strings.Contains(out, "error") {
		t.Errorf("a wrong password: %s", out)
	}

	t.Run("sandbox", func(t *testing.T) { sandboxHolds(t, m) })
	t.Run("day", func(t *testing.T) { dayToDay(t, m) })
	t.Run("hardening", func(t *testing.T) {
		m.Type(t, "rm /run/systemd/system/authserver.service.d/deadly.conf && systemctl daemon-reload && systemctl restart authserver")
		m.steps(t, "hardening")
		if out := m.Type(t, "systemd-analyze verify authserver.service authserver.socket 2>&1"); out != "" {
			t.Errorf("systemd-analyze verify: %s", out)
		}
	})
	t.Run("unix", func(t *testing.T) {
		m.Type(t, `cp -p /etc/authserver/authserver.yaml kept.yaml
sed -i 's|^  listen: .*|  listen: unix:/run/authserver/authserver.sock|' /etc/authserver/authserver.yaml && systemctl restart authserver`)
		for group, want := range map[string]string{"authserver": "200", "nogroup": "000"} { // a proxy, and anybody else
			out, _ := m.Try(t, `setpriv --reuid nobody --regid `+group+` --clear-groups curl --silent --output /dev/null --write-out '%{http_code}' \
--user "admin:$(cat /root/password)" --unix-socket /run/authserver/authserver.sock 'http://localhost/token?service=registry.example.com'`)
			if out != want {
				t.Errorf("over its socket, for the group %s: %s, want %s", group, out, want)
			}
		}
		m.Type(t, "cp -p kept.yaml /etc/authserver/authserver.yaml && systemctl restart authserver")
	})
	t.Run("secrets", func(t *testing.T) {
		m.Type(t, `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
-keyout /etc/ssl/private/auth.example.com.key -out /etc/ssl/private/auth.example.com.crt 2>&1
chmod 600 /etc/ssl/private/auth.example.com.key`)
		m.steps(t, "secrets")
		if code := m.token(t, "https://localhost:5001", "--cacert /etc/ssl/private/auth.example.com.crt"); code != "200" {
			t.Errorf("over TLS: %s", code)
		}
		// The same key, encrypted: what stands in the file before is of no use elsewhere.
		m.Type(t, `systemd-creds encrypt --name=tls.key /etc/ssl/private/auth.example.com.key /etc/ssl/private/auth.example.com.cred 2>&1
sed -i 's|^LoadCredential=tls.key:.*|LoadCredentialEncrypted=tls.key:/etc/ssl/private/auth.example.com.cred|' /etc/systemd/system/authserver.service.d/secrets.conf
mv /etc/ssl/private/auth.example.com.key /root && systemctl daemon-reload && systemctl restart authserver && mv /root/auth.example.com.key /etc/ssl/private`)
		if code := m.token(t, "https://localhost:5001", "--cacert /etc/ssl/private/auth.example.com.crt"); code != "200" {
			t.Errorf("with a key that is encrypted: %s", code)
		}
		if out, err := m.Try(t, "setpriv --reuid authserver --regid authserver --clear-groups cat /etc/ssl/private/auth.example.com.key"); err == nil {
			t.Errorf("the service's user reads root's file: %s", out)
		}
	})
	t.Run("socket", func(t *testing.T) {
		m.steps(t, "socket")
		answer := func() string {
			return m.token(t, "https://localhost", "--cacert /etc/ssl/private/auth.example.com.crt")
		}
		if code := answer(); code != "200" {
			t.Fatalf("over systemd's socket: %s", code)
		}
		// Nobody is refused while it restarts.
		restarted := make(chan error, 1)
		go func() {
			_, err := m.Try(t, "for i in 1 2 3; do systemctl restart authserver; done")
			restarted <- err
		}()
		for n := 0; ; n++ {
			select {
			case err := <-restarted:
				if err != nil || n == 0 {
					t.Errorf("restarts: %v, %d requests meanwhile", err, n)
				}
				t.Logf("%d requests during three restarts", n)
				return
			default:
				if code := answer(); code != "200" {
					t.Errorf("while it restarts: %s", code)
				}
			}
		}
	})
}

// sandboxHolds looks at the process from outside, at work and while it hashes passwords.
func sandboxHolds(t *testing.T, m typist) {
	pid := m.property(t, "MainPID")
	status := m.Type(t, "cat /proc/"+pid+"/status")
	for _, want := range []string{`Uid:\s+[1-9]`, `CapEff:\s+0+\n`, `CapBnd:\s+0+\n`, `NoNewPrivs:\s+1`, `Seccomp:\s+2`} {
		if !regexp.MustCompile(want).MatchString(status) {
			t.Errorf("%s is not in\n%s", want, status)
		}
	}
	inside := "nsenter --target " + pid + " --mount setpriv --reuid authserver --regid authserver --clear-groups "
	for command, works := range map[string]bool{
		"touch /var/lib/authserver/x":        true,
		"touch /var/log/authserver/x":        true,
		"touch /run/authserver/x":            true,
		"touch /run/x":                       false,
		"touch /etc/authserver/x":            false,
		"touch /usr/bin/x":                   false,
		"ls /home /root":                     false,
		"cat /dev/kmsg":                      false,
		"test -e /proc/1/cmdline":            false,
		"cat /etc/authserver/users.htpasswd": true,
	} {
		if out, err := m.Try(t, inside+command); (err == nil) != works {
			t.Errorf("%s: %v %s", command, err, out)
		}
	}
	// The metrics are whole: nothing that they are read from is hidden.
	metrics := m.Type(t, "curl --silent http://127.0.0.1:5002/metrics")
	for _, metric := range []string{"process_start_time_seconds", "process_open_fds", "process_resident_memory_bytes", "process_max_fds"} {
		if !strings.Contains(metrics, "\n"+metric) {
			t.Errorf("no %s in\n%s", metric, metrics[strings.Index(metrics, "# HELP process_"):])
		}
	}
	// Some load, and passwords that nobody remembers are hashed; the threads that do so are SCHED_IDLE (5), as without a filter.
	m.Type(t, `for i in 1 2 3 4; do echo "pass word $i" | authserver user add "user$i" --password-stdin; done`)
	seen := m.Type(t, `for i in 1 2 3 4; do curl --silent --output /dev/null --write-out '%{http_code}\n' --user "user$i:pass word $i" 'http://localhost:5001/token?service=registry.example.com' & done
while [ -n "$(jobs -rp)" ]; do cut -d' ' -f41 /proc/`+pid+`/task/*/stat; done >policies # no pipe: its shell would know of no jobs
sort -u policies | sed 's/^/policy /'
curl --silent --no-progress-meter --parallel --parallel-max 50 --output /dev/null --write-out '%{http_code}\n' --user "admin:$(cat password)" 'http://localhost:5001/token?service=registry.example.com&client_id=load[1-2000]' | sort | uniq -c`)
	if !strings.Contains(seen, " 2000 200\n") || strings.Count(seen, "200\n") != 4+1 || !strings.Contains(seen, "policy 5\n") {
		t.Errorf("logins of new users: %s", seen)
	}
	if again := m.property(t, "MainPID"); again != pid {
		t.Errorf("it has been started again: %s", m.Type(t, "journalctl --no-pager --unit authserver --lines 20"))
	}
}

// dayToDay: what the page says of status, reload and logs.
func dayToDay(t *testing.T, m typist) {
	printed := m.steps(t, "day")
	if !strings.Contains(printed[0], `Status: "serving"`) {
		t.Errorf("status: %s", printed[0])
	}
	var line struct{ Msg string }
	if last := strings.Split(strings.TrimSpace(printed[2]), "\n"); json.Unmarshal([]byte(last[len(last)-1]), &line) != nil || line.Msg == "" {
		t.Errorf("the journal: %s", printed[2])
	}
	if !strings.Contains(printed[3], "admin") {
		t.Errorf("users: %s", printed[3])
	}
	// A bad policy: systemd says why it is not in use.
	m.Type(t, "cp /etc/authserver/policy.yaml /root && echo 'rules: [{name: x}]' >/etc/authserver/policy.yaml && systemctl reload authserver")
	m.Await(t, func() error {
		if text := m.property(t, "StatusText"); !strings.Contains(text, "policy.yaml:1") {
			return fmt.Errorf("status text %q", text)
		}
		return nil
	})
	if code := m.token(t, "http://localhost:5001", ""); code != "200" {
		t.Errorf("with a bad policy: %s", code)
	}
	m.Type(t, "cp /root/policy.yaml /etc/authserver/policy.yaml && systemctl reload authserver")
	m.Await(t, func() error {
		if text := m.property(t, "StatusText"); text != "serving" {
			return fmt.Errorf("status text %q", text)
		}
		return nil
	})
	// It ends well, and is started again when it does not.
	for _, signal := range []string{"KILL", "QUIT"} { // QUIT: with exit status 2, as after a panic or without memory
		pid := m.property(t, "MainPID")
		m.Type(t, "kill -"+signal+" "+pid)
		m.Await(t, func() error {
			if now := m.property(t, "MainPID"); now == pid || now == "0" {
				return fmt.Errorf("after SIG%s: process %s, before %s", signal, now, pid)
			}
			if code := m.token(t, "http://localhost:5001", ""); code != "200" {
				return fmt.Errorf("after SIG%s: %s", signal, code)
			}
			return nil
		})
	}
	m.Type(t, "systemctl stop authserver")
	if result := m.property(t, "Result") + m.property(t, "ExecMainStatus"); result != "success0" {
		t.Errorf("stopped: %s", result)
	}
	m.Type(t, "systemctl start authserver")
}

// The same by hand, from the archive.
func TestArchive(t *testing.T) {
	m := newTypist(t)
	m.keep(t, m.steps(t, ""))
	if code := m.token(t, "http://localhost:5001", ""); code != "200" {
		t.Errorf("token: %s", code)
	}
}
