package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules/clock"
	"github.com/lodestonehq/lodestone/scoring"
)

// The canonical form of definitions: what a version is the hash of. Fields are added with
// omitempty or omitzero, so that a new key does not change the version of what does not use it.
type (
	canonicalSet struct {
		Forms     map[string]canonicalForm `json:"forms,omitempty"`
		Lists     map[string][]string      `json:"lists,omitempty"`
		Bands     []canonicalBand          `json:"bands,omitempty"`
		Rules     []canonicalRule          `json:"rules,omitempty"`
		Sequences []canonicalSequence      `json:"sequences,omitempty"`
		Caps      []Cap                    `json:"caps,omitempty"`
	}
	canonicalForm struct {
		Title  string                    `json:"title,omitempty"`
		Asset  string                    `json:"asset,omitempty"`
		Fields map[string]canonicalField `json:"fields"`
		Zone   string                    `json:"zone,omitempty"`

		Thanks  []string `json:"thanks,omitempty"`
		Origins []string `json:"origins,omitempty"`

		Map       map[string]string `json:"map,omitempty"`
		Signature string            `json:"signature,omitempty"`

		Honeypot   string `json:"honeypot,omitempty"`
		Quarantine string `json:"quarantine,omitempty"`
	}
	canonicalField struct {
		Type     lodestone.FieldType `json:"type"`
		Required bool                `json:"required,omitempty"`
	}
	canonicalBand struct {
		Name string `json:"name"`
		Min  int    `json:"min"`
	}
	canonicalRule struct {
		Name       string        `json:"name"`
		When       string        `json:"when,omitempty"`
		Points     float64       `json:"points,omitempty"`
		PointsExpr string        `json:"points_expr,omitempty"`
		Each       bool          `json:"each,omitempty"`
		HalfLife   time.Duration `json:"half_life,omitempty"`
	}
	canonicalSequence struct {
		Name      string             `json:"name"`
		When      string             `json:"when"`
		Priority  int                `json:"priority,omitempty"`
		Consent   bool               `json:"consent,omitempty"`
		Confirmed bool               `json:"consent_confirmed,omitempty"`
		Reenter   ReenterMode        `json:"reenter"`
		Again     time.Duration      `json:"reenter_after,omitempty"`
		Exit      string             `json:"exit,omitempty"`
		Zone      string             `json:"zone"`
		Window    string             `json:"window,omitempty"`
		Steps     []canonicalStep    `json:"steps"`
		Variants  []canonicalVariant `json:"variants,omitempty"`
		Holdout   float64            `json:"holdout,omitempty"`
		Brake     *Brake             `json:"brake,omitempty"`
	}
	canonicalStep struct {
		Name     string              `json:"name"`
		After    time.Duration       `json:"after,omitempty"`
		Cron     string              `json:"cron,omitempty"`
		Window   string              `json:"window,omitempty"`
		Grace    time.Duration       `json:"grace,omitempty"`
		When     string              `json:"when,omitempty"`
		Confirm  time.Duration       `json:"confirm,omitempty"`
		Do       string              `json:"do"`
		With     []canonicalArgument `json:"with,omitempty"`
		Variants []canonicalVariant  `json:"variants,omitempty"`
	}
	canonicalVariant struct {
		Name   string          `json:"name"`
		Weight int             `json:"weight"`
		Steps  []canonicalStep `json:"steps,omitempty"`
	}
	canonicalArgument struct {
		Name    string          `json:"name"`
		Literal any             `json:"literal,omitempty"`
		Parts   []canonicalPart `json:"parts,omitempty"`

		List   []canonicalArgument `json:"list,omitempty"`
		Fields []canonicalArgument `json:"fields,omitempty"`
	}
	canonicalPart struct {
		Words string `json:"words,omitempty"`
		Code  string `json:"code,omitempty"`
	}
)

