package event

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
)

// context reads what the page knew. It is never a reason to reject: what does not fit is left out
// with a note. now is the submission's time.
func (d *decoder) context(v value, now time.Time) lodestone.Context {
	var c lodestone.Context
	if !d.part("context", v) {
		return c
	}
	c = lodestone.Context{
		Page:         d.text("context", v, "page"),
		IP:           d.ip(v),
		UserAgent:    d.text("context", v, "user_agent"),
		Timezone:     d.text("context", v, "timezone"),
		ReferralCode: d.text("context", v, "referral_code"),
	}
	c.UTM = d.utm("context.utm", v.of("utm"))
	c.UTMFirst = d.utm("context.utm_first", v.of("utm_first"))
	c.Consent = d.consent(v.of("consent"), now)
	d.leftOut("context", unknown, v, inContext)
	return c
}

// unknown is why a part of the context was left out.
const unknown = " holds what is not known"

var (
	inData    = oneOf("fields", "context", "backfill")
	inContext = oneOf("page", "ip", "user_agent", "timezone", "referral_code", "utm", "utm_first", "consent", "token")
	inUTM     = oneOf("source", "medium", "campaign", "term", "content")
	inConsent = oneOf("marketing", "text", "at")
)

// utm reads the campaign parameters of a page's address.
func (d *decoder) utm(name string, v value) (out lodestone.UTM) {
	if !d.part(name, v) {
		return out
	}
	d.leftOut(name, unknown, v, inUTM)
	return lodestone.UTM{
		Source:   d.text(name, v, "source"),
		Medium:   d.text(name, v, "medium"),
		Campaign: d.text(name, v, "campaign"),
		Term:     d.text(name, v, "term"),
		Content:  d.text(name, v, "content"),
	}
}

// consent reads what the person agreed to; nil when nothing was said. A word that cannot be read is
// no consent: where somebody was asked, the answer counts as a refusal until it is clear.
func (d *decoder) consent(v value, now time.Time) *lodestone.Consent {
	if !d.part("context.consent", v) {
		return nil
	}
	var c lodestone.Consent
	marketing := v.of("marketing")
	switch given, ok := truth(marketing); {
	case ok:
		c.Marketing = given
	case marketing.kind() == absent:
		d.note("context.consent does not say marketing: it was left out")
		return nil
	default:
		d.note("context.consent.marketing is %s that is not true, false or on: taken as refused", kindOf(marketing))
	}
	c.Text = d.text("context.consent", v, "text")
	if at := d.text("context.consent", v, "at"); at != "" {
		if t, ok := readTime(at); ok {
			c.At = notAfter(t, now)
		} else {
			d.note("context.consent.at is not a time as in 2026-11-20T09:00:00Z: it was left out")
		}
	}
	d.leftOut("context.consent", unknown, v, inConsent)
	return &c
}

// part reports whether v is an object; when it is something else that is noted.
func (d *decoder) part(name string, v value) bool {
	if v.kind() != isObject && v.kind() != absent {
		d.note("%s is %s, want an object: it was left out", name, kindOf(v))
	}
	return v.kind() == isObject
}

// text is the text that a part of the context holds under a name; what is none is noted.
func (d *decoder) text(part string, in value, name string) string {
	v := in.of(name)
	if v.kind() != isText && v.kind() != absent {
		d.note("%s.%s is %s, want a text: it was left out", part, name, kindOf(v))
		return ""
	}
	return v.text()
}

// ip reads a network address as [netip.Addr] writes it.
func (d *decoder) ip(in value) string {
	s := strings.TrimSpace(d.text("context", in, "ip"))
	if s == "" {
		return ""
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		d.note("context.ip is no network address as in 203.0.113.9: it was left out")
		return ""
	}
	return a.Unmap().String()
}

func oneOf(known ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(known, name) }
}
