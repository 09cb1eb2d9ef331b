package issuer

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
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
	DataDir      string // keys that are made here are kept here
	Vault        Vault  // or here, when it is not nil
	Name         string // common name of certificates
	Services     []Service
	RotateEvery  time.Duration // age at which a leaf under our root is replaced
	PublishAhead time.Duration // how long a leaf is published before it signs
	// Own key and certificates for all services with verifier chain; none = our own root.
	KeyFile, CertificateFile string
	// DryRun writes nothing: what is missing is made, used, and forgotten.
	DryRun bool
	Now    func() time.Time
}

// Keyring holds the signing key of every service, with those before and after it. It is immutable.
type Keyring struct {
	Root     *x509.Certificate // of the chain services; nil without one, or with keys brought by file
	RootFile string            // of its private key
	NextRoot *x509.Certificate // what will follow it; nil = none is made yet
	Warnings []string          // what will stop working if nobody acts
	Next     time.Time         // when it should be opened again: a key is due, or is to sign from then, or no longer needed
	roots    []*x509.Certificate
	slots    []*slot  // each once, in the order of the services
	services []string // in the order of the configuration
	byName   map[string]*slot
	made     map[string]bool // names of keys that were made when it was opened
}

// Kept is what of a dry run is there already: without the services whose registries can have been given nothing yet, because
// the key to trust, or the root, was made for the dry run. These are the lacking.
func (r *Keyring) Kept() (kept *Keyring, lacking []string) {
	k := *r
	k.slots, k.services, k.byName = nil, nil, map[string]*slot{}
	for _, service := range r.services {
		s := r.byName[service]
		trusted := s.name
		if strings.HasPrefix(s.name, chainFolder+"/") {
			trusted = rootSlot.name
		}
		if r.made[trusted] {
			lacking = append(lacking, service)
			continue
		}
		if !slices.Contains(k.slots, s) {
			k.slots = append(k.slots, s)
		}
		k.services, k.byName[service] = append(k.services, service), s
	}
	return &k, lacking
}

// Keys are all keys that sign, each once.
func (r *Keyring) Keys() []*Key {
	var keys []*Key
	for _, s := range r.slots {
		keys = append(keys, s.current)
	}
	return keys
}

