package doctor

import (
	"net/netip"
	"net/url"
	"strings"

	"authserver/internal/network"
)

// judgeRealm looks at a realm as clients do that are choosy about it (clients refuse in their own words, and mostly after
// a login that went well). registry is the address of the registry, nil when it is not known. fixes is how to give another.
func (e *examination) judgeRealm(realm string, registry *url.URL, fixes ...Fix) {
	u, ok := e.isAddress(realm, fixes...)
	if !ok {
		return
	}
	host := u.Hostname()
	local := network.IsLocal(host)
	if u.Scheme == "http" && !local && (registry == nil || registry.Scheme != "https") {
		e.report.Add(found("realm-scheme", Warning, "the realm "+realm+" is http", "Passwords cross the network in clear.", fixes...))
	}
	if u.Scheme == "http" && registry != nil && registry.Scheme == "https" {
		e.report.Add(found("realm-scheme", Error, "the realm "+realm+" is http, the registry https",
			"crane, oras, helm and regctl refuse to send credentials from an https registry to an http realm, and passwords cross the network in clear.", fixes...))
	}
	e.judgeAddress(u, registry, fixes...)
	if bad := strings.IndexAny(realm, "?,=# \"\\"); bad >= 0 {
		e.report.Add(found("realm-characters", Warning, "the realm "+quote(realm)+" has the character "+quote(realm[bad:bad+1]),
			"Jib, the Terraform provider and libvirt append a query to it or split the challenge there, without quoting.", fixes...))
	}
	if path := u.Path; path != strings.ToLower(path) {
		e.report.Add(found("realm-characters", Warning, "the path of the realm "+realm+" has capital letters",
			"Watchtower makes the whole challenge lower-case, and asks at an address that is not there.", fixes...))
	}
}

// isAddress tells whether a realm is an address that may be asked. It is somebody else's word: with a name and password
// in it, or for other than the web, nobody is asked.
func (e *examination) isAddress(realm string, fixes ...Fix) (*url.URL, bool) {
	u, err := url.Parse(realm)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		e.report.Add(found("realm", Error, "the realm "+quote(redacted(realm))+" is no address", "Clients do not know where to get a token.", fixes...))
		return nil, false
	}
	if u.User != nil {
		e.report.Add(found("realm", Error, "the realm has a user name in it: "+redacted(realm), "Everybody who asks the registry is told it, and clients do not use it.", fixes...))
		return nil, false
	}
	return u, true
}

// judgeAddress looks at the host of a realm: an address in the place of a name, or a private one, is refused by clients
// that fear being sent into their own network (ggcr 0.21.4, oras-go 2.6.1 and later).
func (e *examination) judgeAddress(realm, registry *url.URL, fixes ...Fix) {
	host := realm.Hostname()
	sameHost := registry != nil && strings.EqualFold(registry.Hostname(), host)
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && isPrivate(ip) && registry != nil && !sameHost:
		e.report.Add(found("realm-address", Error, "the realm's host "+host+" is a private address, and not the registry's host",
			"crane, oras, helm and what is built on them refuse to send credentials there.", fixes...))
	case err == nil && isPrivate(ip) && sameHost && registry.Host != realm.Host:
		e.report.Add(found("realm-address", Warning, "the realm's host "+host+" is a private address, with another port than the registry's",
			"crane refuses it; use a name, as in localhost, on both sides.", fixes...))
	case err == nil && !network.IsLocal(host):
		e.report.Add(found("realm-address", Warning, "the realm's host "+host+" is an address, not a name",
			"Clients built on go-containerregistry 0.21.4 and 0.21.5 refuse addresses, and certificates rarely hold one.", fixes...))
	case err == nil, network.IsLocal(host), sameHost || registry == nil:
	default:
		address := e.privateAddress(host)
		if address != "" && !network.IsLocal(registry.Hostname()) && e.privateAddress(registry.Hostname()) == "" {
			e.report.Add(found("realm-address", Warning, "the realm's host "+host+" has the private address "+address+", the registry's host has a public one",
				"oras and helm (oras-go 2.6.4) refuse to be sent from a public registry into a private network.", fixes...))
		}
	}
}

// privateAddress is the first private address of a host, "" when it has none.
func (e *examination) privateAddress(host string) string {
	addresses := []string{host}
	if _, err := netip.ParseAddr(host); err != nil {
		addresses = e.Resolve(host)
	}
	for _, address := range addresses {
		if ip, err := netip.ParseAddr(address); err == nil && isPrivate(ip) {
			return address
		}
	}
	return ""
}

// judgeService looks at a service name as clients do that put it into an address without quoting.
func (e *examination) judgeService(name string, fixes ...Fix) {
	if bad := strings.IndexAny(name, "&+%# ,=\""); bad >= 0 {
		e.report.Add(found("service-characters", Warning, "the service "+quote(name)+" has the character "+quote(name[bad:bad+1]),
			"Jib, the Terraform provider and libvirt put it into an address without quoting.", fixes...))
	}
	if name != strings.ToLower(name) {
		e.report.Add(found("service-characters", Warning, "the service "+quote(name)+" has capital letters",
			"Watchtower makes the whole challenge lower-case, and asks for a service that is not listed.", fixes...))
	}
}

func isPrivate(ip netip.Addr) bool {
	return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified()
}

// redacted is an address as it may be printed: without a password, even where it is no address.
func redacted(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Redacted()
	}
	return address[strings.LastIndexByte(address, '@')+1:]
}

func quote(s string) string { return `"` + s + `"` }
