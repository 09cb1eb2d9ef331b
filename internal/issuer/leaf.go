package issuer

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// leaf finds the signing key for an algorithm under the root. It makes one when there is none; it makes the next one
// when that is due, and lets it sign from its time on.
func (o *opening) leaf(into *slot, algorithm string) error {
	if err := o.loadRoot(); err != nil {
		return err
	}
	if err := o.settle(into); err != nil {
		return err
	}
	current, err := o.readLeaf(into.name, algorithm)
	if unmendable(err) {
		return err
	}
	next, nextErr := o.readLeaf(into.nextName(), algorithm)
	switch {
	case unmendable(nextErr):
		return nextErr
	case nextErr != nil: // half of one, which a dying process left, or one that was damaged; it has signed nothing
		if !errors.Is(nextErr, fs.ErrNotExist) {
			o.warn("the next signing key %s cannot be used and is removed: %v", o.shelf.Where(into.nextName()+keySuffix), nextErr)
		}
		if err := o.drop(into.nextName()); err != nil {
			return err
		}
	case nextErr == nil && (err != nil || !o.now.Before(next.From)):
		if err := o.promote(into); err != nil {
			return err
		}
		if current, err = o.readLeaf(into.name, algorithm); err != nil {
			return err
		}
		next = nil
	}
	due := err != nil || o.now.Sub(current.From) >= o.RotateEvery-o.PublishAhead
	switch {
	case !due || next != nil:
	case o.rootKey == nil && err != nil:
		return fmt.Errorf("no signing key can be used (%w), and a new one needs %s, which is not there; bring it back", err, o.shelf.Where(rootSlot.name+keySuffix))
	case o.rootKey == nil:
		o.warn("the signing key %s is due to be replaced, but %s is not there; it is good until %s",
			current.Source, o.shelf.Where(rootSlot.name+keySuffix), current.Chain[0].NotAfter.Format(time.DateOnly))
	case err == nil && o.PublishAhead > 0:
		if next, err = o.makeLeaf(into.nextName(), algorithm, o.now.Add(o.PublishAhead)); err != nil {
			return err
		}
	default:
		if err == nil {
			if err := o.retire(into); err != nil {
				return err
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			o.warn("the signing key %s cannot be used and is replaced: %v", o.shelf.Where(into.name+keySuffix), err)
		}
		if current, err = o.makeLeaf(into.name, algorithm, o.now); err != nil {
			return err
		}
	}
	into.current, into.next = current, next
	if next != nil {
		o.due(next.From)
	} else {
		o.due(current.From.Add(o.RotateEvery - o.PublishAhead))
	}
	return nil
}

func (o *opening) makeLeaf(name, algorithm string, from time.Time) (*Key, error) {
	private, err := generate(algorithm)
	if err != nil {
		return nil, err
	}
	c, err := leafCertificate(private.Public(), o.Name+" token signing key", o.ring.Root, o.rootKey, from)
	if err != nil {
		return nil, err
	}
	if err := o.keep(name, private, c); err != nil {
		return nil, err
	}
	return newKey(private, algorithm, VerifierChain, o.shelf.Where(name+keySuffix), []*x509.Certificate{c}, o.ring.Root)
}

// readLeaf reads a leaf and checks it as a registry would.
func (o *opening) readLeaf(name, algorithm string) (*Key, error) {
	private, err := o.readKey(name)
	if err != nil {
		return nil, err
	}
	certificates, err := o.readCertificates(name)
	if err != nil {
		return nil, err
	}
	where := o.shelf.Where(name + certificateSuffix)
	if _, _, err := checkChain(certificates[:1], private, o.now); err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	if err := certificates[0].CheckSignatureFrom(o.ring.Root); err != nil {
		return nil, fmt.Errorf("%s: not signed by %s: %w", where, o.shelf.Where(rootSlot.name+certificateSuffix), err)
	}
	return newKey(private, algorithm, VerifierChain, o.shelf.Where(name+keySuffix), certificates[:1], o.ring.Root)
}
