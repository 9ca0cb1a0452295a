package lodestone

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseEmail(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Email
		err  error
	}{
		{"ada@example.com", "ada@example.com", nil},
		{"  Ada.L+news@Example.COM \n", "ada.l+news@example.com", nil},
		{"o'brien@example.com", "o'brien@example.com", nil},
		{"ada@bücher.example", "ada@xn--bcher-kva.example", nil},
		{"ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example", nil},
		{"", "", ErrNoEmail},
		{" \t", "", ErrNoEmail},
		{"ada", "", ErrBadEmail},
		{"@example.com", "", ErrBadEmail},
		{"ada@", "", ErrBadEmail},
		{"ada@localhost", "", ErrBadEmail},
		{"ada@ex@ample.com", "", ErrBadEmail},
		{"ada l@example.com", "", ErrBadEmail},
		{`"ada"@example.com`, "", ErrBadEmail},
		{"ada,bob@example.com", "", ErrBadEmail},
		{"<ada@example.com>", "", ErrBadEmail},
		{"ada@-example.com", "", ErrBadEmail},
		{"ada@example..com", "", ErrBadEmail},
		{"ada@exa_mple.com", "", ErrBadEmail},
		{"ü@example.com", "", ErrBadEmail},
		{strings.Repeat("a", 64) + "@example.com", Email(strings.Repeat("a", 64) + "@example.com"), nil},
		{strings.Repeat("a", 65) + "@example.com", "", ErrBadEmail},
		{"a@" + strings.Repeat("b.", 130) + "com", "", ErrBadEmail},
	} {
		got, err := ParseEmail(tc.in)
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("ParseEmail(%q) = %q, %v; want %q, %v", tc.in, got, err, tc.want, tc.err)
		}
	}
}

// TestParseEmailNamesTheCharacter holds the error to the character that somebody typed.
func TestParseEmailNamesTheCharacter(t *testing.T) {
	for in, want := range map[string]string{"jürgen@example.com": "'ü'", "a\xff@example.com": "'\ufffd'", "ada l@example.com": "' '"} {
		if _, err := ParseEmail(in); !errors.Is(err, ErrBadEmail) || !strings.HasSuffix(err.Error(), "holds "+want) {
			t.Errorf("ParseEmail(%q): %v; want it to name %s", in, err, want)
		}
	}
}

func FuzzParseEmail(f *testing.F) {
	for _, s := range []string{"ada@example.com", " A@B.C ", "a@bücher.example", "a@b", "@", "a@b@c", "ａ@example.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEmail(s)
		if err != nil {
			if e != "" || !errors.Is(err, ErrBadEmail) && !errors.Is(err, ErrNoEmail) {
				t.Fatalf("ParseEmail(%q) = %q, %v", s, e, err)
			}
			return
		}
		if again, err := ParseEmail(string(e)); err != nil || again != e {
			t.Fatalf("ParseEmail(%q) = %q, which parses to %q, %v", s, e, again, err)
		}
		if len(e) > MaxEmail || strings.Count(string(e), "@") != 1 || e.Local()+"@"+e.Domain() != string(e) {
			t.Fatalf("ParseEmail(%q) = %q", s, e)
		}
	})
}

func TestPointsFade(t *testing.T) {
	at := time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	line := Line{Points: 40, At: at, HalfLife: 30 * 24 * time.Hour}
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
		if got := RoundScore(sum); got != want {
			t.Errorf("RoundScore(%v) = %d, want %d", sum, got, want)
		}
	}
}

func TestSignalsThatSuppress(t *testing.T) {
	for _, tc := range []struct {
		kind   SignalKind
		detail map[string]any
		want   bool
	}{
		{SignalUnsubscribed, nil, true}, {SignalComplained, nil, true},
		{SignalBounced, nil, false}, {SignalBounced, map[string]any{"type": "soft"}, false},
		{SignalBounced, map[string]any{"type": "hard"}, true}, {SignalBounced, map[string]any{"hard": true}, true},
		{SignalOpened, map[string]any{"hard": true}, false},
	} {
		if got := (Signal{Kind: tc.kind, Detail: tc.detail}).Suppresses(); got != tc.want {
			t.Errorf("%s %v suppresses: %v, want %v", tc.kind, tc.detail, got, tc.want)
		}
	}
}