// version computes the versions of the set and of its sequences.
func (c *compiler) version() {
	s := canonicalSet{Forms: make(map[string]canonicalForm), Lists: make(map[string][]string)}
	for name, f := range c.set.Forms {
		form := canonicalForm{Title: f.Title, Asset: f.Asset, Fields: make(map[string]canonicalField), Zone: sourceOf(f.Zone), Thanks: f.Thanks, Origins: f.Origins, Map: mapTexts(f.Map), Signature: f.Signature,
			Honeypot: f.Honeypot, Quarantine: sourceOf(f.Quarantine)}
		for field, decl := range f.Fields {
			form.Fields[field] = canonicalField{decl.Type, decl.Required}
		}
		s.Forms[name] = form
	}
	for _, b := range c.set.Bands {
		s.Bands = append(s.Bands, canonicalBand(b))
	}
	for name, texts := range c.listTexts {
		// A list is a set: nothing depends on its order.
		s.Lists[name] = slices.Compact(slices.Sorted(slices.Values(texts)))
	}
	for _, r := range c.set.Rules {
		s.Rules = append(s.Rules, canonicalRule{r.Name, sourceOf(r.When), r.Points, sourceOf(r.PointsExpr), r.Each, r.HalfLife})
	}
	s.Caps = c.set.Caps
	for _, q := range c.set.Sequences {
		canonical := canonicalOf(q)
		q.Version = digest(canonical)
		s.Sequences = append(s.Sequences, canonical)
	}
	c.set.Version = digest(s)
}

func canonicalOf(q *Sequence) canonicalSequence {
	out := canonicalSequence{
		Name: q.Name, When: sourceOf(q.When), Priority: q.Priority, Consent: q.ConsentRequired, Confirmed: q.ConsentConfirmed,
		Reenter: q.Reenter.Mode, Again: q.Reenter.After, Exit: sourceOf(q.Exit), Zone: q.Zone,
		Window: windowText(q.Window), Steps: canonicalSteps(q.Steps),
		Variants: canonicalVariants(q.Variants), Holdout: q.Holdout, Brake: q.Brake,
	}
	return out
}

func canonicalVariants(list []Variant) (out []canonicalVariant) {
	for _, v := range list {
		c := canonicalVariant{Name: v.Name, Weight: v.Weight, Steps: canonicalSteps(v.Steps)}
		if v.Step != nil {
			c.Steps = canonicalSteps([]Step{*v.Step})
		}
		out = append(out, c)
	}
	return out
}

func windowText(w *clock.Window) string {
	if w == nil {
		return ""
	}
	return w.String()
}

func canonicalSteps(steps []Step) (out []canonicalStep) {
	for _, s := range steps {
		step := canonicalStep{
			Name: s.Name, After: s.After, Cron: s.Cron.String(), Window: windowText(s.Window), Grace: s.Grace,
			When: sourceOf(s.When), Confirm: s.Confirm, Do: s.Do,
		}
		for _, a := range s.With {
			step.With = append(step.With, canonicalArgumentOf(a))
		}
		step.Variants = canonicalVariants(s.Variants)
		out = append(out, step)
	}
	return out
}

func canonicalArgumentOf(a Argument) canonicalArgument {
	arg := canonicalArgument{Name: a.Name, Literal: a.Value.literal}
	for _, p := range a.Value.parts {
		arg.Parts = append(arg.Parts, canonicalPart{p.words, sourceOf(p.program)})
	}
	for _, x := range a.Value.list {
		arg.List = append(arg.List, canonicalArgumentOf(Argument{Value: x}))
	}
	for _, f := range a.Value.fields {
		arg.Fields = append(arg.Fields, canonicalArgumentOf(f))
	}
	return arg
}

// sourceOf is an expression without the blanks around it, which block scalars add.
func sourceOf(p *scoring.Program) string {
	if p == nil {
		return ""
	}
	return strings.TrimSpace(p.Source())
}

// digest is the first 12 hexadecimal digits of a SHA-256 of the canonical form as JSON.
func digest(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // the types above always marshal: every number was checked to be finite
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])[:12]
}
