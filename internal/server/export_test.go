package server

import (
	"crypto/tls"
	"time"
)

// CertificateAt is what a handshake gets at a time.
func CertificateAt(c *Certificate, now time.Time) (*tls.Certificate, error) { return c.get(now) }
