package scoring

import (
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
)

func TestRisk(t *testing.T) {
	for _, test := range []struct {
		name  string
		ev    *lodestone.Evidence
		email lodestone.Email
		want  int
	}{
		{"nothing is known", nil, "ada@example.com", 0},
		{"a person", &lodestone.Evidence{Token: lodestone.TokenGood, FillSeconds: 12, TokenUses: 1, AddressSubmissions: 1, AddressForms: 1, AddressSources: 1, SourceSubmissions: 3}, "ada@gmail.com", 0},
		{"honeypot", &lodestone.Evidence{Honeypot: true}, "ada@example.com", 100},
		{"quick", &lodestone.Evidence{Token: lodestone.TokenGood, FillSeconds: 0.3}, "ada@example.com", 40},
		{"forged token", &lodestone.Evidence{Token: lodestone.TokenBad}, "ada@example.com", 60},
		{"an office", &lodestone.Evidence{SourceSubmissions: 21}, "ada@example.com", 30},
		{"a farm", &lodestone.Evidence{SourceSubmissions: 101}, "ada@example.com", 60},
		{"five forms", &lodestone.Evidence{AddressForms: 5, AddressSources: 9}, "ada@example.com", 0},
		{"six forms", &lodestone.Evidence{AddressForms: 6}, "ada@example.com", 90},
		{"mistyped", nil, "ada@gmial.com", 20},
		{"one letter short", nil, "ada@gmal.com", 20},
		{"a function", nil, "info@example.com", 10},
		{"everything", &lodestone.Evidence{Honeypot: true, Token: lodestone.TokenBad, AddressForms: 16, SourceSubmissions: 500}, "info@mailinator.com", 100},
	} {
		if got := Risk(test.ev, test.email); got != test.want {
			t.Errorf("%s: %d (%s), want %d", test.name, got, RiskWords(test.ev, test.email), test.want)
		}
		if words := RiskWords(test.ev, test.email); strings.Contains(words, "@") || strings.Contains(words, "ada") {
			t.Errorf("%s: %q is personal", test.name, words)
		}
	}
}
