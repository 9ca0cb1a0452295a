package connectors

import (
	"context"
	"errors"

	"github.com/lodestonehq/lodestone"
)

// Holder is a connector whose provider can be asked what it holds of a person.
type Holder interface {
	// Held finds what the provider holds of a person: by their exact address, and by ids of the provider
	// that are on record for them, of which one that is somebody else's is left alone. The error is a
	// [*Fault] of the reading.
	Held(ctx context.Context, email lodestone.Email, ids []string) (Held, error)
}

// Held is what a provider holds of a person.
type Held struct {
	Records []Record
	// Kept says what stays there and why: what is somebody else's as well, what no operation deletes.
	Kept []string
	// Gap is why there may be more than was seen; empty: there is not.
	Gap string
}

// Record is one record of a person at a provider, with the call of the catalogue that deletes it.
type Record struct {
	What      string // in a word or two: member, referral, user
	Operation string
	Arguments map[string]any
}

// ErrNoHolder is returned for an account whose provider cannot be asked what it holds of a person.
var ErrNoHolder = errors.New("the provider cannot be asked what it holds of a person; ask its support")

// Held asks what the provider holds of a person. The error is [ErrNoHolder] or a [*Fault].
func (a *Account) Held(ctx context.Context, email lodestone.Email, ids []string) (Held, error) {
	h, ok := a.connector.(Holder)
	if !ok {
		return Held{}, ErrNoHolder
	}
	ctx = hide(ctx, email, nil)
	held, err := h.Held(ctx, email, ids)
	if err != nil {
		return Held{}, a.fault(ctx, "forget", Failed, lodestone.ReasonCheckFailed, err)
	}
	return held, nil
}

// Masked makes words of the provider fit to be kept where nothing may name a person.
func (a *Account) Masked(words string, email lodestone.Email) string {
	return a.t.mask.text(words, hiddenIn(hide(context.Background(), email, nil))...)
}
