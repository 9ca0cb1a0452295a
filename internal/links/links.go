// Package links seals what the addresses that Lodestone hands out carry: which form's asset, whose
// confirmation, whose opt-out, until when.
//
// A sealed token can be read and made by nobody without the key, so that no address of a person stands
// in a link, a log of a proxy or a browser's history. The same content makes the same token. A token is
// for one purpose: that of an asset opens nothing else.
package links

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Purpose is what a token is for.
type Purpose string

// The purposes.
const (
	Asset       Purpose = "asset"
	Confirm     Purpose = "confirm"
	Unsubscribe Purpose = "unsubscribe"
	FormToken   Purpose = "form"
)

var (
	// ErrForged says that a token was not made with this key for this purpose, or was damaged.
	ErrForged = errors.New("this link is not one of ours, or it was cut off")
	// ErrExpired says that a token was good once.
	ErrExpired = errors.New("this link has expired")
)

// KeySize is the size of a key in bytes.
const KeySize = 32

const (
	nonceSize = 12
	maxToken  = 4 << 10 // characters of a token that are looked at
)

// Sealer makes and opens tokens. It is safe for concurrent use.
type Sealer struct {
	aead     cipher.AEAD
	nonceKey []byte
}

// New makes a sealer of a random key of [KeySize] bytes.
func New(key []byte) (*Sealer, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("a key for links has %d bytes, want %d", len(key), KeySize)
	}
	derive := func(info string) ([]byte, error) { return hkdf.Key(sha256.New, key, nil, info, 32) }
	cipherKey, err := derive("lodestone links: cipher")
	if err != nil {
		return nil, err
	}
	nonceKey, err := derive("lodestone links: nonce")
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(cipherKey)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &Sealer{aead, nonceKey}, err
}

// Seal returns a token of letters, digits, "-" and "_". A zero expires means that it is good for ever;
// otherwise it is kept in whole seconds.
func (s *Sealer) Seal(p Purpose, content []byte, expires time.Time) string {
	plain := make([]byte, 8, 8+len(content))
	if !expires.IsZero() {
		binary.BigEndian.PutUint64(plain, uint64(expires.Unix()))
	}
	plain = append(plain, content...)
	// The nonce follows from what is sealed, as in SIV: equal nonces only ever meet equal texts.
	mac := hmac.New(sha256.New, s.nonceKey)
	mac.Write([]byte(p))
	mac.Write([]byte{0})
	mac.Write(plain)
	nonce := mac.Sum(nil)[:nonceSize]
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(bytes.Clone(nonce), nonce, plain, []byte(p)))
}

// Open returns what was sealed. With [ErrExpired] the content is returned all the same; with
// [ErrForged] there is none.
func (s *Sealer) Open(p Purpose, token string, now time.Time) (content []byte, err error) {
	content, _, err = s.OpenUntil(p, token, now)
	return content, err
}

// OpenUntil is Open that also says when the token ends; zero: never.
func (s *Sealer) OpenUntil(p Purpose, token string, now time.Time) (content []byte, expires time.Time, err error) {
	if len(token) > maxToken {
		return nil, time.Time{}, ErrForged
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(sealed) < nonceSize {
		return nil, time.Time{}, ErrForged
	}
	plain, err := s.aead.Open(nil, sealed[:nonceSize], sealed[nonceSize:], []byte(p))
	if err != nil || len(plain) < 8 {
		return nil, time.Time{}, ErrForged
	}
	if at := int64(binary.BigEndian.Uint64(plain)); at != 0 {
		expires = time.Unix(at, 0).UTC()
		if now.Unix() >= at {
			err = ErrExpired
		}
	}
	return plain[8:], expires, err
}
