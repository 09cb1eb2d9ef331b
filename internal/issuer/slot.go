package issuer

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// slot is the place of one key, and of those before and after it:
//
//	NAME.key, NAME.crt            signs
//	NAME.next.key, NAME.next.crt  will sign
//	NAME.old/TIME.pem             signed until TIME: the public half, until its last token has expired
type slot struct {
	name    string
	current *Key
	next    *Key   // nil = none is made yet
	old     []*Key // which sign no more
}

const (
	keySuffix         = ".key"
	certificateSuffix = ".crt"
	nextSuffix        = ".next"
	oldTime           = "20060102T150405.000Z"
	chainFolder       = "chain"
)

// rootSlot is where the root is kept.
var rootSlot = &slot{name: "root"}

func (s *slot) nextName() string  { return s.name + nextSuffix }
func (s *slot) oldFolder() string { return s.name + ".old" }

func (s *slot) published() []*Key {
	keys := []*Key{s.current}
	if s.next != nil {
		keys = append(keys, s.next)
	}
	return append(keys, s.old...)
}

// goodAfter is how long after a key has signed last its tokens may be good: the longest lifetime, and what clocks differ.
func (o *opening) goodAfter() time.Duration {
	longest := time.Duration(0)
	for _, s := range o.Services {
		longest = max(longest, s.Lifetime)
	}
	return longest + 5*time.Minute
}

func (o *opening) readKey(name string) (crypto.Signer, error) {
	data, err := o.shelf.Read(name + keySuffix)
	if err != nil {
		return nil, err
	}
	private, err := parsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.shelf.Where(name+keySuffix), err)
	}
	return private, nil
}

func (o *opening) readCertificates(name string) ([]*x509.Certificate, error) {
	return o.readPEM(name+certificateSuffix, parseCertificates)
}

func (o *opening) readPEM(name string, parse func([]byte) ([]*x509.Certificate, error)) ([]*x509.Certificate, error) {
	data, err := o.shelf.Read(name)
	if err != nil {
		return nil, err
	}
	certificates, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.shelf.Where(name), err)
	}
	return certificates, nil
}

// loadOrGenerate reads a private key of ours, or makes and keeps it.
func (o *opening) loadOrGenerate(name, algorithm string) (crypto.Signer, error) {
	private, err := o.readKey(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return private, err
	}
	if private, err = generate(algorithm); err != nil {
		return nil, err
	}
	return private, o.keep(name, private, nil)
}

// keep writes a key, and a certificate beside it.
func (o *opening) keep(name string, private crypto.Signer, c *x509.Certificate) error {
	data, err := encodePrivateKey(private)
	if err != nil {
		return err
	}
	o.ring.made[name] = true
	if err := o.shelf.Write(name+keySuffix, data); err != nil || c == nil {
		return err
	}
	return o.shelf.Write(name+certificateSuffix, EncodeCertificates(c))
}

// certificateFor reads the self-signed certificate beside a key, or makes it: the key is what counts, so a certificate
// that was lost can be made again.
func (o *opening) certificateFor(name, commonName string, private crypto.Signer) (*x509.Certificate, error) {
	certificates, err := o.readCertificates(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c, err := selfSigned(private, commonName, o.now)
		if err != nil {
			return nil, err
		}
		return c, o.shelf.Write(name+certificateSuffix, EncodeCertificates(c))
	case err != nil:
		return nil, err
	}
	if _, _, err := checkChain(certificates[:1], private, o.now); err != nil {
		return nil, fmt.Errorf("%s: %w", o.shelf.Where(name+certificateSuffix), err)
	}
	return certificates[0], nil
}

// mostOld bounds how many keys a slot has replaced whose tokens may be good still: what a loop that rotates leaves behind
// is published in every JWKS. Keys that are replaced by themselves do not get near it.
const mostOld = 100

// crowded refuses to replace a key of a slot that has replaced too many lately.
func (o *opening) crowded(s *slot) error {
	names, err := o.shelf.List(s.oldFolder())
	if err == nil && len(names) >= mostOld {
		err = fmt.Errorf("%w (%s)", ErrCrowded, o.shelf.Where(s.oldFolder()))
	}
	return err
}

