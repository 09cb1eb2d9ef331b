package server

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"time"
)

// CertificateAt is what a handshake gets at a time.
func CertificateAt(c *Certificate, now time.Time) (*tls.Certificate, error) { return c.get(now) }

// ClientAddr is the address that a request is taken to come from.
func ClientAddr(c Config, r *http.Request) (netip.Addr, error) {
	return (&server{Config: c}).clientAddr(r)
}
