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
func (d *decoder) context(v any, now time.Time) lodestone.Context {
	var c lodestone.Context
	o := d.part("context", v)
	if o == nil {
		return c
	}
	c = lodestone.Context{
		Page:         d.text("context.page", o["page"]),
		IP:           d.ip(o["ip"]),
		UserAgent:    d.text("context.user_agent", o["user_agent"]),
		Timezone:     d.text("context.timezone", o["timezone"]),
		ReferralCode: d.text("context.referral_code", o["referral_code"]),
	}
	c.UTM = d.utm("context.utm", o["utm"])
	c.UTMFirst = d.utm("context.utm_first", o["utm_first"])
	c.Consent = d.consent(o["consent"], now)
	d.leftOut("context holds what is not known", o,
		oneOf("page", "ip", "user_agent", "timezone", "referral_code", "utm", "utm_first", "consent", "token"))
	return c
}

// utm reads the campaign parameters of a page's address.
func (d *decoder) utm(name string, v any) (out lodestone.UTM) {
	u := d.part(name, v)
	if u == nil {
		return out
	}
	d.leftOut(name+" holds what is not known", u, oneOf("source", "medium", "campaign", "term", "content"))
	return lodestone.UTM{
		Source:   d.text(name+".source", u["source"]),
		Medium:   d.text(name+".medium", u["medium"]),
		Campaign: d.text(name+".campaign", u["campaign"]),
		Term:     d.text(name+".term", u["term"]),
		Content:  d.text(name+".content", u["content"]),
	}
}

// consent reads what the person agreed to; nil when nothing was said. A word that cannot be read is
// no consent: where somebody was asked, the answer counts as a refusal until it is clear.
func (d *decoder) consent(v any, now time.Time) *lodestone.Consent {
	o := d.part("context.consent", v)
	if o == nil {
		return nil
	}
	var c lodestone.Consent
	switch given, ok := truth(o["marketing"]); {
	case ok:
		c.Marketing = given
	case o["marketing"] == nil:
		d.note("context.consent does not say marketing: it was left out")
		return nil
	default:
		d.note("context.consent.marketing is %s that is not true, false or on: taken as refused", kindOf(o["marketing"]))
	}
	c.Text = d.text("context.consent.text", o["text"])
	if at := d.text("context.consent.at", o["at"]); at != "" {
		if t, ok := readTime(at); ok {
			c.At = notAfter(t, now)
		} else {
			d.note("context.consent.at is not a time as in 2026-11-20T09:00:00Z: it was left out")
		}
	}
	d.leftOut("context.consent holds what is not known", o, oneOf("marketing", "text", "at"))
	return &c
}

// part is v as an object; nil without a note when absent, with one when it is something else.
func (d *decoder) part(name string, v any) map[string]any {
	switch o := v.(type) {
	case nil:
		return nil
	case map[string]any:
		return o
	}
	d.note("%s is %s, want an object: it was left out", name, kindOf(v))
	return nil
}

func (d *decoder) text(name string, v any) string {
	switch s := v.(type) {
	case nil:
		return ""
	case string:
		return s
	}
	d.note("%s is %s, want a text: it was left out", name, kindOf(v))
	return ""
}

// ip reads a network address as [netip.Addr] writes it.
func (d *decoder) ip(v any) string {
	s := strings.TrimSpace(d.text("context.ip", v))
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
