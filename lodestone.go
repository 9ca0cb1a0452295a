// Package lodestone holds the nouns of Lodestone as Go types: submission, lead, ledger, sequence,
// enrollment, touchpoint, verdict, signal, suppression, with their states and the closed vocabulary
// of reasons. It does no I/O and imports nothing else of this module.
//
// A touchpoint lives like this:
//
//	scheduled ─▶ intended ─▶ sent
//	    │  ▲         ├─▶ failed   (refused for good, or attempts ran out: a human looks)
//	    │  │         ├─▶ unknown ─▶ (looked up at the provider) sent | scheduled | held: a human looks
//	    │  └─────────┘   deferred: back to scheduled with a later time and a reason
//	    ├─▶ skipped
//	    └─▶ cancelled
//
// The intent is stored before the provider is called and the outcome after it, so whatever happens
// in between leaves a touchpoint whose state says that its outcome is not known.
//
// All times are UTC. Types that are stored carry msg tags: the short keys are the stored format, so
// a key never changes its meaning and is never used again for something else.
package lodestone

//go:generate go tool msgp -io=false -tests=false -file=. -o=msgp_gen.go

//msgp:timezone utc
//msgp:newtime
//msgp:ignore Fields FieldValue Submission Form Field Signal Rejection Operation Parameter

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Email is a normalised address and the key of a lead: blanks trimmed, domain lower-cased and in
// ASCII (punycode), local part lower-cased. Dots and plus tags are kept, because to most mail
// providers they are different mailboxes.
type Email string

// Errors of [ParseEmail].
var (
	ErrNoEmail  = errors.New("no email address")
	ErrBadEmail = errors.New("not a usable email address")
)

// MaxEmail is the longest address that is accepted, in bytes after normalisation
// (RFC 5321, section 4.5.3.1.3, less the angle brackets of a path).
const MaxEmail = 254

// ParseEmail normalises an address. A usable one has one "@", a local part of 1 to 64 printable
// bytes without spaces, quotes, commas or angle brackets, and a domain with a dot after IDNA. The
// error wraps [ErrNoEmail] for a blank text, else [ErrBadEmail]; it does not repeat the address.
func ParseEmail(s string) (Email, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return "", ErrNoEmail
	}
	local, domain, found := strings.Cut(s, "@")
	switch {
	case !found:
		return "", fmt.Errorf("%w: it has no @", ErrBadEmail)
	case strings.Contains(domain, "@"):
		return "", fmt.Errorf("%w: it has more than one @", ErrBadEmail)
	case local == "" || len(local) > 64:
		return "", fmt.Errorf("%w: the part before the @ has %d bytes, want 1 to 64", ErrBadEmail, len(local))
	}
	for _, c := range local {
		if c <= ' ' || c >= 0x7f || strings.ContainsRune(`",<>`, c) {
			return "", fmt.Errorf("%w: the part before the @ holds %q", ErrBadEmail, c)
		}
	}
	ascii, err := idna.Lookup.ToASCII(domain)
	if err == nil {
		// A name that does not come out the same when it is read again would be two leads.
		var again string
		if again, err = idna.Lookup.ToASCII(ascii); err == nil && again != ascii {
			err = ErrBadEmail
		}
	}
	if err != nil || !utf8.ValidString(domain) {
		return "", fmt.Errorf("%w: its domain is not a domain name", ErrBadEmail)
	}
	ascii = strings.ToLower(ascii)
	if !isDomain(ascii) {
		return "", fmt.Errorf("%w: its domain is not a domain name with a dot", ErrBadEmail)
	}
	e := strings.ToLower(local) + "@" + ascii
	if len(e) > MaxEmail {
		return "", fmt.Errorf("%w: it is longer than %d bytes", ErrBadEmail, MaxEmail)
	}
	return Email(e), nil
}

// Domain is the part after the "@".
func (e Email) Domain() string {
	_, d, _ := strings.Cut(string(e), "@")
	return d
}

// Local is the part before the "@".
func (e Email) Local() string {
	l, _, _ := strings.Cut(string(e), "@")
	return l
}

// isDomain checks labels by the letter-digit-hyphen rule (RFC 1123, section 2.1) and asks for at
// least two of them.
func isDomain(s string) bool {
	labels := strings.Split(s, ".")
	if len(labels) < 2 || len(s) > 253 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for i := range len(l) {
			c := l[i]
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
				return false
			}
		}
	}
	return true
}
