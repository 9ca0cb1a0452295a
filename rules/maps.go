package rules

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/lodestonehq/lodestone"
)

// formMap reads the map of a form: from a foreign payload to the fields. It is read after the fields.
func (c *compiler) formMap(d *document, e entry, f *Form) {
	f.Map = make(map[string]lodestone.Path)
	known := append(slices.Collect(maps.Keys(f.Fields)), lodestone.MapTargets...)
	for _, m := range c.entries(d, e.value, "email: payload.contact.email") {
		if !slices.Contains(known, m.name) {
			c.fault(d, m.key, "the form %s has no field %s%s", f.Name, m.name, suggestion(m.name, known))
			continue
		}
		n, ok := c.scalar(d, m.value, "a path", m.name+": payload.contact.email")
		if !ok {
			continue
		}
		path, err := lodestone.ParsePath(n.Value)
		var wrong *lodestone.PathError
		if errors.As(err, &wrong) {
			c.faultAt(d, d.locate(n, wrong.At), SeverityError, "%s", wrong.Message)
			continue
		}
		f.Map[m.name] = path
	}
}

// signature reads how requests for a form are signed.
func (c *compiler) signature(d *document, e entry) string {
	n, ok := c.scalar(d, e.value, "the name of a signature", "signature: standard-webhooks")
	if !ok {
		return ""
	}
	if !slices.Contains(lodestone.Signatures, n.Value) {
		c.fault(d, n, "unknown signature %s%s", n.Value, suggestion(n.Value, lodestone.Signatures))
		return ""
	}
	return n.Value
}

// mapTexts is a map as it is written, for the version.
func mapTexts(m map[string]lodestone.Path) map[string]string {
	out := make(map[string]string, len(m))
	for target, path := range m {
		out[target] = path.String()
	}
	return out
}

// targetPattern is what the keys of a map look like.
func targetPattern() string {
	var targets []string
	for _, t := range lodestone.MapTargets {
		targets = append(targets, strings.ReplaceAll(t, ".", `\.`))
	}
	return `^([A-Za-z_][A-Za-z0-9_]{0,63}|` + strings.Join(targets, "|") + `)$`
}
