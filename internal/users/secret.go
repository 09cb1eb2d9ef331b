package users

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/big"
	"strings"
)

// Access and refresh tokens are opaque: a prefix that secret scanners can look for, 256 random bits, and a checksum that
// tells a token from a typing error (or from a scanner's false alarm) without asking anybody:
//
//	as[ar]t_[0-9A-Za-z]{49}
//
// All characters stand for themselves in a URL: Jib sends refresh tokens without encoding them. Only the SHA-256 is kept;
// 256 random bits need no slow hash.
const (
	accessPrefix  = "asat_"
	refreshPrefix = "asrt_"
	secretDigits  = 43 // of 62, for 256 bits
	sumDigits     = 6
	shownDigits   = 6 // of a token, in lists
)

// newSecret makes a token, the hash to keep of it, and its beginning to show in lists.
func newSecret(prefix string) (token, hash, shown string) {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	token = prefix + base62(new(big.Int).SetBytes(random[:]), secretDigits)
	token += checksum(token)
	return token, secretHash(token), token[:len(prefix)+shownDigits]
}

func base62(n *big.Int, digits int) string {
	text := n.Text(62)
	return strings.Repeat("0", digits-len(text)) + text
}

func checksum(s string) string {
	return base62(big.NewInt(int64(crc32.ChecksumIEEE([]byte(s)))), sumDigits)
}

// secretHash is what is kept of a token.
func secretHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// wellFormed tells whether a text is a token with that prefix, going by its checksum.
func wellFormed(prefix, s string) bool {
	if !strings.HasPrefix(s, prefix) || len(s) != len(prefix)+secretDigits+sumDigits {
		return false
	}
	body := s[:len(s)-sumDigits]
	return checksum(body) == s[len(body):]
}

// NewID makes the name of a token that may be shown: ten letters and digits.
func NewID() string { return strings.ToLower(rand.Text()[:10]) }

// refusal is ErrRefused with a reason for the log and the audit; clients are not told it.
func refusal(what, why string) error { return fmt.Errorf("%w: %s: %s", ErrRefused, what, why) }

// mark tells a stored password from the one that takes its place, and tells nothing else of it.
func mark(hash string) string {
	if hash == "" {
		return ""
	}
	return secretHash("mark:" + hash)[:32]
}
