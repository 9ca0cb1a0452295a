package lodestone_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
)

func TestParseEmail(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want lodestone.Email
		err  error
	}{
		{"ada@example.com", "ada@example.com", nil},
		{"  Ada.L+news@Example.COM \n", "ada.l+news@example.com", nil},
		{"o'brien@example.com", "o'brien@example.com", nil},
		{"ada@bücher.example", "ada@xn--bcher-kva.example", nil},
		{"ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example", nil},
		{"", "", lodestone.ErrNoEmail},
		{" \t", "", lodestone.ErrNoEmail},
		{"ada", "", lodestone.ErrBadEmail},
		{"@example.com", "", lodestone.ErrBadEmail},
		{"ada@", "", lodestone.ErrBadEmail},
		{"ada@localhost", "", lodestone.ErrBadEmail},
		{"ada@ex@ample.com", "", lodestone.ErrBadEmail},
		{"ada l@example.com", "", lodestone.ErrBadEmail},
		{`"ada"@example.com`, "", lodestone.ErrBadEmail},
		{"ada,bob@example.com", "", lodestone.ErrBadEmail},
		{"<ada@example.com>", "", lodestone.ErrBadEmail},
		{"ada@-example.com", "", lodestone.ErrBadEmail},
		{"ada@example..com", "", lodestone.ErrBadEmail},
		{"ada@exa_mple.com", "", lodestone.ErrBadEmail},
		{"ü@example.com", "", lodestone.ErrBadEmail},
		{strings.Repeat("a", 64) + "@example.com", lodestone.Email(strings.Repeat("a", 64) + "@example.com"), nil},
		{strings.Repeat("a", 65) + "@example.com", "", lodestone.ErrBadEmail},
		{"a@" + strings.Repeat("b.", 130) + "com", "", lodestone.ErrBadEmail},
	} {
		got, err := lodestone.ParseEmail(tc.in)
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("ParseEmail(%q) = %q, %v; want %q, %v", tc.in, got, err, tc.want, tc.err)
		}
	}
}

func FuzzParseEmail(f *testing.F) {
	for _, s := range []string{"ada@example.com", " A@B.C ", "a@bücher.example", "a@b", "@", "a@b@c", "ａ@example.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := lodestone.ParseEmail(s)
		if err != nil {
			if e != "" || !errors.Is(err, lodestone.ErrBadEmail) && !errors.Is(err, lodestone.ErrNoEmail) {
				t.Fatalf("ParseEmail(%q) = %q, %v", s, e, err)
			}
			return
		}
		if again, err := lodestone.ParseEmail(string(e)); err != nil || again != e {
			t.Fatalf("ParseEmail(%q) = %q, which parses to %q, %v", s, e, again, err)
		}
		if len(e) > lodestone.MaxEmail || strings.Count(string(e), "@") != 1 || e.Local()+"@"+e.Domain() != string(e) {
			t.Fatalf("ParseEmail(%q) = %q", s, e)
		}
	})
}

func TestPointsFade(t *testing.T) {
	at := time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	line := lodestone.Line{Points: 40, At: at, HalfLife: 30 * 24 * time.Hour}
	for age, want := range map[time.Duration]float64{-time.Hour: 40, 0: 40, 30 * 24 * time.Hour: 20, 60 * 24 * time.Hour: 10} {
		if got := line.Faded(at.Add(age)); math.Abs(got-want) > 1e-9 {
			t.Errorf("after %v: %v, want %v", age, got, want)
		}
	}
	line.HalfLife = 0
	if got := line.Faded(at.AddDate(10, 0, 0)); got != 40 {
		t.Errorf("without a half-life: %v, want 40", got)
	}
}

func TestScoreRoundsHalfUp(t *testing.T) {
	for sum, want := range map[float64]int{0.49: 0, 0.5: 1, 1.5: 2, 2.5: 3, -0.5: 0, -0.51: -1, -1.5: -1, 1e18: 1 << 53, -1e18: -1 << 53} {
		if got := lodestone.RoundScore(sum); got != want {
			t.Errorf("RoundScore(%v) = %d, want %d", sum, got, want)
		}
	}
}

func TestSignalsThatSuppress(t *testing.T) {
	for _, tc := range []struct {
		kind   lodestone.SignalKind
		detail map[string]any
		want   bool
	}{
		{lodestone.SignalUnsubscribed, nil, true}, {lodestone.SignalComplained, nil, true},
		{lodestone.SignalBounced, nil, false}, {lodestone.SignalBounced, map[string]any{"type": "soft"}, false},
		{lodestone.SignalBounced, map[string]any{"type": "hard"}, true}, {lodestone.SignalBounced, map[string]any{"hard": true}, true},
		{lodestone.SignalOpened, map[string]any{"hard": true}, false},
	} {
		if got := (lodestone.Signal{Kind: tc.kind, Detail: tc.detail}).Suppresses(); got != tc.want {
			t.Errorf("%s %v suppresses: %v, want %v", tc.kind, tc.detail, got, tc.want)
		}
	}
}
