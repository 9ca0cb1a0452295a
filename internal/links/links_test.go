package links_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone/internal/links"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func sealer(t testing.TB, fill byte) *links.Sealer {
	t.Helper()
	s, err := links.New(bytes.Repeat([]byte{fill}, links.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestToken(t *testing.T) {
	s := sealer(t, 1)
	token := s.Seal(links.Asset, []byte("ada@example.com"), now.Add(time.Hour))
	if again := s.Seal(links.Asset, []byte("ada@example.com"), now.Add(time.Hour)); again != token {
		t.Errorf("the same content makes %q and %q", token, again)
	}
	forEver := s.Seal(links.Unsubscribe, []byte("x"), time.Time{})
	for _, test := range []struct {
		name    string
		sealer  *links.Sealer
		purpose links.Purpose
		token   string
		now     time.Time
		want    string
		err     error
	}{
		{"good", s, links.Asset, token, now, "ada@example.com", nil},
		{"the last second", s, links.Asset, token, now.Add(time.Hour - time.Second), "ada@example.com", nil},
		{"expired", s, links.Asset, token, now.Add(time.Hour), "ada@example.com", links.ErrExpired},
		{"another purpose", s, links.Confirm, token, now, "", links.ErrForged},
		{"another key", sealer(t, 2), links.Asset, token, now, "", links.ErrForged},
		{"cut off", s, links.Asset, token[:len(token)-2], now, "", links.ErrForged},
		{"empty", s, links.Asset, "", now, "", links.ErrForged},
		{"not base64", s, links.Asset, "<script>", now, "", links.ErrForged},
		{"endless", s, links.Asset, strings.Repeat("A", 1<<20), now, "", links.ErrForged},
		{"without an end", s, links.Unsubscribe, forEver, now.AddDate(100, 0, 0), "x", nil},
	} {
		got, err := test.sealer.Open(test.purpose, test.token, test.now)
		if string(got) != test.want || !errors.Is(err, test.err) || test.err == nil && err != nil {
			t.Errorf("%s: Open = %q, %v, want %q, %v", test.name, got, err, test.want, test.err)
		}
	}
}

// TestEveryBitCounts changes each bit of a token in turn.
func TestEveryBitCounts(t *testing.T) {
	s := sealer(t, 1)
	token := s.Seal(links.Confirm, []byte("content"), time.Time{})
	for i := range token {
		for bit := range 7 {
			other := []byte(token)
			other[i] ^= 1 << bit
			if got, err := s.Open(links.Confirm, string(other), now); err == nil {
				t.Errorf("with bit %d of character %d changed it opens as %q", bit, i, got)
			}
		}
	}
}
