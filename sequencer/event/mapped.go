package event

import (
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
)

// mapped finds the three parts in a payload that another tool made. What the map does not lead to is
// taken as our own forms have it, so that a form with a map can be posted by both: own is the
// payload's fields where that is an object.
func (d *decoder) mapped(e *envelope, form *lodestone.Form) (p payload, f *fault) {
	data, _ := e.data.tree().(map[string]any)
	own, _ := data["fields"].(map[string]any)
	find := func(target string) any {
		path, ok := form.Map[target]
		if !ok {
			return nil
		}
		v := path.Find(any(data))
		if v == nil {
			v = path.Find(any(own))
		}
		return joined(v)
	}
	around := data // where our own names are looked for
	var context map[string]any
	if own != nil {
		around = own
		c, _ := data["context"].(map[string]any)
		context = c
		if f := p.readBackfill(e.data); f != nil {
			return payload{}, f
		}
	}
	fields := make(map[string]any, len(form.Fields))
	for name := range form.Fields {
		v := find(name)
		if v == nil {
			v = around[name]
		}
		if v != nil {
			fields[name] = v
		}
	}
	p.fields = valueOf(fields)
	p.context = valueOf(d.mappedContext(context, form, find))
	d.mappedEnvelope(e, find)
	return p, nil
}

// joined makes a text of a list of scalars, as a question with several answers gives.
func joined(v any) any {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return v
	}
	texts := make([]string, 0, len(list))
	for _, e := range list {
		text, wrong := take(valueOf(e), lodestone.FieldText)
		s, ok := text.(string)
		if wrong != "" || !ok {
			return v
		}
		texts = append(texts, s)
	}
	return strings.Join(texts, ", ")
}

// mappedContext puts what the map finds over what the payload says itself; given is not changed.
func (d *decoder) mappedContext(given map[string]any, form *lodestone.Form, find func(string) any) any {
	out := deepCopy(given)
	for _, target := range lodestone.MapTargets {
		rest, ok := strings.CutPrefix(target, "context.")
		v := find(target)
		if !ok || v == nil {
			continue
		}
		at := out
		keys := strings.Split(rest, ".")
		for _, key := range keys[:len(keys)-1] {
			next, ok := at[key].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[key] = next
			}
			at = next
		}
		at[keys[len(keys)-1]] = v
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// deepCopy copies an object and the objects in it.
func deepCopy(o map[string]any) map[string]any {
	out := make(map[string]any, len(o))
	for k, v := range o {
		if inner, ok := v.(map[string]any); ok {
			v = deepCopy(inner)
		}
		out[k] = v
	}
	return out
}

// mappedEnvelope takes the id and the time from the payload, where no CloudEvent says them.
func (d *decoder) mappedEnvelope(e *envelope, find func(string) any) {
	if e.ce {
		return
	}
	if v, _ := take(valueOf(find("submission.id")), lodestone.FieldText); v != nil && v != "" { // an empty one is none
		e.id = cleanID(v.(string))
	}
	switch v := find("submission.at").(type) {
	case nil:
	case string:
		if t, ok := readTime(v); ok {
			e.at = notAfter(t, e.at)
		} else {
			d.note("submission.at is not a time as in 2026-11-20T09:00:00Z: the time of arrival was taken")
		}
	case number:
		// Seconds or milliseconds since 1970; seconds reach this many in the year 5138.
		const milliseconds = 1e11
		n, inRange := toFloat(string(v))
		if inRange && n >= milliseconds {
			n /= 1000
		}
		if !inRange || n < 0 || n >= milliseconds {
			d.note("submission.at is not a time since 1970: the time of arrival was taken")
			return
		}
		e.at = notAfter(time.UnixMilli(int64(n*1000)).UTC(), e.at)
	default:
		d.note("submission.at is %s, want a time: the time of arrival was taken", kindOf(valueOf(v)))
	}
}
