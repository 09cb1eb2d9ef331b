package issuer

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Errors of Rotate and Revoke.
var (
	ErrOwnKey    = errors.New("this key was brought by file; replace the files, and they are taken into use when they change")
	ErrNoNext    = errors.New("there is no next key to take into use; make it first, and give it to the registry")
	ErrNoLeaves  = errors.New("no service with verifier chain has a key of ours; name the service whose key is to be replaced")
	ErrNoSuchKey = errors.New("no key has this id")
)

// RotateLeaves makes new signing keys under the root, and takes them into use now: their registries trust the root, and
// notice nothing.
func RotateLeaves(c KeyConfig) (*Keyring, error) {
	return c.open(func(o *opening) error {
		if len(o.leafSlots()) == 0 {
			return ErrNoLeaves
		}
		if err := o.loadRoot(); err != nil {
			return err
		}
		if o.rootKey == nil {
			return fmt.Errorf("a new signing key needs %s, which is not there; bring it back", o.shelf.Where(rootSlot.name+keySuffix))
		}
		for name, algorithm := range o.leafSlots() {
			if _, err := o.makeLeaf((&slot{name: name}).nextName(), algorithm, o.now); err != nil {
				return err
			}
		}
		return nil // opening takes them into use, as their time has come
	})
}

// Stage makes the next key of a service with verifier pinned or jwks. It does not sign until it is activated; when it is
// made already, nothing changes.
func Stage(c KeyConfig, service string) (*Keyring, error) {
	return c.open(func(o *opening) error {
		s, at, err := o.stagedSlot(service)
		if err != nil {
			return err
		}
		private, err := o.loadOrGenerate(at.nextName(), s.Algorithm)
		if err != nil {
			return err
		}
		_, err = o.stagedKey(at.nextName(), private, s)
		return err
	})
}

// Activate lets a service sign with its next key.
func Activate(c KeyConfig, service string) (*Keyring, error) {
	return c.open(func(o *opening) error {
		_, at, err := o.stagedSlot(service)
		if err != nil {
			return err
		}
		return o.activate(at)
	})
}

func (o *opening) activate(at *slot) error {
	if _, err := o.shelf.Read(at.nextName() + keySuffix); errors.Is(err, fs.ErrNotExist) {
		return ErrNoNext
	} else if err != nil {
		return err
	}
	return o.promote(at)
}

func (o *opening) stagedSlot(service string) (Service, *slot, error) {
	for _, s := range o.Services {
		if s.Name == service {
			name, own := o.slotName(s)
			if own {
				return s, nil, ErrOwnKey
			}
			return s, &slot{name: name}, nil
		}
	}
	return Service{}, nil, fmt.Errorf("service %q is not known", service)
}

// StageRoot makes the next root. Registries must be given it, beside the one in use, before it is activated.
func StageRoot(c KeyConfig) (*Keyring, error) {
	return c.open(func(o *opening) error {
		if err := o.loadRoot(); err != nil {
			return err
		}
		o.ring = &Keyring{byName: o.ring.byName} // to be read again, with the next
		private, err := o.loadOrGenerate(rootSlot.nextName(), ES256)
		if err != nil {
			return err
		}
		_, err = o.certificateFor(rootSlot.nextName(), o.Name+" token root", private)
		return err
	})
}

// ActivateRoot puts the next root in the place of the one in use, and makes signing keys under it.
func ActivateRoot(c KeyConfig) (*Keyring, error) {
	return c.open(func(o *opening) error {
		old, err := o.readCertificates(rootSlot.name)
		if err != nil {
			return err
		}
		if _, err := o.shelf.Read(rootSlot.nextName() + keySuffix); errors.Is(err, fs.ErrNotExist) {
			return ErrNoNext
		}
		for name := range o.leafSlots() {
			at := &slot{name: name}
			if private, err := o.readKey(name); err == nil {
				key, err := publicKey(private.Public(), "", "", "")
				if err != nil {
					return err
				}
				if err := o.retire(at, key); err != nil {
					return err
				}
			}
			if err := errors.Join(o.drop(name), o.drop(at.nextName())); err != nil {
				return err
			}
		}
		if err := o.activate(rootSlot); err != nil {
			return err
		}
		// The whole certificate: registries are to be given it until the last token under it has expired.
		return o.shelf.Write(rootSlot.oldFolder()+"/"+o.now.UTC().Format(oldTime)+".pem", EncodeCertificates(old[0]))
	})
}

