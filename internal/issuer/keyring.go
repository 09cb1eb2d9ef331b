package issuer

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"authserver/internal/durable"
)

// Kinds of verifiers, as services[].verifier names them.
const (
	VerifierChain  = "chain"  // trusts a root certificate; leaves are renewed under it
	VerifierPinned = "pinned" // compares with one key, which is this service's alone
	VerifierJWKS   = "jwks"   // looks the kid up in a JWKS; refuses x5c
)

// Service is one audience and how its registry verifies.
type Service struct {
	Name      string // aud
	Issuer    string // iss
	Verifier  string
	Algorithm string
	Lifetime  time.Duration
	// Own key and certificates, PEM. Certificates are leaf first; verifier jwks needs none.
	KeyFile, CertificateFile string
}

// KeyConfig says which keys there must be.
type KeyConfig struct {
	DataDir     string // keys that are made here are kept here
	Name        string // common name of certificates
	Services    []Service
	RotateEvery time.Duration // age at which a leaf under our root is replaced
	// Own key and certificates for all services with verifier chain; none = our own root.
	KeyFile, CertificateFile string
	// DryRun writes nothing: what is missing is made, used, and forgotten.
	DryRun bool
	Now    func() time.Time
}

// Keyring holds the signing key of every service. It is immutable.
type Keyring struct {
	Root     *x509.Certificate // of the chain services; nil without one, or with keys brought by file
	Warnings []string          // what will stop working if nobody acts
	keys     []*Key            // each once, in the order of the services
	services []string
	byName   map[string]*Key
}

// Keys are all signing keys, each once.
func (r *Keyring) Keys() []*Key { return r.keys }

// Services are the names of the services, in the order of the configuration.
func (r *Keyring) Services() []string { return r.services }

// For is the signing key of a service, nil for a service that is not listed.
func (r *Keyring) For(service string) *Key { return r.byName[service] }

// OpenKeyring reads the keys that the services need, and makes those that the data folder lacks. Processes that share
// the folder wait for each other.
//
// The folder holds root.crt and root.key (which may be moved offline until the next leaf is due), chain/ALGORITHM.*,
// pinned/SERVICE.* and jwks/ALGORITHM.key.
func OpenKeyring(c KeyConfig) (*Keyring, error) {
	if !c.DryRun {
		if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
			return nil, fmt.Errorf("data folder: %w", err)
		}
		// Whoever can write there can put in a root of their own.
		if info, err := os.Stat(c.DataDir); err == nil && info.Mode().Perm()&0o002 != 0 {
			return nil, fmt.Errorf("data folder: everybody on this machine can write to %s; run: chmod o-w %s", c.DataDir, c.DataDir)
		}
		unlock, err := durable.Lock(c.DataDir)
		if err != nil {
			return nil, fmt.Errorf("data folder: %w", err)
		}
		defer unlock()
	}
	o := opening{KeyConfig: c, now: c.Now(), ring: &Keyring{byName: map[string]*Key{}}, shared: map[string]*Key{}}
	var faults []error
	for _, s := range c.Services {
		key, err := o.key(s)
		if err != nil {
			faults = append(faults, fmt.Errorf("key of service %q: %w", s.Name, err))
			continue
		}
		o.ring.byName[s.Name] = key
		o.ring.services = append(o.ring.services, s.Name)
	}
	faults = append(faults, o.ring.pinnedAlone(c.Services)...)
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if root := o.ring.Root; root != nil && root.NotAfter.Sub(o.now) < 365*24*time.Hour {
		o.warn("the root certificate ends %s; make a new one and give it to the registries before", root.NotAfter.Format(time.DateOnly))
	}
	return o.ring, nil
}

// pinnedAlone refuses a key that a pinned service shares with another. Verifiers that compare with one key check neither
// iss nor aud (zot, ChartMuseum): a token for the other service would be good there. Keys are compared, not files.
func (r *Keyring) pinnedAlone(services []Service) []error {
	var faults []error
	for i, a := range services {
		for _, b := range services[i+1:] {
			keyA, keyB := r.For(a.Name), r.For(b.Name)
			if keyA != nil && keyB != nil && keyA.ID == keyB.ID && (a.Verifier == VerifierPinned || b.Verifier == VerifierPinned) {
				faults = append(faults, fmt.Errorf("services %q and %q have the same key; a service with verifier pinned needs one of its own, because its registry takes whatever that key signs", a.Name, b.Name))
			}
		}
	}
	return faults
}

