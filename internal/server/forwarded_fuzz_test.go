package server_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"authserver/internal/server"
)

// A client writes what it likes into both headers. Our proxies add theirs to the right of it: the client's address in one
// header, while they pass on the other. Then the address is what the proxy saw, or not known, or the request is refused; it
// is never what the client wrote. From a peer that is no proxy of ours, headers are nothing at all.
func FuzzForwarded(f *testing.F) {
	for _, seed := range []string{
		"", "10.0.0.1", "10.0.0.1,", ",", "for=10.0.0.1", `for="10.0.0.1`, `for=10.0.0.1;host="a`, `host="a\`, `"`, `\`, `"\`, `a"b"c"`, "unknown", "for=unknown, for=_x",
		`for="[2001:db8::7]:4711";proto=https;by=203.0.113.43`, `for=192.0.2.43, for="[2001:db8:cafe::17]"`, "For=10.0.0.1;FOR=10.0.0.2", "172.16.0.1, 172.16.0.2", "for=172.16.0.9",
		"[::ffff:10.0.0.1]", "::ffff:172.16.0.1", "10.0.0.1:80, ", "for=198.51.100.7", "for=10.0.0.1;", ";", "for =10.0.0.1", "for= 10.0.0.1", "\t10.0.0.1\t", `for="10.0.0.1\"`,
	} {
		for honest := range uint8(6) {
			f.Add(seed, honest, uint8(len(seed))+honest, seed)
		}
	}
	trust := []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("fd00::/8")}
	// What a proxy saw, as X-Forwarded-For and as Forwarded have it.
	seen := []struct{ xff, forwarded, addr string }{
		{"198.51.100.7", "for=198.51.100.7", "198.51.100.7"},
		{"198.51.100.7:4711", `for="198.51.100.7:4711"`, "198.51.100.7"},
		{"2001:db8::7", `for="[2001:db8::7]"`, "2001:db8::7"},
		{"[2001:db8::7]:443", `host="a,b;for=10.0.0.1";For="[2001:db8::7]:443";proto=https`, "2001:db8::7"},
		{"::ffff:198.51.100.7", "proto=http;for=198.51.100.7;by=172.16.0.1", "198.51.100.7"},
		{"unknown", "for=unknown;by=_secret", ""},
	}
	f.Fuzz(func(t *testing.T, written string, honest, how uint8, other string) {
		s := seen[int(honest)%len(seen)]
		want, _ := netip.ParseAddr(s.addr)
		xff := how&1 == 0
		name, add, otherName, next := "Forwarded", s.forwarded, "X-Forwarded-For", "for=172.16.0.2"
		if xff {
			name, add, otherName, next = "X-Forwarded-For", s.xff, "Forwarded", "172.16.0.2"
		}
		value := []string{written, add} // a header line of its own
		if how&2 == 0 {
			value = []string{written + ", " + add}
		}
		if how&4 != 0 { // another proxy of ours
			value[len(value)-1] += ", " + next
		}
		r := &http.Request{Header: http.Header{name: value}, RemoteAddr: "172.16.0.1:9"}
		passed := how&8 != 0
		if passed {
			r.Header[otherName] = []string{other}
		}
		got, err := server.ClientAddr(server.Config{TrustedProxies: trust}, r)
		ours := xff || how&2 != 0 || !strings.ContainsAny(written, `"\`) // no quote of the client's can reach beyond what it wrote
		switch {
		case err != nil && (!passed || got.IsValid()):
			t.Fatalf("%q: %v, %v", r.Header, got, err)
		case err == nil && got != want && (ours || got.IsValid()):
			t.Fatalf("%q: taken for %v, the proxy saw %q", r.Header, got, s.addr)
		case err == nil && passed && got.IsValid(): // then the other header alone says the same
			r.Header.Del(name)
			if alone, err := server.ClientAddr(server.Config{TrustedProxies: trust}, r); err != nil || alone != got {
				t.Fatalf("%s alone: %v, %v; both: %v", otherName, alone, err, got)
			}
			r.Header[name] = value
		}
		for _, c := range []server.Config{{}, {TrustedProxies: trust}, {TrustUnix: true}} {
			r.RemoteAddr = "203.0.113.9:1"
			if got, err := server.ClientAddr(c, r); err != nil || got != netip.MustParseAddr("203.0.113.9") {
				t.Fatalf("%q from a stranger: %v, %v", r.Header, got, err)
			}
		}
		r.RemoteAddr = "@"
		if got, err := server.ClientAddr(server.Config{TrustedProxies: trust}, r); err != nil || got.IsValid() {
			t.Fatalf("%q over a socket: %v, %v", r.Header, got, err)
		}
	})
}
