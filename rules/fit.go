package rules

import (
	"errors"
	"fmt"
	"html"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/lodestonehq/lodestone"
)

// escape makes what an expression gave fit to stand inside the text around it, so that nobody can say more in a
// form than the author of the rule left room for.
func (t Template) escape(s string) string {
	switch t.into.Holds {
	case lodestone.HoldsHTML:
		return html.EscapeString(s)
	case lodestone.HoldsURL:
		return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
	}
	return s
}

// fit makes a text fit for the parameter that it is for, or says why it cannot be. whole is a text that is one
// expression alone: it was not escaped yet, and an address of a page in it must be one.
func (t Template) fit(s string, whole bool) (any, error) {
	switch t.into.Holds {
	case lodestone.HoldsHTML:
		if whole {
			s = html.EscapeString(s)
		}
	case lodestone.HoldsURL:
		if u, err := url.Parse(s); s != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
			return nil, errors.New("it is no address of a page; it begins with https://")
		}
	case lodestone.HoldsLines:
		s = printable(s, true)
	default:
		s = printable(s, false)
	}
	if n := utf8.RuneCountInString(s); t.into.Length > 0 && n > t.into.Length {
		return nil, fmt.Errorf("it has %d characters, and the provider takes at most %d", n, t.into.Length)
	}
	return s, nil
}

// printable takes out what cannot be seen and could mislead: control characters and marks that turn the direction
// of writing. Breaks of lines become blanks where one line is expected.
func printable(s string, lines bool) string {
	if strings.IndexFunc(s, unseen) < 0 {
		return s
	}
	var b strings.Builder
	blank := false // the last was a break
	for _, r := range s {
		switch {
		case lines && r == '\n':
			b.WriteRune(r)
		case r == '\n' || r == '\r' || r == '\t' || r == '\u0085' || r == '\u2028' || r == '\u2029':
			if !blank && !(lines && r == '\r') {
				b.WriteRune(' ')
			}
			blank = true
			continue
		case unseen(r):
		default:
			b.WriteRune(r)
		}
		blank = false
	}
	return strings.TrimSpace(b.String())
}

func unseen(r rune) bool {
	return unicode.IsControl(r) || r >= '\u2028' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' || r == '\u200e' || r == '\u200f' || r == '\ufeff'
}

// spelled counts the characters of a text that are written out: what it has at least.
func (t Template) spelled() int {
	if text, ok := t.literal.(string); ok && len(t.parts) == 0 {
		return utf8.RuneCountInString(text)
	}
	n := 0
	for _, p := range t.parts {
		n += utf8.RuneCountInString(p.words)
	}
	return n
}