// opening is one run of OpenKeyring.
type opening struct {
	KeyConfig
	now     time.Time
	ring    *Keyring
	rootKey crypto.Signer   // nil while offline
	shared  map[string]*Key // keys that services have in common
}

func (o *opening) warn(format string, args ...any) {
	o.ring.Warnings = append(o.ring.Warnings, fmt.Sprintf(format, args...))
}

// key finds or makes the key of a service.
func (o *opening) key(s Service) (*Key, error) {
	var slot string
	var open func(slot string) (*Key, error)
	switch {
	case s.KeyFile != "":
		slot, open = strings.Join([]string{"file", s.KeyFile, s.CertificateFile, s.Algorithm, s.Verifier}, "\n"), func(string) (*Key, error) {
			return o.ownKey(s.KeyFile, s.CertificateFile, s.Algorithm, s.Verifier)
		}
	case s.Verifier == VerifierPinned:
		slot, open = "pinned/"+url.PathEscape(s.Name), func(slot string) (*Key, error) {
			return o.pinned(slot, s)
		}
	case s.Verifier == VerifierJWKS:
		slot, open = filepath.Join("jwks", strings.ToLower(s.Algorithm)), func(slot string) (*Key, error) {
			private, err := o.loadOrGenerate(slot+".key", s.Algorithm)
			if err != nil {
				return nil, err
			}
			return newKey(private, s.Algorithm, VerifierJWKS, o.path(slot+".key"), nil, nil)
		}
	case o.KeyFile != "":
		slot, open = "file "+s.Algorithm, func(string) (*Key, error) {
			return o.ownKey(o.KeyFile, o.CertificateFile, s.Algorithm, s.Verifier)
		}
	default:
		slot, open = filepath.Join("chain", strings.ToLower(s.Algorithm)), func(slot string) (*Key, error) {
			return o.leaf(slot, s.Algorithm)
		}
	}
	if key, ok := o.shared[slot]; ok {
		return key, nil
	}
	key, err := open(slot)
	if err != nil {
		return nil, err
	}
	o.shared[slot] = key
	o.ring.keys = append(o.ring.keys, key)
	return key, nil
}

func (o *opening) path(name string) string { return filepath.Join(o.DataDir, name) }

// ownKey reads a key that somebody else made.
func (o *opening) ownKey(keyFile, certificateFile, algorithm, verifier string) (*Key, error) {
	private, err := readPrivateKey(keyFile)
	if err != nil {
		return nil, err
	}
	if verifier == VerifierJWKS {
		return newKey(private, algorithm, verifier, keyFile, nil, nil)
	}
	certificates, err := readCertificates(certificateFile)
	if err != nil {
		return nil, err
	}
	x5c, anchor, err := checkChain(certificates, private, o.now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certificateFile, err)
	}
	if left := x5c[0].NotAfter.Sub(o.now); left < 30*24*time.Hour {
		o.warn("the certificate in %s ends %s; registries refuse every token from then on", certificateFile, x5c[0].NotAfter.Format(time.RFC3339))
	}
	if verifier == VerifierPinned {
		anchor = x5c[0] // it compares with the key itself, whoever certified it
	}
	return newKey(private, algorithm, verifier, keyFile, x5c, anchor)
}

// loadOrGenerate reads a private key of ours, or makes and keeps it.
func (o *opening) loadOrGenerate(name, algorithm string) (crypto.Signer, error) {
	file := o.path(name)
	private, err := readPrivateKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return private, err
	}
	if private, err = generate(algorithm); err != nil {
		return nil, err
	}
	return private, o.keep(file, private, nil)
}

// keep writes a key, and a certificate beside it, into the data folder.
func (o *opening) keep(keyFile string, private crypto.Signer, c *x509.Certificate) error {
	if o.DryRun {
		return nil
	}
	if err := durable.Mkdir(filepath.Dir(keyFile), 0o700); err != nil {
		return err
	}
	if private != nil {
		if err := writePrivateKey(keyFile, private); err != nil {
			return err
		}
	}
	if c == nil {
		return nil
	}
	return writeCertificate(strings.TrimSuffix(keyFile, ".key")+".crt", c)
}

// certificateFor reads the self-signed certificate beside a key, or makes it: the key is what counts, so a certificate
// that was lost can be made again.
func (o *opening) certificateFor(slot, commonName string, private crypto.Signer) (*x509.Certificate, error) {
	file := o.path(slot + ".crt")
	certificates, err := readCertificates(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c, err := selfSigned(private, commonName, o.now)
		if err != nil {
			return nil, err
		}
		return c, o.keep(o.path(slot+".key"), nil, c)
	case err != nil:
		return nil, err
	}
	if _, _, err := checkChain(certificates[:1], private, o.now); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return certificates[0], nil
}

