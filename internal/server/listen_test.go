package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/internal/server"
)

// writeCertificate writes a certificate for localhost with a serial number.
func writeCertificate(t *testing.T, certFile, keyFile string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func serial(t *testing.T, c *server.Certificate, now time.Time) int64 {
	t.Helper()
	pair, err := server.CertificateAt(c, now)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.SerialNumber.Int64()
}

func TestTheCertificateIsReadAgainWhenItsFilesChange(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeCertificate(t, certFile, keyFile, 1)
	var log bytes.Buffer
	c, err := server.LoadCertificate(certFile, keyFile, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	later := func() time.Time { now = now.Add(2 * time.Second); return now }
	if got := serial(t, c, later()); got != 1 {
		t.Fatalf("serial %d", got)
	}
	if left := time.Until(c.End()); left < 50*time.Minute || left > time.Hour {
		t.Errorf("it ends in %s", left)
	}
	writeCertificate(t, certFile, keyFile, 22) // another length of serial, should the clock of the file system be coarse
	touch(t, certFile)
	if got := serial(t, c, later()); got != 22 {
		t.Errorf("serial %d after a change", got)
	}
	// Half a change: the certificate without its key.
	oldKey, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	writeCertificate(t, certFile, keyFile, 333)
	newKey, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, oldKey, 0o600); err != nil {
		t.Fatal(err)
	}
	touch(t, certFile)
	for range 3 {
		if got := serial(t, c, later()); got != 22 {
			t.Errorf("serial %d with half a change", got)
		}
	}
	if n := strings.Count(log.String(), "cannot be used"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
	if err := os.WriteFile(keyFile, newKey, 0o600); err != nil {
		t.Fatal(err)
	}
	touch(t, keyFile)
	if got := serial(t, c, later()); got != 333 {
		t.Errorf("serial %d after the whole change", got)
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	if got := serial(t, c, later()); got != 333 {
		t.Errorf("serial %d without a file", got)
	}
}

var touched = time.Now()

func touch(t *testing.T, file string) {
	t.Helper()
	touched = touched.Add(time.Minute)
	if err := os.Chtimes(file, touched, touched); err != nil {
		t.Fatal(err)
	}
}

func TestCertificatesThatCannotBeUsedAreRefusedAtStart(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if _, err := server.LoadCertificate(certFile, keyFile, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no files")
	}
	writeCertificate(t, certFile, keyFile, 1)
	writeCertificate(t, filepath.Join(dir, "x"), keyFile, 2)
	if _, err := server.LoadCertificate(certFile, keyFile, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), certFile) {
		t.Errorf("another key: %v", err)
	}
}

func TestTLSVersions(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeCertificate(t, certFile, keyFile, 1)
	c, err := server.LoadCertificate(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for least, works := range map[string]map[uint16]bool{
		"1.2": {tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true},
		"1.3": {tls.VersionTLS12: false, tls.VersionTLS13: true},
	} {
		ln, err := tls.Listen("tcp", "127.0.0.1:0", c.Config(least))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				_ = conn.(*tls.Conn).Handshake()
				_ = conn.Close()
			}
		}()
		for version, want := range works {
			conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
			if (err == nil) != want {
				t.Errorf("least %s, client %s: %v", least, tls.VersionName(version), err)
			}
			if err == nil {
				_ = conn.Close()
			}
		}
		_ = ln.Close()
	}
}

func TestListenOnAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := server.Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	f := newFace(t)
	srv := server.NewHTTP(f.handler, f.config.Log)
	go func() { _ = srv.Serve(ln) }()
	if _, err := server.Listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("a socket in use: %v", err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	r, err := client.Get("http://socket/token?scope=repository:office/a:pull")
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	if r.StatusCode != http.StatusOK || !strings.Contains(f.audit.String(), `"client":""`) {
		t.Errorf("%d %s", r.StatusCode, f.audit)
	}
	_ = srv.Close()

	// A socket that a killed process left behind.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	ln, err = server.Listen("unix:" + path)
	if err != nil {
		t.Fatalf("a dead socket: %v", err)
	}
	_ = ln.Close()

	// A file that is no socket is not removed.
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Listen("unix:" + path); err == nil {
		t.Error("a file was taken for a socket")
	}
}
