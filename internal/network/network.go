// Package network reads networks as operators write them, and tells where one begins.
package network

import (
	"fmt"
	"net/netip"
)

// IsLocal tells whether a host is surely this machine: what is sent there crosses no network, and goes through no proxy. A
// name below localhost is not: who resolves it decides where it is, and a proxy of the environment is asked for it.
func IsLocal(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Parse reads 10.0.0.0/8, 2001:db8::/32, or one address. What could be meant in two ways is an error that says what
// would be right: bits beyond the length, and IPv4 in IPv6 form, which no client address is compared in.
func Parse(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	n, err := netip.ParsePrefix(s)
	if a, addrErr := netip.ParseAddr(s); addrErr == nil && a.Is4In6() {
		return n, fmt.Errorf("%q is an IPv4 address in IPv6 form; would be right: %s", s, a.Unmap())
	}
	switch {
	case err != nil:
		return n, fmt.Errorf("%q is no network; would be right: 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7", s)
	case n.Addr().Is4In6():
		return n, fmt.Errorf("%q is an IPv4 network in IPv6 form; write it as IPv4", s)
	case n != n.Masked():
		return n, fmt.Errorf("%q has bits set beyond its length; would be right: %s", s, n.Masked())
	}
	return n, nil
}
