package server

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Listen opens host:port, or unix:/path. A socket that a dead process left behind is removed.
func Listen(address string) (net.Listener, error) {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return net.Listen("tcp", address)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("%s: another process listens there", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// The mode is there from the first moment: who may connect to a trusted socket may name any client address.
	mask := syscall.Umask(0o117)
	defer syscall.Umask(mask)
	return net.Listen("unix", path)
}

// Certificate is a TLS certificate that is read again when its files change.
type Certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamp   string    // of the files that current was read from, or that were refused
	looked  time.Time // when the files were last looked at
}

// LoadCertificate reads a certificate and its key.
func LoadCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log}
	var err error
	if c.stamp, err = c.stat(); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", certFile, keyFile, err)
	}
	c.current, c.looked = &pair, time.Now()
	return c, nil
}

// stat tells one state of the files from another; links are followed, so a swapped link is a change.
func (c *Certificate) stat() (string, error) {
	var stamp strings.Builder
	for _, file := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&stamp, "%d %d ", info.ModTime().UnixNano(), info.Size())
	}
	return stamp.String(), nil
}

// Config returns the TLS settings of a listener with this certificate; minVersion is "1.2" or "1.3".
func (c *Certificate) Config(minVersion string) *tls.Config {
	least := uint16(tls.VersionTLS12)
	if minVersion == "1.3" {
		least = tls.VersionTLS13
	}
	return &tls.Config{
		MinVersion:     least,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.get(time.Now()) },
	}
}

// End is when it ends.
func (c *Certificate) End() time.Time {
	pair, err := c.get(time.Now())
	if err != nil || pair.Leaf == nil {
		return time.Time{}
	}
	return pair.Leaf.NotAfter
}

// get looks at the files at most once a second. New ones that cannot be used are logged, once, and the old stay in use:
// cert and key are replaced one after the other, and in between they do not match.
func (c *Certificate) get(now time.Time) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.looked) < time.Second {
		return c.current, nil
	}
	c.looked = now
	stamp, err := c.stat()
	if err == nil && stamp == c.stamp {
		return c.current, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(c.certFile, c.keyFile)
	}
	if err != nil {
		if stamp != c.stamp {
			c.log.Error("the changed TLS certificate cannot be used, the old one stays in use", "error", err.Error())
		}
		c.stamp = stamp
		return c.current, nil
	}
	c.current, c.stamp = &pair, stamp
	c.log.Info("TLS certificate read again", "file", c.certFile)
	return c.current, nil
}