func (o *opening) pinned(slot string, s Service) (*Key, error) {
	private, err := o.loadOrGenerate(slot+".key", s.Algorithm)
	if err != nil {
		return nil, err
	}
	if err := fits(private, s.Algorithm); err != nil {
		return nil, fmt.Errorf("%s: %w; or move the file away, and give the registry the new certificate", o.path(slot+".key"), err)
	}
	c, err := o.certificateFor(slot, o.Name+" signing key for "+s.Name, private)
	if err != nil {
		return nil, err
	}
	return newKey(private, s.Algorithm, VerifierPinned, o.path(slot+".key"), []*x509.Certificate{c}, c)
}

// loadRoot reads the root, or makes it when there is neither its certificate nor its key.
func (o *opening) loadRoot() error {
	if o.ring.Root != nil {
		return nil
	}
	private, err := readPrivateKey(o.path("root.key"))
	switch {
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		return err
	default: // the key may be offline, but then the certificate is here
		certificates, err := readCertificates(o.path("root.crt"))
		if err == nil {
			o.ring.Root = certificates[0]
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// Signing keys without a root: it was lost, or is elsewhere. A new one would be trusted by no registry.
		if leaves, err := os.ReadDir(o.path("chain")); err == nil && len(leaves) > 0 {
			return fmt.Errorf("%s is not there, but signing keys under it are (%s); bring it back, or remove them to begin with a new root, which every registry must then be given",
				o.path("root.crt"), o.path("chain"))
		}
		if private, err = o.loadOrGenerate("root.key", ES256); err != nil {
			return err
		}
	}
	root, err := o.certificateFor("root", o.Name+" token root", private)
	if err != nil {
		return err
	}
	o.ring.Root, o.rootKey = root, private
	return nil
}

// leaf reads the signing key for an algorithm under the root; it makes one when there is none, or when it is due.
func (o *opening) leaf(slot, algorithm string) (*Key, error) {
	if err := o.loadRoot(); err != nil {
		return nil, err
	}
	keyFile, certificateFile := o.path(slot+".key"), o.path(slot+".crt")
	key, err := o.readLeaf(keyFile, certificateFile, algorithm)
	if errors.Is(err, errExposed) || errors.Is(err, fs.ErrPermission) {
		return nil, err // for the operator to mend, not for us to replace
	}
	due := err != nil || o.now.Sub(key.Chain[0].NotBefore.Add(backdate)) >= o.RotateEvery
	if !due {
		return key, nil
	}
	if o.rootKey == nil {
		if err != nil {
			return nil, fmt.Errorf("no signing key can be used (%w), and a new one needs %s, which is not there; bring it back", err, o.path("root.key"))
		}
		o.warn("the signing key %s is due to be replaced, but %s is not there; it is good until %s",
			keyFile, o.path("root.key"), key.Chain[0].NotAfter.Format(time.DateOnly))
		return key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.warn("the signing key %s was replaced: %v", keyFile, err)
	}
	private, err := generate(algorithm)
	if err != nil {
		return nil, err
	}
	c, err := leafCertificate(private.Public(), o.Name+" token signing key", o.ring.Root, o.rootKey, o.now)
	if err != nil {
		return nil, err
	}
	if err := o.keep(keyFile, private, c); err != nil {
		return nil, err
	}
	return newKey(private, algorithm, VerifierChain, keyFile, []*x509.Certificate{c}, o.ring.Root)
}

// readLeaf reads a leaf and checks it as a registry would.
func (o *opening) readLeaf(keyFile, certificateFile, algorithm string) (*Key, error) {
	private, err := readPrivateKey(keyFile)
	if err != nil {
		return nil, err
	}
	certificates, err := readCertificates(certificateFile)
	if err != nil {
		return nil, err
	}
	if _, _, err := checkChain(certificates[:1], private, o.now); err != nil {
		return nil, fmt.Errorf("%s: %w", certificateFile, err)
	}
	if err := certificates[0].CheckSignatureFrom(o.ring.Root); err != nil {
		return nil, fmt.Errorf("%s: not signed by %s: %w", certificateFile, o.path("root.crt"), err)
	}
	return newKey(private, algorithm, VerifierChain, keyFile, certificates[:1], o.ring.Root)
}