// Published are the keys that sign, those that will, and those whose last tokens may still be good, each once.
func (r *Keyring) Published() []*Key {
	var keys []*Key
	for _, s := range r.slots {
		for _, key := range s.published() { // a key that was brought by file may be that of several services
			if !slices.ContainsFunc(keys, func(k *Key) bool { return k.ID == key.ID && k.Algorithm == key.Algorithm }) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// Roots are what registries with verifier chain are given to trust: our root, the one that will follow it, and the one
// that it followed lately.
func (r *Keyring) Roots() []*x509.Certificate { return r.roots }

// Services are the names of the services, in the order of the configuration.
func (r *Keyring) Services() []string { return r.services }

// For is the signing key of a service, nil for a service that is not listed.
func (r *Keyring) For(service string) *Key {
	if s := r.byName[service]; s != nil {
		return s.current
	}
	return nil
}

// PublishedFor are the keys of a service, as in Published.
func (r *Keyring) PublishedFor(service string) []*Key {
	if s := r.byName[service]; s != nil {
		return s.published()
	}
	return nil
}

// NextFor is the key that a service will sign with next; nil when none is made yet.
func (r *Keyring) NextFor(service string) *Key {
	if s := r.byName[service]; s != nil {
		return s.next
	}
	return nil
}

// OpenKeyring reads the keys that the services need, and makes those that are lacking or due. Processes that share a
// vault wait for each other.
//
// It holds root.crt and root.key (which may be moved offline until the next leaf is due), chain/ALGORITHM.*,
// pinned/SERVICE.* and jwks/ALGORITHM.key; what stands beside them is told at slot.
func OpenKeyring(c KeyConfig) (*Keyring, error) { return c.open(nil) }

// open opens the keyring after change, which may be nil.
func (c KeyConfig) open(change func(*opening) error) (*Keyring, error) {
	vault := c.Vault
	if vault == nil {
		vault = Folder(c.DataDir)
	}
	if c.DryRun {
		vault = trial(vault)
	}
	var ring *Keyring
	err := vault.Open(func(shelf Shelf) error {
		if change == nil {
			var err error
			ring, err = c.opening(shelf).build()
			return err
		}
		// Nothing is changed unless the keyring that comes of it can be used.
		changed := newOverlay(shelf)
		o := c.opening(changed)
		err := change(o)
		if err == nil {
			ring, err = o.build()
		}
		if err == nil {
			err = changed.replay()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return ring, nil
}

func (c KeyConfig) opening(shelf Shelf) *opening {
	return &opening{KeyConfig: c, shelf: shelf, now: c.Now(), ring: &Keyring{byName: map[string]*slot{}, made: map[string]bool{}}, shared: map[string]*slot{}}
}

func (o *opening) build() (*Keyring, error) {
	var faults []error
	for _, s := range o.Services {
		slot, err := o.slot(s)
		if err != nil {
			faults = append(faults, fmt.Errorf("key of service %q: %w", s.Name, err))
			continue
		}
		o.ring.byName[s.Name] = slot
		o.ring.services = append(o.ring.services, s.Name)
	}
	faults = append(faults, o.ring.pinnedAlone(o.Services)...)
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if root := o.ring.Root; root != nil && root.NotAfter.Sub(o.now) < rootWarning {
		o.warn("the root certificate ends %s; make the next one (authserver key rotate --root) and give it to the registries before", root.NotAfter.Format(time.DateOnly))
	}
	if o.Vault != nil && o.DataDir != "" && o.ring.Root != nil {
		unused := filepath.Join(o.DataDir, rootSlot.name+certificateSuffix)
		if c, err := readCertificates(unused); err == nil && !c[0].Equal(o.ring.Root) {
			o.warn("the keys in use are in the database, with a root of their own, which registries must be given (authserver key export); %s and the keys beside it are not used, remove them", unused)
		}
	}
	return o.ring, nil
}

// rootWarning is how long before the end of the root people are told: it takes a while to reach every registry.
const rootWarning = 365 * 24 * time.Hour

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
	shelf   Shelf
	now     time.Time
	ring    *Keyring
	rootKey crypto.Signer    // nil while offline
	shared  map[string]*slot // that services have in common
}

func (o *opening) warn(format string, args ...any) {
	o.ring.Warnings = append(o.ring.Warnings, fmt.Sprintf(format, args...))
}

// due notes when the keyring should be opened again. What could not be done although it was due waits for a change of
// files, or for the next look: opening again and again would not help.
func (o *opening) due(at time.Time) {
	if at.After(o.now) && (o.ring.Next.IsZero() || at.Before(o.ring.Next)) {
		o.ring.Next = at
	}
}

// slotName is where the key of a service is kept; own tells that it is a file that somebody else made.
func (o *opening) slotName(s Service) (name string, own bool) {
	switch algorithm := strings.ToLower(s.Algorithm); {
	case s.KeyFile != "":
		return strings.Join([]string{"file", s.KeyFile, s.CertificateFile, s.Algorithm, s.Verifier}, "\n"), true
	case s.Verifier == VerifierPinned:
		escaped := url.PathEscape(s.Name)
		if stem, ok := strings.CutSuffix(escaped, nextSuffix); ok { // or its key would be the next one of another service
			escaped = stem + "%2E" + nextSuffix[1:]
		}
		return "pinned/" + escaped, false
	case s.Verifier == VerifierJWKS:
		return "jwks/" + algorithm, false
	case o.KeyFile != "":
		return "file " + s.Algorithm, true
	default:
		return chainFolder + "/" + algorithm, false
	}
}

// slot finds or makes the keys of a service.
func (o *opening) slot(s Service) (*slot, error) {
	name, own := o.slotName(s)
	if have, ok := o.shared[name]; ok {
		return have, nil
	}
	found := &slot{name: name}
	var err error
	switch {
	case own && s.KeyFile != "":
		found.current, err = o.ownKey(s.KeyFile, s.CertificateFile, s.Algorithm, s.Verifier)
	case own:
		found.current, err = o.ownKey(o.KeyFile, o.CertificateFile, s.Algorithm, s.Verifier)
	case s.Verifier == VerifierChain:
		err = o.leaf(found, s.Algorithm)
	default:
		err = o.staged(found, s)
	}
	if err == nil && !own {
		err = o.retired(found, s.Algorithm, s.Verifier)
	}
	if err != nil {
		return nil, err
	}
	o.shared[name] = found
	o.ring.slots = append(o.ring.slots, found)
	return found, nil
}

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

// staged finds or makes a key that a registry was given itself, so that it is replaced only when an operator says so.
func (o *opening) staged(into *slot, s Service) error {
	if err := o.settle(into); err != nil {
		return err
	}
	private, err := o.loadOrGenerate(into.name, s.Algorithm)
	if err != nil {
		return err
	}
	if into.current, err = o.stagedKey(into.name, private, s); err != nil {
		return err
	}
	if private, err = o.readKey(into.nextName()); err == nil {
		into.next, err = o.stagedKey(into.nextName(), private, s)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil:
		return nil
	case unmendable(err):
		return err
	}
	into.next = nil
	o.warn("the next key of service %q cannot be used and is left out: %v", s.Name, err)
	return nil
}

func (o *opening) stagedKey(name string, private crypto.Signer, s Service) (*Key, error) {
	where := o.shelf.Where(name + keySuffix)
	if s.Verifier == VerifierJWKS {
		return newKey(private, s.Algorithm, VerifierJWKS, where, nil, nil)
	}
	if err := fits(private, s.Algorithm); err != nil {
		return nil, fmt.Errorf("%s: %w; or move the file away, and give the registry the new certificate", where, err)
	}
	c, err := o.certificateFor(name, o.Name+" signing key for "+s.Name, private)
	if err != nil {
		return nil, err
	}
	return newKey(private, s.Algorithm, VerifierPinned, where, []*x509.Certificate{c}, c)
}