// retire keeps what tells that a token of the current key is ours, when it signs no more: its public half, or the
// certificate of the root, whose key may be offline. There is nothing to keep of a key that cannot be read.
func (o *opening) retire(s *slot) error {
	var data []byte
	if s == rootSlot {
		root, err := o.readCertificates(s.name)
		if err != nil {
			return err
		}
		data = EncodeCertificates(root[0])
	} else if current, err := o.readKey(s.name); err != nil {
		return nil
	} else if data, err = encodePublicKey(current.Public()); err != nil {
		return err
	}
	for at := o.now.UTC(); ; at = at.Add(time.Millisecond) {
		name := s.oldFolder() + "/" + at.Format(oldTime) + ".pem"
		if _, err := o.shelf.Read(name); errors.Is(err, fs.ErrNotExist) { // a clock that was set back tells a time twice
			return o.shelf.Write(name, data)
		}
	}
}

// promote puts the next key in the place of the current one, which is kept among those of before.
func (o *opening) promote(s *slot) error {
	if err := o.retire(s); err != nil {
		return err
	}
	return o.move(s)
}

// move puts the next key in the place of the current one. The key is written first and the next one removed last: a
// process that dies between leaves a next key that is the current one, and settle goes on from there.
func (o *opening) move(s *slot) error {
	for _, suffix := range []string{keySuffix, certificateSuffix} {
		data, err := o.shelf.Read(s.nextName() + suffix)
		if errors.Is(err, fs.ErrNotExist) && suffix == certificateSuffix {
			continue // verifier jwks has none
		}
		if err != nil {
			return err
		}
		if err := o.shelf.Write(s.name+suffix, data); err != nil {
			return err
		}
	}
	return o.drop(s.nextName())
}

// settle ends what a dying process began: the next key is in the place of the current one already.
func (o *opening) settle(s *slot) error {
	current, err := o.readKey(s.name)
	next, nextErr := o.readKey(s.nextName())
	if err == nil && nextErr == nil && equal(current.Public(), next.Public()) {
		return o.move(s)
	}
	return nil
}

// drop removes a key and its certificate: the certificate first, because it can be made again for a key, and a key for a
// certificate cannot.
func (o *opening) drop(name string) error {
	if err := o.shelf.Remove(name + certificateSuffix); err != nil {
		return err
	}
	return o.shelf.Remove(name + keySuffix)
}

// retired reads the keys that sign no more.
func (o *opening) retired(into *slot, algorithm, verifier string) error {
	return o.retiredNames(into, func(name string) error {
		data, err := o.shelf.Read(name)
		if err != nil {
			return err
		}
		public, err := parsePublic(data)
		if err != nil {
			return fmt.Errorf("%s: %w", o.shelf.Where(name), err)
		}
		key, err := publicKey(public, algorithm, verifier, o.shelf.Where(name))
		if err == nil && keyOf(into.published(), key.ID) == nil { // what a dying process retires is retired again, or was not replaced
			into.old = append(into.old, key)
		}
		return err
	})
}

// parsePublic reads what retire keeps.
func parsePublic(data []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(data)
	switch {
	case block == nil:
		return nil, errors.New("no public key in PEM form")
	case block.Type == "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

// retiredNames calls do with the names of what a slot has retired, and removes what is good for nothing any more.
func (o *opening) retiredNames(s *slot, do func(name string) error) error {
	names, err := o.shelf.List(s.oldFolder())
	if err != nil {
		return err
	}
	for _, name := range names {
		at, err := time.Parse(oldTime, strings.TrimSuffix(name[len(s.oldFolder())+1:], ".pem"))
		if err != nil {
			continue // not ours
		}
		if end := at.Add(o.goodAfter()); o.now.Before(end) {
			o.due(end)
			if err := do(name); err != nil {
				o.warn("a key that signs no more cannot be read, and is left out: %v", err)
			}
		} else if err := o.shelf.Remove(name); err != nil {
			o.warn("a key that signs no more cannot be removed: %v", err)
		}
	}
	return nil
}

// unmendable tells what is for the operator to mend, not for us to replace.
func unmendable(err error) bool {
	return errors.Is(err, errExposed) || errors.Is(err, fs.ErrPermission) || errors.Is(err, errSealed)
}
