package main

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/lodestonehq/lodestone"
)

// parseFields reads --field k=v pairs. Values stay texts: the form says what they become. Names that
// begin with "context." fill the context, as they do in posted forms.
func parseFields(pairs []string) (fields map[string]any, ctx *lodestone.Context, err error) {
	fields = map[string]any{}
	for _, p := range pairs {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return nil, nil, usagef("--field %q is not name=value", p)
		}
		rest, isContext := strings.CutPrefix(name, "context.")
		if !isContext {
			fields[name] = value
			continue
		}
		if ctx == nil {
			ctx = &lodestone.Context{}
		}
		if !setContext(ctx, rest, value) {
			return nil, nil, usagef("--field %s: the context has no %s; it has page, ip, user_agent, timezone, referral_code, utm.source, utm.medium, utm.campaign, utm.term, utm.content, consent.marketing and consent.text", name, rest)
		}
	}
	return fields, ctx, nil
}

func setContext(ctx *lodestone.Context, name, value string) bool {
	texts := map[string]*string{
		"page": &ctx.Page, "ip": &ctx.IP, "user_agent": &ctx.UserAgent, "timezone": &ctx.Timezone, "referral_code": &ctx.ReferralCode,
		"utm.source": &ctx.UTM.Source, "utm.medium": &ctx.UTM.Medium, "utm.campaign": &ctx.UTM.Campaign, "utm.term": &ctx.UTM.Term, "utm.content": &ctx.UTM.Content,
	}
	if p := texts[name]; p != nil {
		*p = value
		return true
	}
	if name != "consent.marketing" && name != "consent.text" {
		return false
	}
	if ctx.Consent == nil {
		ctx.Consent = &lodestone.Consent{}
	}
	if name == "consent.text" {
		ctx.Consent.Text = value
	} else {
		ctx.Consent.Marketing = value == "true" || value == "on" || value == "1"
	}
	return true
}

// contentID names a row of a file by what it holds and where it stands, so that the same file gives
// the same ids again.
func contentID(data []byte, place int) string {
	sum := sha256.Sum256(data)
	return fmt.Sprintf("%x-%d", sum[:12], place)
}
