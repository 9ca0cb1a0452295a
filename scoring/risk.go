package scoring

import (
	"fmt"
	"strings"

	"github.com/lodestonehq/lodestone"
)

// Sign is one thing that speaks against a submission, with the weight it has in risk.score.
type Sign struct {
	Weight int
	Words  string
}

// Signs lists what speaks against a submission of an address, heaviest first; ev may be nil. No word
// of it is personal.
func Signs(ev *lodestone.Evidence, email lodestone.Email) (signs []Sign) {
	if ev == nil {
		ev = new(lodestone.Evidence)
	}
	add := func(is bool, weight int, format string, args ...any) {
		if is {
			signs = append(signs, Sign{weight, fmt.Sprintf(format, args...)})
		}
	}
	add(ev.Honeypot, 100, "the field that people do not see was filled in")
	add(ev.Bombed(), 90, "one address in %d forms from %d sources within an hour", ev.AddressForms, ev.AddressSources)
	add(ev.Token == lodestone.TokenBad, 60, "the form's token is forged or too old")
	add(ev.SourceSubmissions > 100, 60, "%d submissions from one source within an hour", ev.SourceSubmissions)
	add(ev.MX != nil && !*ev.MX, 60, "a domain that takes no mail")
	add(ev.SourceSubmissions > 20 && ev.SourceSubmissions <= 100, 30, "%d submissions from one source within an hour", ev.SourceSubmissions)
	add(ev.Token == lodestone.TokenGood && ev.FillSeconds < 2, 40, "filled in within %.1f s", ev.FillSeconds)
	add(ev.TokenUses > 3, 40, "the form's token was used %d times", ev.TokenUses)
	add(disposable.has(email.Domain()), 40, "an address that is thrown away")
	add(ev.AddressSubmissions > 5, 40, "%d submissions for one address within an hour", ev.AddressSubmissions)
	add(mistyped(email.Domain()) != "", 20, "a domain that looks mistyped")
	add(role.has(mailbox(email.Local())), 10, "an address of a function, not of a person")
	return signs
}

// maxRisk is the most that risk.score is.
const maxRisk = 100

// Risk is the sum of the weights, at most [maxRisk].
func Risk(ev *lodestone.Evidence, email lodestone.Email) int {
	sum := 0
	for _, s := range Signs(ev, email) {
		sum += s.Weight
	}
	return min(sum, maxRisk)
}

// RiskWords says in one line what speaks against a submission.
func RiskWords(ev *lodestone.Evidence, email lodestone.Email) string {
	words := []string{}
	for _, s := range Signs(ev, email) {
		words = append(words, s.Words)
	}
	if len(words) == 0 {
		return "risk 0"
	}
	return fmt.Sprintf("risk %d: %s", Risk(ev, email), strings.Join(words, "; "))
}

// popular are the domains that are worth comparing with: short ones of others would be near a typo
// of each of them.
var popular = []string{"gmail.com", "googlemail.com", "yahoo.com", "hotmail.com", "outlook.com", "icloud.com", "aol.com", "protonmail.com", "gmx.de", "web.de", "live.com"}

// mistyped is the popular domain that differs from domain by one letter, "" when there is none.
func mistyped(domain string) string {
	if freemail.has(domain) || len(domain) > 64 {
		return ""
	}
	for _, p := range popular {
		if len(p) > 6 && editDistance(domain, p) == 1 {
			return p
		}
	}
	return ""
}

// declareRisk adds the names under risk. They are there before the score is.
func (s *Schema) declareRisk(add func(name string, b base, optional bool, load func(*Facts) any) *variable) {
	evidence := func(f *Facts) *lodestone.Evidence {
		if ev := f.context().Evidence; ev != nil {
			return ev
		}
		return noEvidence
	}
	count := func(name string, load func(*lodestone.Evidence) int) {
		add("risk."+name, number, false, func(f *Facts) any { return float64(load(evidence(f))) })
	}
	add("risk.score", number, false, func(f *Facts) any { return float64(Risk(f.context().Evidence, f.lead().Email)) })
	add("risk.observed", boolean, false, func(f *Facts) any { return f.context().Evidence != nil })
	add("risk.token", boolean, false, func(f *Facts) any { return evidence(f).Token == lodestone.TokenGood })
	add("risk.fill_seconds", number, true, func(f *Facts) any {
		if ev := evidence(f); ev.Token == lodestone.TokenGood {
			return ev.FillSeconds
		}
		return nil
	})
	add("risk.honeypot", boolean, false, func(f *Facts) any { return evidence(f).Honeypot })
	add("risk.bombed", boolean, false, func(f *Facts) any { return evidence(f).Bombed() })
	add("risk.typo", boolean, false, func(f *Facts) any { return mistyped(f.lead().Email.Domain()) != "" })
	add("risk.mx", boolean, true, func(f *Facts) any {
		if mx := evidence(f).MX; mx != nil {
			return *mx
		}
		return nil
	})
	count("token_uses", func(e *lodestone.Evidence) int { return e.TokenUses })
	count("address_submissions", func(e *lodestone.Evidence) int { return e.AddressSubmissions })
	count("address_forms", func(e *lodestone.Evidence) int { return e.AddressForms })
	count("address_sources", func(e *lodestone.Evidence) int { return e.AddressSources })
	count("source_submissions", func(e *lodestone.Evidence) int { return e.SourceSubmissions })
}

var noEvidence = new(lodestone.Evidence)
