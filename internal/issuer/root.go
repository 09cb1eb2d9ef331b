package issuer

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// loadRoot reads the root, or makes it when there is neither its certificate nor its key.
func (o *opening) loadRoot() error {
	if o.ring.Root != nil {
		return nil
	}
	root, private, err := o.readRoot()
	if err != nil {
		return err
	}
	o.ring.Root, o.rootKey, o.ring.roots = root, private, []*x509.Certificate{root}
	o.ring.RootFile = o.shelf.Where(rootSlot.name + keySuffix)
	next, err := o.nextRoot()
	switch {
	case err == nil:
		o.ring.NextRoot, o.ring.roots = next, append(o.ring.roots, next)
	case unmendable(err):
		return err
	case !errors.Is(err, fs.ErrNotExist):
		o.warn("the next root cannot be used and is left out: %v", err)
	}
	return o.retiredNames(rootSlot, func(name string) error {
		old, err := o.readPEM(name, parseCertificates)
		if err == nil && !slices.ContainsFunc(o.ring.roots, old[0].Equal) {
			o.ring.roots = append(o.ring.roots, old[0])
		}
		return err
	})
}

// nextRoot reads the certificate of the next root. Its key may be offline until it is activated.
func (o *opening) nextRoot() (*x509.Certificate, error) {
	certificates, err := o.readCertificates(rootSlot.nextName())
	if err != nil {
		return nil, err
	}
	private, err := o.readKey(rootSlot.nextName())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return certificates[0], nil
	case err != nil:
		return nil, err
	}
	if _, _, err := checkChain(certificates[:1], private, o.now); err != nil {
		return nil, fmt.Errorf("%s: %w", o.shelf.Where(rootSlot.nextName()+certificateSuffix), err)
	}
	return certificates[0], nil
}

func (o *opening) rootName() string { return o.Name + " token root" }

func (o *opening) readRoot() (*x509.Certificate, crypto.Signer, error) {
	if err := o.settle(rootSlot); err != nil {
		return nil, nil, err
	}
	private, err := o.readKey(rootSlot.name)
	switch {
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		return nil, nil, err
	default: // the key may be offline, but then the certificate is here
		certificates, err := o.readCertificates(rootSlot.name)
		if err == nil {
			return certificates[0], nil, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		// Signing keys without a root: it was lost, or is elsewhere. A new one would be trusted by no registry.
		if leaves, err := o.shelf.List(chainFolder); err == nil && len(leaves) > 0 {
			return nil, nil, fmt.Errorf("%s is not there, but signing keys under it are (%s); bring it back, or remove them to begin with a new root, which every registry must then be given",
				o.shelf.Where(rootSlot.name+certificateSuffix), o.shelf.Where(chainFolder))
		}
		if private, err = o.loadOrGenerate(rootSlot.name, ES256); err != nil {
			return nil, nil, err
		}
	}
	root, err := o.certificateFor(rootSlot.name, o.rootName(), private)
	return root, private, err
}
