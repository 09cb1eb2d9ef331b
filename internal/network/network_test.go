package network_test

import (
	"testing"

	"authserver/internal/network"
)

// *.localhost is a name like others: Go looks it up, and asks a proxy for it.
func TestIsLocal(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.8.8.8": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, "auth.localhost": false, "localhost.": false, "LOCALHOST": false, "localhost.example.com": false, "10.0.0.1": false, "0.0.0.0": false, "auth.test": false,
	} {
		if got := network.IsLocal(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "192.0.2.7": "192.0.2.7/32", "2001:db8::/32": "2001:db8::/32", "2001:db8::1": "2001:db8::1/128",
		"0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0",
	} {
		if got, err := network.Parse(text); err != nil || got.String() != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                    `"" is no network; would be right: 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7`,
		"office":              `"office" is no network; would be right: 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7`,
		"10.0.0.0/33":         `"10.0.0.0/33" is no network; would be right: 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7`,
		"fe80::1%eth0":        `"fe80::1%eth0" is no network; would be right: 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7`,
		"10.0.0.5/8":          `"10.0.0.5/8" has bits set beyond its length; would be right: 10.0.0.0/8`,
		"::ffff:10.0.0.0/104": `"::ffff:10.0.0.0/104" is an IPv4 network in IPv6 form; write it as IPv4`,
		"::ffff:10.0.0.1":     `"::ffff:10.0.0.1" is an IPv4 address in IPv6 form; would be right: 10.0.0.1`,
	} {
		if _, err := network.Parse(text); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
