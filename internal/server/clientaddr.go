package server

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// errForwarded is told to the client and concerns the operator: see clientAddr.
var errForwarded = errors.New("X-Forwarded-For and Forwarded name different clients; the proxy must remove the one it does not write")

// clientAddr is the address that policies with networks and the audit log see. Headers are believed only from trusted
// proxies, and are walked from the right: each trusted hop vouches for the one before it, and the first that is not
// ours is the client, whatever a client wrote further left. The zero Addr means that the address is not known.
//
// A proxy that writes one of the two headers usually passes the other on as the client sent it. We cannot tell which
// one it writes, so when both are there they must agree.
func (s *server) clientAddr(r *http.Request) (netip.Addr, error) {
	peer := parseAddr(r.RemoteAddr)
	if !s.fromProxy(r) {
		return peer, nil
	}
	var xff, forwarded []string
	for _, value := range r.Header.Values("X-Forwarded-For") {
		xff = append(xff, strings.Split(value, ",")...)
	}
	for _, value := range r.Header.Values("Forwarded") {
		forwarded = append(forwarded, forwardedFor(value)...)
	}
	switch {
	case xff == nil && forwarded == nil:
		return peer, nil
	case xff == nil:
		return s.walk(forwarded), nil
	case forwarded == nil:
		return s.walk(xff), nil
	}
	if s.walk(xff) != s.walk(forwarded) {
		return netip.Addr{}, errForwarded
	}
	return s.walk(xff), nil
}

// walk returns the rightmost hop that is not a trusted proxy, or the leftmost when all are. A hop that is no address
// ("unknown", RFC 7239 §6.2) ends the walk: the client is not known.
func (s *server) walk(hops []string) netip.Addr {
	var addr netip.Addr
	for _, hop := range slices.Backward(hops) {
		addr = parseAddr(strings.TrimSpace(hop))
		if !s.trusted(addr) {
			break
		}
	}
	return addr
}

// fromProxy tells whether a request comes from a trusted proxy.
func (s *server) fromProxy(r *http.Request) bool {
	peer := parseAddr(r.RemoteAddr)
	return s.trusted(peer) || !peer.IsValid() && s.TrustUnix
}

func (s *server) trusted(addr netip.Addr) bool {
	return addr.IsValid() && slices.ContainsFunc(s.TrustedProxies, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// forwardedFor lists the `for` of each element of a Forwarded header (RFC 7239 §4). Elements and pairs are told apart
// outside of quoted strings only: a host may hold a comma, and who chooses the host must not choose the address. An
// element without one `for`, and everything in a header whose quotes do not close, is "", which is no address.
func forwardedFor(header string) []string {
	elements, closed := splitUnquoted(header, ',')
	hops := make([]string, len(elements))
	for i, element := range elements {
		pairs, _ := splitUnquoted(element, ';')
		found := 0
		for _, pair := range pairs {
			name, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
			if ok && strings.EqualFold(name, "for") {
				hops[i], found = strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`), found+1
			}
		}
		if found != 1 || !closed {
			hops[i] = ""
		}
	}
	return hops
}

// splitUnquoted splits at a separator outside of quoted strings (RFC 9110 §5.6.4), and tells whether all quotes close.
func splitUnquoted(s string, separator byte) (parts []string, closed bool) {
	quoted, start := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && quoted:
			i++
		case s[i] == separator && !quoted:
			parts, start = append(parts, s[start:i]), i+1
		}
	}
	return append(parts, s[start:]), !quoted
}

// parseAddr reads an address with or without a port, and returns the zero Addr for anything else.
func parseAddr(s string) netip.Addr {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	s = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}
