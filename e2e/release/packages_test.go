package release_test

import (
	"path/filepath"
	"strings"
	"testing"

	"authserver/e2e/harness"
)

// later is the package of this release as its successor.
const later = `dpkg-deb --raw-extract authserver_*_amd64.deb later
rm later/DEBIAN/conffiles # nfpm's holds an empty line, which dpkg takes and dpkg-deb does not
sed -i 's/^Version: .*/&.1/' later/DEBIAN/control
dpkg-deb --root-owner-group -Zgzip -z1 --build later later.deb`

// An upgrade keeps what the operator has written, and who was served is served by the new program; removal stops it, and
// purging leaves nothing.
func TestDebianPackage(t *testing.T) {
	m := newTypist(t)
	m.Type(t, "DEBIAN_FRONTEND=noninteractive apt-get install --yes ./authserver_*_amd64.deb")
	if out, err := m.Try(t, "systemctl start authserver"); err != nil {
		t.Errorf("without a configuration the start is an error: %s", out)
	}
	if state := m.property(t, "ActiveState") + m.property(t, "ConditionResult"); state != "inactiveno" {
		t.Errorf("without a configuration it is %s", state)
	}
	for command, want := range map[string]string{
		"find /etc/authserver /var/lib/authserver -mindepth 1":         "", // no configuration, no password
		"stat --format '%U:%G %a' /etc/authserver /var/lib/authserver": "authserver:authserver 750\nauthserver:authserver 700\n",
		"getent passwd authserver | cut -d: -f6-":                      "/var/lib/authserver:/usr/sbin/nologin\n",
		"dpkg --verify authserver":                                     "",
		"man --where authserver-user-add":                              "/usr/share/man/man1/authserver-user-add.1.gz\n",
		"bash -c 'source /usr/share/bash-completion/completions/authserver; complete -p authserver | cut -d\" \" -f1'": "complete\n",
		"systemctl is-enabled authserver || true": "disabled\n",
	} {
		if out := m.Type(t, command); out != want {
			t.Errorf("%s: %q, want %q", command, out, want)
		}
	}
	m.keep(t, []string{m.Type(t, "authserver init /etc/authserver --data-dir /var/lib/authserver --service registry.example.com")})
	m.start(t)
	m.Type(t, "echo '# mine' >>/etc/authserver/authserver.yaml")
	key := m.Type(t, "authserver key export")
	pid := m.property(t, "MainPID")

	m.Type(t, later)
	m.Type(t, "DEBIAN_FRONTEND=noninteractive apt-get install --yes ./later.deb")
	if out := m.Type(t, "dpkg-query --show --showformat '${Version}' authserver; tail -n 1 /etc/authserver/authserver.yaml"); !strings.HasSuffix(out, ".1# mine\n") {
		t.Errorf("after the upgrade: %s", out)
	}
	if now := m.property(t, "MainPID"); now == pid || now == "0" {
		t.Errorf("the old program still runs: process %s, before %s", now, pid)
	}
	if code := m.token(t, "http://localhost:5001", ""); code != "200" {
		t.Errorf("after the upgrade: %s", code)
	}

	// With a configuration that the new program refuses: it says so, and the package is installed all the same.
	m.Type(t, "cp -p /etc/authserver/authserver.yaml kept.yaml && echo 'nonsense: 1' >>/etc/authserver/authserver.yaml")
	out := m.Type(t, "DEBIAN_FRONTEND=noninteractive apt-get install --reinstall --yes ./later.deb 2>&1")
	if state := m.Type(t, "dpkg-query --show --showformat '${Status}' authserver"); state != "install ok installed" || !strings.Contains(out, "authserver did not start again: journalctl -u authserver") {
		t.Errorf("with a bad configuration the package is %q: %s", state, out)
	}
	m.Type(t, "cp -p kept.yaml /etc/authserver/authserver.yaml && systemctl restart authserver")
	if code := m.token(t, "http://localhost:5001", ""); code != "200" {
		t.Errorf("with the good configuration: %s", code)
	}

	m.Type(t, "apt-get remove --yes authserver")
	if state := m.Type(t, "pgrep --exact authserver || ls -d /usr/bin/authserver /etc/systemd/system/*/authserver.* 2>/dev/null || echo gone"); state != "gone\n" {
		t.Errorf("removed, and there are: %s", state)
	}
	m.Type(t, "DEBIAN_FRONTEND=noninteractive apt-get install --yes ./authserver_*_amd64.deb")
	m.start(t)
	if code := m.token(t, "http://localhost:5001", ""); code != "200" || m.Type(t, "authserver key export") != key {
		t.Errorf("installed again: %s, or it has other keys", code)
	}
	m.Type(t, "apt-get purge --yes authserver")
	if left := m.Type(t, "ls -d /etc/authserver /var/lib/authserver /var/log/authserver 2>/dev/null || dpkg --list authserver 2>/dev/null | grep ^rc || echo gone"); left != "gone\n" {
		t.Errorf("purged, and there are: %s", left)
	}
}

// The same of the RPM, with Debian's rpm, and with keys where init puts them by itself.
func TestRPM(t *testing.T) {
	dist, _ := released(t)
	rpm := one(t, dist, "*.rpm")
	if out := harness.MustRun(t, nil, "", "rpm", "-qp", "--queryformat", "%{NAME} %{ARCH} %{LICENSE} %{BUILDHOST}", rpm); out != "authserver x86_64 Apache-2.0 localhost" {
		t.Error(out)
	}
	m := newTypist(t)
	m.Put(t, rpm, "/root/authserver.rpm")
	m.Type(t, "rpm --install --nodeps authserver.rpm") // Debian's systemd is none of its packages
	m.keep(t, []string{m.Type(t, "authserver init /etc/authserver --service registry.example.com")})
	m.start(t)
	if code := m.token(t, "http://localhost:5001", ""); code != "200" {
		t.Errorf("token: %s", code)
	}
	if out, err := m.Try(t, "rpm --verify --nodeps authserver"); err != nil {
		t.Errorf("rpm --verify: %s", out)
	}
	pid := m.property(t, "MainPID")
	m.Type(t, "rpm --upgrade --force --nodeps authserver.rpm")
	if now := m.property(t, "MainPID"); now == pid || now == "0" {
		t.Errorf("after an upgrade: process %s, before %s", now, pid)
	}
	m.Type(t, "rpm --erase authserver")
	if state := m.Type(t, "pgrep --exact authserver || ls -d /usr/bin/authserver /etc/systemd/system/*/authserver.* 2>/dev/null || echo gone"); state != "gone\n" {
		t.Errorf("erased, and there are: %s", state)
	}
	if out := m.Type(t, "ls /etc/authserver/authserver.yaml /etc/authserver/data/root.crt"); strings.Count(out, "\n") != 2 {
		t.Errorf("configuration and keys are gone: %s", out)
	}
	t.Log(filepath.Base(rpm))
}
