package scoring

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lodestonehq/lodestone"
)

// variable is a name that expressions can use. Dotted names are resolved when an expression is
// compiled, so at run time each is one entry of a flat environment.
type variable struct {
	name   string
	typ    Type
	scored bool             // not there before the score is
	oneOf  []string         // the texts it can be equal to; nil: any
	list   []string         // of a list: its elements
	load   func(*Facts) any // nil for lists, which are constants
	field  string           // of fields.NAME and lead.profile.NAME: the NAME

	slotted bool // a program uses it; guarded by the schema's mu
	slot    int  // its place among the schema's slots, once slotted; does not change
}

// declare fills the schema with every name there is.
func (s *Schema) declare(c Config) {
	add := func(name string, b base, optional bool, load func(*Facts) any) *variable {
		v := &variable{name: name, typ: Type{base: b, optional: optional}, load: load}
		s.names[name] = v
		if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
			s.spaces[name[:dot]] = append(s.spaces[name[:dot]], name[dot+1:])
		}
		return v
	}
	for _, space := range []string{"fields", "lead.profile", "lists", "signals", "signals_at"} {
		s.spaces[space] = nil
	}

	add("form", text, false, func(f *Facts) any { return f.form }).oneOf = c.Forms
	add("now", moment, false, func(f *Facts) any { return f.Now })
	for name, load := range map[string]func(*Facts) any{
		"score":         func(f *Facts) any { return float64(f.Score) },
		"band":          func(f *Facts) any { return orNil(f.Band) },
		"previous_band": func(f *Facts) any { return orNil(f.PreviousBand) },
	} {
		v := add(name, text, true, func(f *Facts) any {
			if !f.Scored {
				return nil
			}
			return load(f)
		})
		v.scored = true
		if name == "score" {
			v.typ.base = number
		} else {
			v.oneOf = c.Bands
		}
	}

	for name, t := range c.Fields {
		b := typeOf(t).base
		add("fields."+name, b, true, func(f *Facts) any { return fieldValue(f.Fields.Value(name), b) }).field = name
		add("lead.profile."+name, b, true, func(f *Facts) any { return fieldValue(f.lead().Profile.Value(name), b) }).field = name
	}

	add("lead.email", text, false, func(f *Facts) any { return string(f.lead().Email) })
	add("lead.domain", text, false, func(f *Facts) any { return f.lead().Email.Domain() })
	freemail, disposable, role := c.wordsOr("freemail", freemail), c.wordsOr("disposable", disposable), c.wordsOr("role", role)
	add("lead.freemail", boolean, false, func(f *Facts) any { return freemail.has(f.lead().Email.Domain()) })
	add("lead.disposable", boolean, false, func(f *Facts) any { return disposable.has(f.lead().Email.Domain()) })
	add("lead.role", boolean, false, func(f *Facts) any { return role.has(mailbox(f.lead().Email.Local())) })
	add("lead.first_seen", moment, true, func(f *Facts) any { return timeOrNil(f.lead().FirstSeen) })
	add("lead.submissions", number, false, func(f *Facts) any { return whole(f.lead().Submissions) })
	add("lead.zone", text, true, func(f *Facts) any { return orNil(f.lead().Zone) })
	add("lead.country", text, true, func(f *Facts) any { return fieldValue(f.lead().Profile.Value("country"), text) })
	tags := add("lead.tags", list, false, nil)
	tags.typ.element, tags.list = text, []string{}
	s.spaces["lead"] = append(s.spaces["lead"], "profile")

	texts := map[string]func(*lodestone.Context) string{
		"context.page":          func(c *lodestone.Context) string { return c.Page },
		"context.ip":            func(c *lodestone.Context) string { return c.IP },
		"context.user_agent":    func(c *lodestone.Context) string { return c.UserAgent },
		"context.timezone":      func(c *lodestone.Context) string { return c.Timezone },
		"context.referral_code": func(c *lodestone.Context) string { return c.ReferralCode },
	}
	for part, load := range map[string]func(*lodestone.UTM) string{
		"source":   func(u *lodestone.UTM) string { return u.Source },
		"medium":   func(u *lodestone.UTM) string { return u.Medium },
		"campaign": func(u *lodestone.UTM) string { return u.Campaign },
		"term":     func(u *lodestone.UTM) string { return u.Term },
		"content":  func(u *lodestone.UTM) string { return u.Content },
	} {
		last := func(c *lodestone.Context) string { return load(&c.UTM) }
		texts["utm."+part] = last
		texts["context.utm."+part] = last
		texts["context.utm_first."+part] = func(c *lodestone.Context) string { return load(&c.UTMFirst) }
	}
	for name, load := range texts {
		add(name, text, true, func(f *Facts) any { return orNil(load(f.context())) })
	}
	consent := func(load func(*lodestone.Consent) any) func(*Facts) any {
		return func(f *Facts) any {
			if c := f.context().Consent; c != nil {
				return load(c)
			}
			return nil
		}
	}
	add("context.consent.marketing", boolean, true, consent(func(c *lodestone.Consent) any { return c.Marketing }))
	add("context.consent.text", text, true, consent(func(c *lodestone.Consent) any { return orNil(c.Text) }))
	add("context.consent.at", moment, true, consent(func(c *lodestone.Consent) any { return timeOrNil(c.At) }))
	s.spaces["context"] = append(s.spaces["context"], "utm", "utm_first", "consent")

	s.declareRisk(add)
	for _, name := range []string{"unsubscribe", "confirm"} {
		add("links."+name, text, true, func(f *Facts) any {
			if c.Link == nil || f.lead().Email == "" {
				return nil
			}
			link := c.Link(name, f.lead().Email, f.Now)
			if !f.Sending {
				link = lodestone.HideLink(link)
			}
			return orNil(link)
		})
	}

	for _, kind := range c.Signals {
		k := string(kind)
		add("signals."+k, boolean, false, func(f *Facts) any { _, ok := f.lead().Signals[k]; return ok })
		add("signals_at."+k, moment, true, func(f *Facts) any { return timeOrNil(f.lead().Signals[k]) })
	}

	for name, elements := range c.Lists {
		v := add("lists."+name, list, false, nil)
		v.typ.element, v.list = text, elements
		set := make(map[string]struct{}, len(elements))
		for _, e := range elements {
			set[e] = struct{}{}
		}
		s.lists[v.name] = set
	}
}

