package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// An answer is what came back. Its body is bounded.
type answer struct {
	asked  *url.URL
	status int
	header http.Header
	body   []byte
	tls    *tls.ConnectionState
	date   time.Time // of the server's clock, to the second; zero when it does not say
	at     time.Time // of ours
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 256 << 10

// ask sends a request. What goes out never holds more than change puts in.
func (e *examination) ask(ctx context.Context, method, address string, form url.Values, change func(*http.Request)) (answer, error) {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	request, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("User-Agent", "authserver-doctor")
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if change != nil {
		change(request)
	}
	response, err := e.Client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	a := answer{asked: request.URL, status: response.StatusCode, header: response.Header, tls: response.TLS, at: e.Now()}
	a.body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	a.date, _ = http.ParseTime(response.Header.Get("Date"))
	return a, err
}

// redirects tells where an answer sends the client, "" for nowhere. What belongs to the one request is left out: another
// is made for it elsewhere.
func (a answer) redirects() string {
	location := a.header.Get("Location")
	if a.status < 300 || a.status >= 400 || location == "" {
		return ""
	}
	to, err := a.asked.Parse(location)
	if err != nil {
		return redacted(location)
	}
	to.User, to.RawQuery, to.ForceQuery, to.Fragment = nil, "", false, ""
	return to.String()
}

// token is the token in an answer of a token server, "" when there is none.
func (a answer) token() string {
	var t struct {
		Token string `json:"token"`
	}
	if a.status != http.StatusOK || json.Unmarshal(a.body, &t) != nil {
		return ""
	}
	return t.Token
}

// skew is how far the server's clock is ahead of ours.
func (a answer) skew() time.Duration {
	if a.date.IsZero() {
		return 0
	}
	return a.date.Sub(a.at.Truncate(time.Second))
}

// unreached says in words why a server was not reached, and what could be done.
func unreached(address string, err error, side string) (what string, fixes []Fix) {
	u, parseErr := url.Parse(address)
	if parseErr != nil {
		return "no address: " + address, nil
	}
	var proxy *net.OpError
	var dns *net.DNSError
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var outage net.Error
	switch {
	case errors.As(err, &proxy) && proxy.Op == "proxyconnect": // first: what is the matter with the proxy is in it
		return fmt.Sprintf("%s is asked for by way of a proxy, which cannot be reached: %v", u.Host, proxy.Err),
			[]Fix{{Machine, "", strings.ToUpper(u.Scheme) + "_PROXY in the environment, or " + u.Hostname() + " in NO_PROXY there"}}
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %s cannot be resolved on this machine", dns.Name), []Fix{{Machine, "", "a DNS entry for " + dns.Name}}
	case errors.As(err, &unknown):
		return fmt.Sprintf("the certificate of %s is signed by nobody whom this machine trusts", u.Host),
			[]Fix{{side, "", "serve the whole chain of certificates, of an authority that clients trust"}, {Machine, "", "put its authority among the system's certificates here and on every client (docker: /etc/docker/certs.d/HOST/ca.crt); SSL_CERT_FILE names it for this command"}}
	case errors.As(err, &hostname):
		return fmt.Sprintf("the certificate of %s is not for that name: %v", u.Host, hostname), []Fix{{side, "", "a certificate with the name " + u.Hostname()}}
	case errors.As(err, &invalid):
		return fmt.Sprintf("the certificate of %s: %v", u.Host, invalid), []Fix{{side, "", "renew the certificate"}}
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return u.Host + " does not speak TLS", []Fix{{side, "", "http:// in the address, or TLS at " + u.Host}}
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens at " + u.Host, []Fix{{side, "", "start it, or publish its port"}}
	case errors.As(err, &outage) && outage.Timeout():
		return u.Host + " does not answer", []Fix{{Machine, "", "let this machine reach " + u.Host + " (a firewall, a network policy)"}}
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the address, which stands there already
	}
	return fmt.Sprintf("%s cannot be reached: %v", u.Host, err), []Fix{{side, "", "its log, and that of a proxy before it"}}
}
