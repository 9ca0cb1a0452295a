package ruletest_test

import (
	"bytes"
	"encoding/xml"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/ruletest"
	"github.com/lodestonehq/lodestone/rules"
)

const ruleFile = `
forms:
  guide:
    honeypot: website
    quarantine: risk.honeypot
    fields:
      email: {type: email, required: true}
      name: {type: text}
      size: {type: number, required: true}
scoring:
  bands: {hot: 50, warm: 20, cold: 0}
  rules:
    - {name: large, when: fields.size >= 100, points: 60}
    - {name: again, when: lead.submissions > 1, points: 20, each: true, half_life: 10d}
sequences:
  hot:
    when: band == "hot"
    priority: 10
    exit: signals.converted
    steps:
      - {name: invite, after: 10m, do: provider.invite, with: {firstName: '${fields.name ?? "there"}'}}
      - {name: refer, after: 1d, do: provider.refer, with: {referralCode: '${fields.name}'}}
  braked:
    when: fields.size == 7
    brake: {enrollments: 2, per: 1h}
    steps: [{name: slow, do: provider.invite, with: {firstName: there}}]
  many:
    when: fields.size == 9
    steps:
      - {name: one, do: provider.invite, with: {firstName: there}}
      - {name: two, do: provider.invite, with: {firstName: there}}
      - {name: three, do: provider.invite, with: {firstName: there}}
  warm:
    when: band == "warm"
    consent: required
    steps: [{name: wait, after: 2d, do: provider.invite, with: {firstName: there}}]
caps:
  - {max: 2, per: 7d}
tests:
`

func options() rules.Options {
	text := func(name string) lodestone.Parameter {
		return lodestone.Parameter{Name: name, Type: lodestone.FieldText, Required: true}
	}
	return rules.Options{Operations: map[string]lodestone.Operation{
		"provider.invite": {Name: "invite", Parameters: []lodestone.Parameter{text("firstName")}},
		"provider.refer":  {Name: "refer", Parameters: []lodestone.Parameter{text("referralCode")}},
	}}
}

