package scoring

import (
	"slices"
	"testing"
)

func TestParts(t *testing.T) {
	s := NewSchema(testConfig())
	for _, test := range []struct {
		source string
		texts  []string
		any    []string // of the last part
	}{
		{`band == "hot"`, []string{`band == "hot"`}, nil},
		{`(band == "hot")`, []string{`band == "hot"`}, nil},
		{`(band == "hot" and form == "webinar") && not lead.freemail`, []string{`band == "hot"`, `form == "webinar"`, `not lead.freemail`}, nil},
		{`score > 3 and (band == "hot" or (lead.role))`, []string{`score > 3`, `band == "hot" or (lead.role)`}, []string{`band == "hot"`, `lead.role`}},
		{`lead.domain == "a and (b" and score > 1`, []string{`lead.domain == "a and (b"`, `score > 1`}, nil},
		{`1 < score < 5 and lead.role`, []string{`1 < score < 5`, `lead.role`}, nil},
		{`not (lead.role and lead.freemail)`, []string{`not (lead.role and lead.freemail)`}, nil},
	} {
		p, err := s.Compile(test.source, Boolean)
		if err != nil {
			t.Errorf("%s: %v", test.source, err)
			continue
		}
		var texts []string
		for _, part := range p.Parts() {
			texts = append(texts, part.Text)
			if got := string([]rune(test.source)[part.Offset:][:len([]rune(part.Text))]); got != part.Text {
				t.Errorf("%s: at the offset of %q stands %q", test.source, part.Text, got)
			}
		}
		if !slices.Equal(texts, test.texts) {
			t.Errorf("%s: parts %q, want %q", test.source, texts, test.texts)
		}
		if got := p.Parts()[len(p.Parts())-1].Any; !slices.Equal(got, test.any) {
			t.Errorf("%s: alternatives of the last part %q, want %q", test.source, got, test.any)
		}
	}
}

func TestHoldsNamesThePartAndWhatItMet(t *testing.T) {
	s := NewSchema(testConfig())
	p, err := s.Compile(`not lead.disposable and (band == "hot" or score >= 50) and lead.role`, Boolean)
	if err != nil {
		t.Fatal(err)
	}
	f := testFacts()
	f.Scored, f.Score, f.Band = true, 40, "warm"
	e := s.Evaluator()
	defer e.Release()
	e.Bind(f)
	failed, err := e.Holds(p)
	if failed != 1 || err != nil {
		t.Fatalf("Holds = %d, %v; want part 1", failed, err)
	}
	part := p.Parts()[failed]
	want := `none is true: band == "hot", score >= 50 (band is "warm", score is 40)`
	if got := part.Untrue(e.Met(part)); got != want {
		t.Errorf("Untrue = %s, want %s", got, want)
	}
	f.Score = 60
	e.Bind(f)
	if failed, err = e.Holds(p); failed != 2 || err != nil {
		t.Errorf("Holds = %d, %v; want part 2", failed, err)
	}
}
