package lodestone

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// HiddenLink stands for the part of a link that makes it work, wherever links are kept or shown.
const HiddenLink = "<link>"

// HideLink is a link without what makes it work: all after its last slash.
func HideLink(link string) string {
	return link[:strings.LastIndexByte(link, '/')+1] + HiddenLink
}

// linkLike finds the links that people are given, also where slashes are escaped as in JSON or in a URL. A
// token has 56 characters and more.
var linkLike = regexp.MustCompile(`(?i)((?:confirm|unsubscribe)(?:\\?/|%2f))[A-Za-z0-9_-]{50,}`)

// HideLinks hides the links in a text that people are given to confirm or to unsubscribe: whoever has one
// acts for the person.
func HideLinks(text string) string {
	if !holdsToken(text) {
		return text
	}
	return linkLike.ReplaceAllString(text, "${1}"+HiddenLink)
}

// leastToken is the fewest characters of a token that [linkLike] takes for one.
const leastToken = 50

// holdsToken reports whether a text holds what may be a token: nearly none does, and this is quickly seen.
func holdsToken(text string) bool {
	run := 0
	for i := range len(text) {
		switch c := text[i]; {
		case c == '-', c == '_', '0' <= c && c <= '9', 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z',
			c >= 0x80: // two letters beyond ASCII are s and k where case counts for nothing
			if run++; run == leastToken {
				return true
			}
		default:
			run = 0
		}
	}
	return false
}

// HideLinksIn hides links in the texts of a value as a step sends it, however deep. What held one is copied.
func HideLinksIn(v any) any {
	switch v := v.(type) {
	case string:
		return HideLinks(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = HideLinksIn(v[i])
		}
		return out
	case map[string]any:
		out := maps.Clone(v) // nil stays nil
		for name, x := range v {
			out[name] = HideLinksIn(x)
		}
		return out
	}
	return v
}

// Altered names the parameters of the touchpoint's intent that are not kept as they were sent, by what was said
// when it was stored and, for intents of earlier versions, by what stands in them.
func (t *Touchpoint) Altered() []string {
	out := slices.Clone(t.Hidden)
	for name, v := range t.Parameters {
		if holdsHidden(v) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// holdsHidden reports whether a link is hidden in a value, however deep.
func holdsHidden(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(v, HiddenLink)
	case []any:
		return slices.ContainsFunc(v, holdsHidden)
	case map[string]any:
		for _, x := range v {
			if holdsHidden(x) {
				return true
			}
		}
	}
	return false
}

// HideLinks hides the links that entries of earlier versions hold.
func (e *Entry) HideLinks() {
	for i := range e.Touchpoints {
		n := &e.Touchpoints[i]
		n.Detail = HideLinks(n.Detail)
		if n.Arguments != nil {
			n.Arguments, _ = HideLinksIn(n.Arguments).(map[string]any)
		}
	}
	if e.Call != nil {
		e.Call.Arguments, e.Call.Detail = HideLinks(e.Call.Arguments), HideLinks(e.Call.Detail)
	}
}

// HideLinks hides the links in what leads of earlier versions hold of calls whose outcome is open.
func (l *Lead) HideLinks() {
	for i := range l.Enrollments {
		l.Enrollments[i].HideLinks()
	}
}

// HideLinks hides links in the parameters of its touchpoints.
func (e *Enrollment) HideLinks() {
	for _, t := range []*Touchpoint{e.Touchpoint, e.Parked} {
		if t != nil && t.Parameters != nil {
			t.Parameters, _ = HideLinksIn(t.Parameters).(map[string]any)
		}
	}
}