func compile(t testing.TB, tests string) *rules.Set {
	t.Helper()
	set, err := rules.Compile([]rules.File{{Name: "rules.yaml", Data: []byte(ruleFile + tests)}}, options())
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func run(t testing.TB, test string) ruletest.Result {
	t.Helper()
	set := compile(t, "  - name: x\n    "+strings.ReplaceAll(strings.TrimSpace(test), "\n", "\n    ")+"\n")
	return ruletest.New(set, options()).Run(set.Tests[0])
}

func TestPasses(t *testing.T) {
	for name, test := range map[string]string{
		"times, outcomes and reasons": `
submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}, at: 2026-03-06T10:00:00Z}
expect:
  score: 60
  band: hot
  lines: {large: 60, again: 0}
  sequence: hot
  touchpoints:
    - {step: invite, at: 2026-03-06T10:10:00Z, outcome: sent, reason: accepted}
    - {step: refer, at: 2026-03-07T10:10:00Z, outcome: sent}
  only: true`,
		"others may stand between": `
submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}}
expect: {touchpoints: [{step: refer, at: 1450m}]}`,
		"a value that is missing": `
submit: {form: guide, fields: {email: a@b.example, size: 100}}
expect: {touchpoints: [{step: invite, outcome: sent}, {step: refer, outcome: failed, reason: bad_parameters}], only: true}`,
		"a signal ends it": `
submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}}
signals: {kind: converted, at: 2h}
expect: {touchpoints: [{step: invite}, {step: refer, at: 2h, outcome: cancelled, reason: converted}], only: true}`,
		"what comes at the moment of a touchpoint comes before it": `
submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}}
signals: {kind: unsubscribed, at: 10m}
expect: {touchpoints: [{step: invite, at: 10m, outcome: skipped, reason: suppressed}], only: true}`,
		"nobody enters": `
submit: {form: guide, fields: {email: a@b.example, size: 1}}
expect: {sequence: none, touchpoints: [], only: true, band: cold}`,
		"no consent": `
submit: [{form: guide, fields: {email: a@b.example, size: 1}}, {form: guide, fields: {email: a@b.example, size: 1}}]
expect: {sequence: warm, touchpoints: [{step: wait, outcome: skipped, reason: no_consent}]}`,
		"a higher one supersedes": `
submit:
  - {form: guide, fields: {email: a@b.example, size: 1}}
  - {form: guide, fields: {email: a@b.example, size: 1}, at: 1h}
  - {form: guide, fields: {email: a@b.example, size: 100}, at: 1d}
expect:
  sequence: hot
  lines: {again: 38.7}
  touchpoints: [{step: wait, at: 1d, outcome: cancelled, reason: superseded}, {step: invite, at: 1450m}]`,
		"two leads": `
submit: [{form: guide, fields: {email: a@b.example, size: 1}}, {form: guide, fields: {email: c@d.example, size: 100}}]
expect: [{sequence: none}, {email: c@d.example, sequence: hot}]`,
		"an old submission": `
submit: {form: guide, fields: {email: a@b.example, size: 100}, backfill: true}
expect: {score: 60, sequence: none}`,
		"the clock stops": `
submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}}
until: 1h
expect: {touchpoints: [{step: invite, outcome: sent}, {step: refer, outcome: scheduled, at: 1450m}], only: true}`,
		"a submission that cannot be used": `
submit: {form: guide, fields: {email: a@b.example}}
expect: {rejected: missing_field, sequence: none}`,
		"one that looks like spam waits for a human": `
submit: {form: guide, fields: {email: a@b.example, size: 100, website: buy}}
expect: {rejected: quarantined, sequence: none, touchpoints: [], only: true}`,
		"the third of an hour is held by the brake": `
submit:
  - {form: guide, fields: {email: a@b.example, size: 7, name: Ada}}
  - {form: guide, fields: {email: b@b.example, size: 7, name: Ada}}
  - {form: guide, fields: {email: c@b.example, size: 7, name: Ada}, at: 59m}
  - {form: guide, fields: {email: d@b.example, size: 7, name: Ada}, at: 3h}
expect:
  - {email: b@b.example, touchpoints: [{step: slow, outcome: sent}]}
  - {email: c@b.example, sequence: braked, touchpoints: [{step: slow, outcome: held, reason: braked}], only: true}
  - {email: d@b.example, touchpoints: [{step: slow, outcome: sent}]}`,
		"the cap puts the third of a week off": `
submit: {form: guide, fields: {email: a@b.example, size: 9}}
expect:
  touchpoints:
    - {step: one, outcome: sent, at: 0s}
    - {step: two, outcome: sent, at: 0s}
    - {step: three, outcome: deferred, reason: capped}
    - {step: three, outcome: sent, at: 7d}
  only: true`,
		"refused": `
submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}}
provider: {provider.invite: refused}
expect: {touchpoints: [{step: invite, outcome: failed, reason: refused}, {step: refer, outcome: sent}]}`,
		"unsubscribed at the provider": `
submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}}
provider: {provider: unsubscribed}
expect: {touchpoints: [{step: invite, outcome: skipped, reason: unsubscribed}], only: true}`,
		"unavailable, then not": `
submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}}
provider: {invite: [unavailable, rate_limited]}
expect:
  touchpoints:
    - {step: invite, outcome: deferred, reason: not_done, at: 10m}
    - {step: invite, outcome: deferred, reason: rate_limited, at: 602s}
    - {step: invite, outcome: sent, at: 606s}
    - {step: refer}
  only: true`,
		"the check does not answer": `
submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}}
provider: {hot.invite: [check_failed]}
expect: {touchpoints: [{step: invite, outcome: deferred, reason: check_failed}, {step: invite, outcome: sent}]}`,
		"an answer that is lost and found": `
submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}}
provider: {invite: timeout}
expect: {touchpoints: [{step: invite, outcome: sent, reason: found}]}`,
		"one that is lost and did not happen": `
submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}}
provider: {invite: [timeout_absent]}
expect: {touchpoints: [{step: invite, outcome: deferred, reason: absent}, {step: invite, outcome: sent, reason: accepted, at: 630s}]}`,
		"one that nobody can clear up": `
submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}}
provider: {invite: timeout_unclear}
expect: {touchpoints: [{step: invite, outcome: held, reason: unclear}], only: true}`,
		"a provider that never answers": `
submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}}
provider: {invite: unavailable}
until: 30d
expect: {touchpoints: [{step: invite, outcome: scheduled, reason: not_done}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			if r := run(t, test); !r.OK || r.Diff != "" {
				t.Errorf("fails:\n%s", r.Diff)
			}
		})
	}
}

func TestFails(t *testing.T) {
	const large = "submit: {form: guide, fields: {email: a@b.example, size: 100, name: Ada}}\n"
	for name, c := range map[string]struct{ test, want string }{
		"score":          {large + "expect: {score: 59}", "score        expected 59, got 60"},
		"band":           {large + "expect: {band: cold}", "band         expected cold, got hot"},
		"lines":          {large + "expect: {lines: {large: 50}}", "lines        expected large +50, got +60"},
		"no line":        {large + "expect: {lines: {again: 20}}", "lines        expected again +20, got no line"},
		"sequence":       {large + "expect: {sequence: warm}", "sequence     expected warm, got hot"},
		"no sequence":    {large + "expect: {sequence: none}", "sequence     expected none, got hot"},
		"time":           {large + "expect: {touchpoints: [{step: invite, at: 11m}]}", "touchpoints  expected invite at 2026-01-05T09:11:00Z, got hot.invite sent (accepted) at 2026-01-05T09:10:00Z"},
		"order":          {large + "expect: {touchpoints: [{step: refer}, {step: invite}]}", "got hot.invite sent (accepted) at 2026-01-05T09:10:00Z, which is before"},
		"only":           {large + "expect: {touchpoints: [{step: invite}], only: true}", "touchpoints  expected no other, got hot.refer sent (accepted)"},
		"absent":         {large + "expect: {touchpoints: [{step: wait}]}", "touchpoints  expected wait, got no such touchpoint"},
		"rejected":       {large + "expect: {rejected: no_email}", "rejected     expected no_email, got every submission could be used"},
		"not expected":   {"submit: {form: guide, fields: {email: a@b.example}}\nexpect: {sequence: none}", "form guide at 2026-01-05T09:00:00Z could not be used: missing_field"},
		"ledger":         {large + "expect: {score: 59}", "+60 large"},
		"the candidates": {large + "expect: {score: 59}", "sequence warm: no (condition_false)"},
		"somebody else":  {large + "expect: {email: x@y.example, score: 1}", "score        expected 1, got no submission"},
		"what the gate said": {"submit: [{form: guide, fields: {email: a@b.example, size: 1}}, {form: guide, fields: {email: a@b.example, size: 1}}]\nexpect: {touchpoints: [{step: wait, outcome: sent}]}",
			"warm.wait skipped (no_consent): required, and none is on record"},
	} {
		t.Run(name, func(t *testing.T) {
			if r := run(t, c.test); r.OK || !strings.Contains(r.Diff, c.want) {
				t.Errorf("diff\n%s\nwants %q", r.Diff, c.want)
			}
		})
	}
}

func TestJUnit(t *testing.T) {
	var b bytes.Buffer
	if err := ruletest.JUnit(&b, []ruletest.Result{{Name: "a <b>", File: "x.yaml", Line: 3, OK: true}, {Name: "c", File: "y.yaml", Line: 1, Diff: "score & band\n"}}, 0); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Cases []struct {
				Name    string `xml:"name,attr"`
				Failure string `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Tests != 2 || doc.Failures != 1 || len(doc.Suites) != 2 || doc.Suites[0].Cases[0].Name != "a <b>" || doc.Suites[1].Cases[0].Failure != "score & band\n" {
		t.Errorf("read back as %+v from\n%s", doc, b.String())
	}
}

// BenchmarkTests runs a test of two submissions, a signal and two touchpoints.
func BenchmarkTests(b *testing.B) {
	set := compile(b, `
  - name: one
    submit:
      - {form: guide, fields: {email: a@b.example, size: 1}}
      - {form: guide, fields: {email: a@b.example, size: 100, name: Ada}, at: 1d}
    signals: {kind: opened, at: 2d}
    expect: {touchpoints: [{step: invite}, {step: refer}], only: true}
`)
	r := ruletest.New(set, options())
	for b.Loop() {
		if got := r.Run(set.Tests[0]); !got.OK {
			b.Fatal(got.Diff)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tests/s")
}
