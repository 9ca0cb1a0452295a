package sequencer

import (
	"testing"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
)

func TestQuarantined(t *testing.T) {
	set, err := rules.Compile([]rules.File{{Name: "rules.yaml", Data: []byte(`
forms:
  guarded:
    quarantine: risk.score > 80 or lead.disposable
    fields:
      email: {type: email, required: true}
  open:
    fields:
      email: {type: email, required: true}
`)}}, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	book := NewRulebook(set)
	known := &lodestone.Lead{Email: "ada@example.com"}
	p := planner{book: book}
	p.begin(known, known.Email)
	p.remember("again", known.FirstSeen)
	known = p.lead
	trapped := &lodestone.Evidence{Honeypot: true}
	bombed := &lodestone.Evidence{AddressSources: 10}
	for _, test := range []struct {
		name string
		lead *lodestone.Lead
		sub  lodestone.Submission
		want bool
	}{
		{"an honest one", nil, lodestone.Submission{Form: "guarded", Email: "ada@example.com", Context: lodestone.Context{Evidence: &lodestone.Evidence{}}}, false},
		{"nobody watched", nil, lodestone.Submission{Form: "guarded", Email: "ada@example.com"}, false},
		{"trapped", nil, lodestone.Submission{Form: "guarded", Email: "ada@example.com", Context: lodestone.Context{Evidence: trapped}}, true},
		{"trapped where nothing is guarded", nil, lodestone.Submission{Form: "open", Email: "ada@example.com", Context: lodestone.Context{Evidence: trapped}}, false},
		{"bombed anywhere", nil, lodestone.Submission{Form: "open", Email: "ada@example.com", Context: lodestone.Context{Evidence: bombed}}, true},
		{"an address that is thrown away", nil, lodestone.Submission{Form: "guarded", Email: "x@mailinator.com"}, true},
		{"a backfill", nil, lodestone.Submission{Form: "guarded", Email: "ada@example.com", Backfill: true, Context: lodestone.Context{Evidence: trapped}}, false},
		{"decided already", known, lodestone.Submission{ID: "again", Form: "guarded", Email: "ada@example.com", Context: lodestone.Context{Evidence: trapped}}, false},
		{"a known lead's next", known, lodestone.Submission{ID: "next", Form: "guarded", Email: "ada@example.com", Context: lodestone.Context{Evidence: trapped}}, true},
	} {
		no := Quarantined(test.lead, &test.sub, book)
		if (no != nil) != test.want || no != nil && (no.Reason != lodestone.ReasonQuarantined || no.Detail == "") {
			t.Errorf("%s: %+v, want quarantined %v", test.name, no, test.want)
		}
	}
}
