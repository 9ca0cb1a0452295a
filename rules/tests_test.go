package rules

import (
	"strings"
	"testing"
	"time"
)

const tested = `
forms:
  guide:
    fields:
      email: {type: email, required: true}
      size: {type: number}
scoring:
  bands: {hot: 50, cold: 0}
  rules:
    - {name: large, when: fields.size >= 100, points: 60}
sequences:
  invite:
    when: band == "hot"
    steps: [{name: invite, do: referralrock.invite, with: {firstName: there}}]
`

const testsOfIt = `
tests:
  - name: everything a test can say
    submit:
      - form: guide
        fields: {email: Ada@Example.com, size: 120}
        context:
          page: https://example.com
          timezone: Europe/Berlin
          utm: {source: newsletter}
          referral_code: ADA2026
          consent: {marketing: true, text: "Yes", at: 2026-03-06T09:00:00Z}
        at: 2026-03-06T10:00:00Z
      - {form: guide, fields: {email: bob@example.com}, backfill: true, at: 2d}
      - {form: guide, fields: {email: bob@example.com}}
    signals:
      - {kind: converted, at: 3d}
      - {kind: bounced, email: bob@example.com, detail: {type: hard, count: 2}}
    provider:
      referralrock.invite: refused
      referralrock: unsubscribed
      invite: [unavailable, accepted]
      invite.invite: timeout
    until: 7d
    expect:
      - score: 60
        band: hot
        lines: {large: 60}
        sequence: invite
        touchpoints:
          - {step: invite, sequence: invite, at: 10m, outcome: sent, reason: accepted}
          - {step: invite, outcome: deferred}
        only: true
      - {email: bob@example.com, sequence: none}
      - {rejected: missing_field}
`

func TestTests(t *testing.T) {
	set, err := Compile([]File{{"a.yaml", []byte(tested)}, {"tests.yaml", []byte(testsOfIt)}}, options())
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Tests) != 1 {
		t.Fatalf("%d tests, want 1", len(set.Tests))
	}
	x := set.Tests[0]
	start := time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	for what, times := range map[string][2]time.Time{
		"the first submission":                       {x.Submit[0].At, start},
		"a submission some days after it":            {x.Submit[1].At, start.Add(48 * time.Hour)},
		"one that does not say when":                 {x.Submit[2].At, start.Add(48 * time.Hour)},
		"a signal":                                   {x.Signals[0].At, start.Add(72 * time.Hour)},
		"a signal that does not say when":            {x.Signals[1].At, start.Add(48 * time.Hour)},
		"until":                                      {x.Until, start.Add(7 * 24 * time.Hour)},
		"a touchpoint some minutes after the first ": {x.Expect[0].Touchpoints[0].At, start.Add(10 * time.Minute)},
	} {
		if !times[0].Equal(times[1]) {
			t.Errorf("%s is at %v, want %v", what, times[0], times[1])
		}
	}
	if x.Signals[0].Email != "ada@example.com" || x.Expect[0].Email != "ada@example.com" {
		t.Errorf("signal of %q and expectation of %q, want the first submission's lead", x.Signals[0].Email, x.Expect[0].Email)
	}
	if got := x.Expect; *got[0].Score != 60 || got[0].None || !got[1].None || !got[0].Only || got[2].Rejected != "missing_field" {
		t.Errorf("expectations %+v", got)
	}
	if got := x.Provider; len(got) != 4 || !got[0].Always || got[2].Always || got[3].Sequence != "invite" || got[0].Operation != "invite" || got[1].Connector != "referralrock" {
		t.Errorf("answers %+v", got)
	}
	if err := compiledSchema(t, options()).Validate(asJSON(t, []byte(testsOfIt))); err != nil {
		t.Errorf("the schema refuses it: %v", err)
	}
}

// Tests decide nothing: with and without them the rules are the same version.
func TestTestsAreNoPartOfAVersion(t *testing.T) {
	plain, err := Compile([]File{{"a.yaml", []byte(tested)}}, options())
	if err != nil {
		t.Fatal(err)
	}
	with, err := Compile([]File{{"a.yaml", []byte(tested + testsOfIt)}}, options())
	if err != nil {
		t.Fatal(err)
	}
	if plain.Version != with.Version {
		t.Errorf("version %s with tests, %s without", with.Version, plain.Version)
	}
}

// A long number keeps its digits: it may be a telephone number.
func TestNumbersOfTestsKeepTheirDigits(t *testing.T) {
	set, err := Compile([]File{{"a.yaml", []byte(tested + `
tests:
  - {name: one, submit: {form: guide, fields: {email: ada@example.com, size: 49301234567890123}}, expect: {sequence: none}}
`)}}, options())
	if err != nil {
		t.Fatal(err)
	}
	if got := string(set.Tests[0].Submit[0].Data); !strings.Contains(got, `"size":49301234567890123`) {
		t.Errorf("submitted %s", got)
	}
}
