package issuer

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Errors of the functions that change keys.
var (
	ErrOwnKey    = errors.New("this key was brought by file; replace the files, and they are taken into use when they change")
	ErrNoNext    = errors.New("there is no next key to take into use; make it first, and give it to the registry")
	ErrNoLeaves  = errors.New("no service with verifier chain has a key of ours; name the service whose key is to be replaced")
	ErrNoSuchKey = errors.New("no key has this id; when it is that of a signing key under the root which is no longer listed, revoke the root")
	ErrCrowded   = fmt.Errorf("%d keys were replaced one after another, and tokens of theirs may be good still; wait for the longest token lifetime", mostOld)
	ErrNotSealed = errors.New("keys are encrypted in the database only (issuer.keys.store)")
)

// RotateLeaves makes new signing keys under the root, and takes them into use now: their registries trust the root, and
// notice nothing. It is for the key of one service, or for all when service is "".
func RotateLeaves(c KeyConfig, service string) (*Keyring, error) {
	return c.open(func(o *opening) error {
		leaves := o.leafSlots()
		if service != "" {
			s, at, err := o.ownSlot(service)
			if err != nil {
				return err
			}
			leaves = map[string]string{at.name: s.Algorithm}
		}
		if len(leaves) == 0 {
			return ErrNoLeaves
		}
		if err := o.loadRoot(); err != nil {
			return err
		}
		if o.rootKey == nil {
			return fmt.Errorf("a new signing key needs %s, which is not there; bring it back", o.shelf.Where(rootSlot.name+keySuffix))
		}
		for name, algorithm := range leaves {
			at := &slot{name: name}
			if err := o.crowded(at); err != nil {
				return err
			}
			if _, err := o.makeLeaf(at.nextName(), algorithm, o.now); err != nil {
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
		s, at, err := o.ownSlot(service)
		if err != nil {
			return err
		}
		if err := o.settle(at); err != nil {
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
		s, at, err := o.ownSlot(service)
		if err != nil {
			return err
		}
		if err := o.settle(at); err != nil {
			return err
		}
		private, err := o.readKey(at.nextName())
		if errors.Is(err, fs.ErrNotExist) {
			return ErrNoNext
		} else if err != nil {
			return err
		}
		if _, err := o.stagedKey(at.nextName(), private, s); err != nil {
			return err
		}
		if err := o.crowded(at); err != nil {
			return err
		}
		return o.promote(at)
	})
}

// ownSlot is where the key of a service is kept, which must not be somebody else's file.
func (o *opening) ownSlot(service string) (Service, *slot, error) {
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
		if len(o.leafSlots()) == 0 {
			return ErrNoLeaves
		}
		if _, _, err := o.readRoot(); err != nil {
			return err
		}
		if _, err := o.nextRoot(); err == nil {
			return nil // its key may be offline
		}
		private, err := o.loadOrGenerate(rootSlot.nextName(), ES256)
		if err != nil {
			return err
		}
		_, err = o.certificateFor(rootSlot.nextName(), o.rootName(), private)
		return err
	})
}

// ActivateRoot puts the next root in the place of the one in use, and makes signing keys under it.
func ActivateRoot(c KeyConfig) (*Keyring, error) {
	return c.open(func(o *opening) error {
		if len(o.leafSlots()) == 0 {
			return ErrNoLeaves
		}
		if _, _, err := o.readRoot(); err != nil {
			return err
		}
		if _, err := o.nextRoot(); errors.Is(err, fs.ErrNotExist) {
			return ErrNoNext
		} else if err != nil {
			return err
		}
		if _, err := o.readKey(rootSlot.nextName()); err != nil {
			return fmt.Errorf("the next root signs with %s: %w; bring it back", o.shelf.Where(rootSlot.nextName()+keySuffix), err)
		}
		// The root first: signing keys that are not under it are replaced whenever somebody opens the keyring.
		if err := o.promote(rootSlot); err != nil {
			return err
		}
		for name := range o.leafSlots() {
			at := &slot{name: name}
			if err := o.crowded(at); err != nil {
				return err
			}
			if err := errors.Join(o.retire(at), o.drop(name), o.drop(at.nextName())); err != nil {
				return err
			}
		}
		return nil
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

// Revocation is what Revoke has removed.
type Revocation struct {
	Services []string // whose registries have to be told
	// Root tells that it was a root. Registries with verifier chain look at no revocation list: whoever has a key under the
	// root can sign until its certificate ends, so such a key takes the root with it.
	Root bool
	// Signs tells that it signed, and another does now. It was a next key, or one of before, when it is not set.
	Signs bool
}

// Revoke removes a key for good, as when it was stolen, and puts another in its place where it signed.
func Revoke(c KeyConfig, id string) (ring *Keyring, r Revocation, err error) {
	ring, err = c.open(func(o *opening) error {
		r = Revocation{} // this may run more than once
		seen, err := o.opening(o.shelf).build()
		if err != nil {
			return err
		}
		replaced := map[*slot]bool{} // services may have one in common
		for _, s := range c.Services {
			at := seen.byName[s.Name]
			if keyOf(at.published(), id) == nil {
				continue
			}
			if _, own := o.slotName(s); own {
				return ErrOwnKey
			}
			r.Services = append(r.Services, s.Name)
			r.Signs = r.Signs || at.current.ID == id
			if s.Verifier == VerifierChain {
				r.Root = true
			} else if !replaced[at] {
				replaced[at] = true
				if err := o.replace(at, id); err != nil {
					return err
				}
			}
		}
		if r.Root || seen.Root != nil && RootID(seen.Root) == id {
			r = Revocation{Services: seen.underRoot(), Root: true, Signs: true}
			return o.replaceRoot()
		}
		if slices.ContainsFunc(seen.Roots(), func(root *x509.Certificate) bool { return RootID(root) == id }) {
			r = Revocation{Services: seen.underRoot(), Root: true}
			if seen.NextRoot != nil && RootID(seen.NextRoot) == id {
				return o.drop(rootSlot.nextName())
			}
			return o.forget(rootSlot, id)
		}
		if len(r.Services) == 0 {
			return ErrNoSuchKey
		}
		return nil
	})
	return ring, r, err
}

// underRoot are the services whose registries trust our root.
func (r *Keyring) underRoot() []string {
	return slices.DeleteFunc(slices.Clone(r.services), func(name string) bool {
		anchor := r.For(name).Anchor
		return anchor == nil || !anchor.Equal(r.Root)
	})
}

// replace removes one key of a slot. The next takes the place of the current one, or else a new one will be made.
func (o *opening) replace(at *slot, id string) error {
	if err := o.forget(at, id); err != nil { // wherever it stands
		return err
	}
	switch {
	case at.current.ID == id && at.next != nil:
		return o.move(at) // and it is not kept among those of before
	case at.current.ID == id:
		return o.drop(at.name)
	case at.next != nil && at.next.ID == id:
		return o.drop(at.nextName())
	}
	return nil
}

// forget removes a key, or a root, from those that sign no more.
func (o *opening) forget(at *slot, id string) error {
	names, err := o.shelf.List(at.oldFolder())
	if err != nil {
		return err
	}
	for _, name := range names {
		data, err := o.shelf.Read(name)
		if err != nil {
			return err
		}
		public, err := parsePublic(data)
		if err != nil {
			continue // not a key
		}
		if had, err := fingerprint(public); err == nil && had == id {
			if err := o.shelf.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// replaceRoot puts a new root in the place of the one in use, and removes every key under that. Whoever dies on the way
// leaves a keyring that can be used, under the one or the other.
func (o *opening) replaceRoot() error {
	leaves, err := o.shelf.List(chainFolder)
	if err != nil {
		return err
	}
	old, err := o.shelf.List(rootSlot.oldFolder())
	if err != nil {
		return err
	}
	private, err := generate(ES256)
	if err != nil {
		return err
	}
	c, err := selfSigned(private, o.rootName(), o.now)
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := o.shelf.Remove(name); err != nil {
			return err
		}
	}
	if err := o.keep(rootSlot.nextName(), private, c); err != nil {
		return err
	}
	if err := o.move(rootSlot); err != nil {
		return err
	}
	for _, name := range leaves {
		if err := o.shelf.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// RootID is the id of a root, by which it is listed and revoked.
func RootID(root *x509.Certificate) string {
	id, err := fingerprint(root.PublicKey)
	if err != nil { // a key that was parsed can be encoded
		return ""
	}
	return id
}
