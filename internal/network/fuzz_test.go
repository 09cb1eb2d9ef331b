package network_test

import (
	"net/netip"
	"strings"
	"testing"

	"authserver/internal/network"
)

// What is read is a network that client addresses can be compared with, and is read again as itself. What is refused with
// the words of what would be right is right in those words, and means no other addresses.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::/0", "0.0.0.0/0", "10.0.0.5/8", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "fe80::1%eth0", "fe80::%1/64",
		"10.0.0.0/08", "10.0.0.0/+8", "010.0.0.0/8", "1/8", "", "10.0.0.0/33", "2001:DB8::1/128", "64:ff9b::192.0.2.33", "10.0.0.0/8,10.0.0.0/8", " 10.0.0.0/8",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := network.Parse(text)
		if err == nil {
			if !n.IsValid() || n != n.Masked() || n.Addr().Zone() != "" || n.Addr().Is4In6() || !n.Contains(n.Addr()) {
				t.Fatalf("%q: %v", text, n)
			}
			if again, err := network.Parse(n.String()); err != nil || again != n {
				t.Fatalf("%q: %v, read again %v, %v", text, n, again, err)
			}
			return
		}
		_, right, ok := strings.Cut(err.Error(), "would be right: ")
		if !ok || strings.Contains(right, ", ") { // a list of examples
			return
		}
		again, err := network.Parse(right)
		if err != nil {
			t.Fatalf("%q: told %q, which is %v", text, right, err)
		}
		meant, _, _ := strings.Cut(text, "/")
		if a, err := netip.ParseAddr(meant); err != nil || !again.Contains(a.Unmap()) {
			t.Fatalf("%q: told %q, which is something else", text, right)
		}
	})
}