// leafSlots are the slots under the root: name to algorithm.
func (o *opening) leafSlots() map[string]string {
	found := map[string]string{}
	for _, s := range o.Services {
		if name, own := o.slotName(s); s.Verifier == VerifierChain && !own {
			found[name] = s.Algorithm
		}
	}
	return found
}

// Revoke removes a key for good, as when it was stolen, and puts another in its place. wholeRoot tells that the root was
// replaced too: registries with verifier chain look at no revocation list, so whoever has a key under the root can sign
// until its certificate ends, and the registries must be told to trust the root no more.
func Revoke(c KeyConfig, id string) (ring *Keyring, services []string, wholeRoot bool, err error) {
	ring, err = c.open(func(o *opening) error {
		seen, err := c.openFor(o)
		if err != nil {
			return err
		}
		replaced := map[*slot]bool{} // services may have one in common
		for _, s := range c.Services {
			at := seen.byName[s.Name]
			if at == nil || !slices.ContainsFunc(at.published(), func(k *Key) bool { return k.ID == id }) {
				continue
			}
			if _, own := o.slotName(s); own {
				return ErrOwnKey
			}
			services = append(services, s.Name)
			if s.Verifier == VerifierChain {
				wholeRoot = true
			} else if !replaced[at] {
				replaced[at] = true
				if err := o.replace(at, id); err != nil {
					return err
				}
			}
		}
		wholeRoot = wholeRoot || seen.Root != nil && RootID(seen.Root) == id
		switch {
		case wholeRoot:
			services = slices.DeleteFunc(slices.Clone(seen.services), func(name string) bool { return seen.For(name).Use != VerifierChain })
			return o.removeRoot()
		case len(services) == 0:
			return ErrNoSuchKey
		}
		return nil
	})
	return ring, services, wholeRoot, err
}

// openFor reads the keyring as it is, within an opening.
func (c KeyConfig) openFor(o *opening) (*Keyring, error) {
	look := opening{KeyConfig: c, shelf: o.shelf, now: o.now, ring: &Keyring{byName: map[string]*slot{}}, shared: map[string]*slot{}}
	return look.build()
}

// replace removes one key of a slot. The next takes the place of the current one, or else a new one will be made.
func (o *opening) replace(at *slot, id string) error {
	for _, old := range at.old {
		if old.ID == id {
			names, err := o.shelf.List(at.oldFolder())
			if err != nil {
				return err
			}
			for _, name := range names {
				if o.shelf.Where(name) == old.Source {
					return o.shelf.Remove(name)
				}
			}
		}
	}
	if at.next != nil && at.next.ID == id {
		return o.drop(at.nextName())
	}
	if err := o.drop(at.name); err != nil || at.next == nil {
		return err
	}
	return o.promote(at)
}

// removeRoot removes the root, and every key under it.
func (o *opening) removeRoot() error {
	names, err := o.shelf.List(chainFolder)
	if err != nil {
		return err
	}
	old, err := o.shelf.List(rootSlot.oldFolder())
	if err != nil {
		return err
	}
	faults := []error{o.drop(rootSlot.name), o.drop(rootSlot.nextName())}
	for _, name := range append(names, old...) {
		faults = append(faults, o.shelf.Remove(name))
	}
	return errors.Join(faults...)
}

// RootID is the id of a root, by which it is listed and revoked.
func RootID(root *x509.Certificate) string {
	id, err := fingerprint(root.PublicKey)
	if err != nil { // a key that was parsed can be encoded
		return ""
	}
	return id
}
