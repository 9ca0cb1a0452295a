package rules

import (
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
)

// A step that asks for a confirmation needs the link where the configuration is known to have none, and is left in
// peace where there is one.
func TestConfirmNeedsALink(t *testing.T) {
	const text = `
forms: {guide: {fields: {email: {type: email, required: true}}}}
sequences:
  asks:
    when: true
    consent: confirmed
    steps:
      - {name: ask, confirm: 7d, do: referralrock.invite, with: {firstName: '${links.confirm}'}}
      - {name: next, do: referralrock.invite, with: {firstName: there}}
`
	opts := options()
	opts.NoLinks = true
	set, err := compile(t, opts, "rules.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if said := set.Warnings.Error(); !strings.Contains(said, "rules.yaml:8:30: warning: without http.public_url") {
		t.Errorf("without links check says:\n%s", said)
	}
	opts.NoLinks, opts.Link = false, func(string, lodestone.Email, time.Time) string { return "https://forms.example.com/confirm/x" }
	if set, err = compile(t, opts, "rules.yaml", text); err != nil || len(set.Warnings) > 0 {
		t.Errorf("with links check says %v, %v", set.Warnings, err)
	}
	q := set.Sequence("asks")
	asked := time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	if until := set.ScaleTime(7).Sequence("asks").ConfirmBy(&q.Steps[0], asked); !until.Equal(asked.Add(24 * time.Hour)) {
		t.Errorf("seven times as fast it waits until %s, want a day", until)
	}
}

// A link is kept only hidden, so nothing by which the provider finds an act again may hold one.
func TestNoLinkInWhatFindsTheAct(t *testing.T) {
	const text = `
forms: {guide: {fields: {email: {type: email, required: true}}}}
sequences:
  guide:
    when: true
    steps:
      - name: refer
        do: referralrock.refer
        with: {referralCode: 'see ${links.unsubscribe}', externalIdentifier: 'a-${links.unsubscribe}'}
`
	opts := options()
	op := opts.Operations["referralrock.refer"]
	op.Parameters = append([]lodestone.Parameter{{Name: "externalIdentifier", Type: lodestone.FieldText, Finds: true}}, op.Parameters...)
	opts.Operations["referralrock.refer"] = op
	opts.Link = func(string, lodestone.Email, time.Time) string { return "https://forms.example.com/unsubscribe/x" }
	_, err := compile(t, opts, "rules.yaml", text)
	if want := "rules.yaml:9:78: externalIdentifier holds ${links.unsubscribe}; "; err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("check says %v, want %s… alone", err, want)
	}
	opts.Kept = true // enrollments that began with them go on; the gate sees to it
	if _, err := compile(t, opts, "rules.yaml", text); err != nil {
		t.Errorf("a version that was in force: %v", err)
	}
}
