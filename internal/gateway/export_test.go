package gateway

import (
	"context"
	"time"
)

// SetNow sets the clock of keys.
func (k *Keys) SetNow(now func() time.Time) { k.now = now }

// Claim remembers a key with a body and reports whether it is the first body it came with.
func (k *Keys) Claim(ctx context.Context, key, body string) (bool, error) {
	_, same, err := k.claim(ctx, hashed(key), hashed(body))
	return same, err
}