// roots are the first parts of all names, for suggestions.
func (s *Schema) roots() []string {
	var out []string
	for n := range s.names {
		root, _, _ := strings.Cut(n, ".")
		out = append(out, root)
	}
	for n := range s.spaces {
		root, _, _ := strings.Cut(n, ".")
		out = append(out, root)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

var noLead, noContext = new(lodestone.Lead), new(lodestone.Context)

func (f *Facts) lead() *lodestone.Lead {
	if f.Lead == nil {
		return noLead
	}
	return f.Lead
}

func (f *Facts) context() *lodestone.Context {
	if f.Context == nil {
		return noContext
	}
	return f.Context
}

// fieldValue is v when it has the declared type, else nil: a profile may hold a value from a time
// when the field was declared otherwise. Texts are cut to MaxText.
func fieldValue(v any, b base) any {
	switch x := v.(type) {
	case string:
		if b != text {
			return nil
		}
		if len(x) > MaxText {
			return cut(x)
		}
		return v // not x: that would copy the text's header to the heap
	case float64:
		if b != number {
			return nil
		}
		return v
	case bool:
		if b != boolean {
			return nil
		}
		return v
	case int:
		return fieldValue(float64(x), b)
	case int64:
		return fieldValue(float64(x), b)
	}
	return nil
}

// whole is a number as programs see it; those that are seen most are made once.
func whole(n int) any {
	if n >= 0 && n < len(wholes) {
		return wholes[n]
	}
	return float64(n)
}

var wholes = func() (list [64]any) {
	for i := range list {
		list[i] = float64(i)
	}
	return list
}()

// orNil is nil for an empty text.
func orNil(s string) any {
	if s == "" {
		return nil
	}
	return cut(s)
}

func timeOrNil(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// cut shortens a text to MaxText bytes, at the end of a character.
func cut(s string) string {
	if len(s) <= MaxText {
		return s
	}
	n := MaxText
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
