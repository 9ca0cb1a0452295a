package scheduler

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/sequencer"
)

// maxSent bounds what a step sends, in bytes of its names and texts: it is kept with the lead until the
// outcome is known.
const maxSent = 64 << 10

// Sending is what a step sends.
type Sending struct {
	Live map[string]any // for the provider alone: whoever has a link of it acts for the lead
	Kept map[string]any // the same for the record, and to be shown: its links do not work
	// Hidden names those of Kept that are not as they are in Live, in order.
	Hidden []string
}

// Parameters evaluates what the step sends. missing names a required parameter that turned out to be
// absent, or says which one failed.
func (p *Passage) Parameters(op lodestone.Operation) (s Sending, missing string) {
	if s.Live, missing = p.parameters(op, true); missing != "" {
		return Sending{}, missing
	}
	s.Kept = s.Live
	if step := p.step(); !step.Uses("links.confirm") && !step.Uses("links.unsubscribe") {
		return s, ""
	}
	s.Kept, missing = p.parameters(op, false)
	// Not only what still has the mark of a link: an expression may have made anything of it.
	for _, a := range p.step().With {
		if !reflect.DeepEqual(s.Live[a.Name], s.Kept[a.Name]) {
			s.Hidden = append(s.Hidden, a.Name)
		}
	}
	slices.Sort(s.Hidden)
	for _, name := range s.Hidden {
		if q, _ := op.Parameter(name); missing == "" && q.Finds {
			missing = name + " holds a link. The provider finds the act by " + name + " when its outcome was lost, and links are not kept as they are sent; leave links out of it"
		}
	}
	return s, missing
}

// parameters evaluates what the step sends, with links that work or without.
func (p *Passage) parameters(op lodestone.Operation, sending bool) (params map[string]any, missing string) {
	step := p.step()
	if op.NoStep != "" {
		return nil, "it cannot be a step: " + op.NoStep
	}
	if step.Confirm > 0 && !p.set.Links && step.Uses("links.confirm") {
		return nil, "it asks for a confirmation and there is no link to confirm with: http.public_url is not set in the configuration"
	}
	params = make(map[string]any, len(step.With))
	ev := p.set.Schema.Evaluator()
	defer ev.Release()
	facts := sequencer.EnrollmentFacts(p.lead, p.e, p.set, p.now)
	facts.Sending = sending
	ev.Bind(facts)
	sent := 0
	for _, a := range step.With {
		v, err := a.Value.Eval(ev)
		if err != nil {
			return nil, fmt.Sprintf("%s failed: %v", a.Name, err)
		}
		if v == nil {
			continue
		}
		if sent += size(v); sent > maxSent {
			return nil, fmt.Sprintf("%s makes the request longer than %d bytes", a.Name, maxSent)
		}
		params[a.Name] = v
	}
	for _, q := range op.Parameters {
		if q.Name != "email" {
			continue
		}
		if v, given := params[q.Name]; given && !p.isLead(v) {
			// The gate cleared the lead's address and no other.
			return nil, "email is another address than the lead's own"
		}
	}
	if missing := p.complete(params, op.Parameters, "", op.Effect); missing != "" {
		return nil, missing
	}
	return params, ""
}

// complete says what is required of fields and absent in given, however deep. An address that is required
// within is the lead's unless given; at the top the connector sees to it.
func (p *Passage) complete(given map[string]any, fields []lodestone.Parameter, path string, effect lodestone.Effect) string {
	for _, q := range fields {
		v, ok := given[q.Name]
		if q.Own() && path == "" {
			continue
		}
		if q.Own() && q.Required && !ok && effect != lodestone.EffectRead {
			given[q.Name] = string(p.lead.Email)
			continue
		}
		if text, isText := v.(string); q.Required && (!ok || isText && text == "") {
			return path + q.Name + " is required and absent"
		}
		if missing := p.within(v, q, path+q.Name, effect); missing != "" {
			return missing
		}
	}
	return ""
}

func (p *Passage) within(v any, q lodestone.Parameter, path string, effect lodestone.Effect) string {
	switch v := v.(type) {
	case map[string]any:
		return p.complete(v, q.Fields, path+".", effect)
	case []any:
		if len(v) < q.Least {
			return fmt.Sprintf("%s takes at least %d, and %d are left of it", path, q.Least, len(v))
		}
		for i := range v {
			if q.Items == nil {
				break
			}
			if missing := p.within(v[i], *q.Items, path+"["+strconv.Itoa(i)+"]", effect); missing != "" {
				return missing
			}
		}
	}
	return ""
}

// Named lets the provider's word on the ids in what is sent decide: evidence says whose they are, err why the
// act must not be sent or why there was no answer. now is when it came.
func (p *Passage) Named(evidence string, what Sending, err error, now time.Time, pace Pace) {
	p.now = now
	var f *connectors.Fault
	switch {
	case errors.As(err, &f) && f.Class == connectors.Refused:
		p.object(lodestone.CheckProvider, f.Detail, objection{to: lodestone.TouchpointFailed, reason: lodestone.ReasonBadParameters})
	case err != nil:
		p.unusable(err, pace)
	case evidence != "":
		p.named, p.cleared = evidence, &what
	}
}

// size is how many bytes the names and texts of a value take; other values count as eight.
func size(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case []any:
		n := 0
		for _, x := range v {
			n += size(x)
		}
		return n
	case map[string]any:
		n := 0
		for name, x := range v {
			n += len(name) + size(x)
		}
		return n
	}
	return 8
}

// isLead reports whether v is the lead's address.
func (p *Passage) isLead(v any) bool {
	text, _ := v.(string)
	e, err := lodestone.ParseEmail(text)
	return err == nil && e == p.lead.Email
}
