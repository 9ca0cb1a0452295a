package saasquatch

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"regexp"
	"strings"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/lenient"
)

// What nobody but us says of the provider stands in this file.

// noSuchUser says whether an answer is the provider's word that there is no such user or account. A
// 404 alone is none: a wrong tenant and a wrong address of the API answer with it as well. Should the
// provider use other words than these, look-ups are unclear and a human decides; nothing is sent twice.
func noSuchUser(a connectors.Answer) bool {
	var e struct {
		APIErrorCode words
		RSCode       words
	}
	if a.Status != http.StatusNotFound || lenient.Object(a.Body, &e) != nil {
		return false
	}
	return e.RSCode == "RS042" || e.APIErrorCode == "USER_NOT_FOUND" || e.APIErrorCode == "ACCOUNT_NOT_FOUND"
}

// sameCode compares two referral codes: people type them, so the provider is taken not to tell upper
// from lower case.
func sameCode(a, b string) bool { return strings.EqualFold(strings.TrimSpace(a), strings.TrimSpace(b)) }

// sameID compares ids of users and accounts. Ours are addresses in lower case; should the provider
// write them otherwise, they are still the person's.
func sameID(a, b string) bool { return strings.EqualFold(a, b) }

// keyPattern is what an idempotency key may be (saasquatch/schema).
var keyPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{8,64}$`)

// idempotencyKey makes a touchpoint's id a key: the id itself where it may be one, else 40 characters
// that follow from it alone, so that a repeat has the same.
func idempotencyKey(id string) string {
	if keyPattern.MatchString(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "lodestone." + hex.EncodeToString(sum[:15])
}
