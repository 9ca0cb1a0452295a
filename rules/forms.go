package rules

import (
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scoring"
)

var (
	formKeys = keys{
		known:   []string{"title", "asset", "thanks", "origins", "fields", "map", "signature", "honeypot", "quarantine", "zone"},
		meaning: map[string]string{"name": "title", "timezone": "zone", "url": "asset", "file": "asset", "download": "asset", "redirect": "thanks", "cors": "origins", "mapping": "map", "signed": "signature", "spam": "quarantine", "trap": "honeypot"},
	}
	fieldKeys = keys{
		known:   []string{"type", "required"},
		meaning: map[string]string{"kind": "type", "optional": "required", "mandatory": "required"},
	}
	listKeys = keys{
		known:   []string{"file", "add", "remove"},
		meaning: map[string]string{"path": "file", "from": "file", "plus": "add", "extra": "add", "also": "add", "minus": "remove", "except": "remove", "without": "remove"},
	}
)

// fieldPlace is a field's type and where a form first declared it.
type fieldPlace struct {
	typ  lodestone.FieldType
	form string
	pos  Pos
}

// forms reads all forms and the union of their fields.
func (c *compiler) forms() {
	c.fieldTypes = make(map[string]fieldPlace)
	for _, s := range c.sections["forms"] {
		if s.node.ShortTag() == "!!null" {
			continue
		}
		for _, e := range c.entries(s.doc, s.node, "pricing-guide: {fields: …}") {
			if !c.name(s.doc, e.key, "form", e.name) {
				continue
			}
			if before := c.set.Forms[e.name]; before != nil {
				c.duplicate(s.doc, e.key, "form", e.name, before.Pos)
				continue
			}
			if c.limit(s.doc, e.key, len(c.set.Forms)+1, MaxEntries, "forms") {
				return
			}
			c.set.Forms[e.name] = c.form(s.doc, e)
		}
	}
}

func (c *compiler) form(d *document, e entry) *Form {
	f := &Form{Pos: pos(d, e.key)}
	f.Name, f.Fields = e.name, make(map[string]lodestone.Field)
	entries, given := c.mapping(d, e.value, formKeys)
	for _, k := range entries {
		switch k.name {
		case "title":
			if n, ok := c.scalar(d, k.value, "a title", "title: Pricing guide"); ok {
				f.Title = n.Value
			}
		case "asset":
			if n, ok := c.scalar(d, k.value, "an address", "asset: https://example.com/guide.pdf"); ok {
				f.Asset = c.asset(d, n)
			}
		case "thanks":
			f.Thanks = c.thanks(d, k)
		case "origins":
			f.Origins = c.origins(d, k)
		case "signature":
			f.Signature = c.signature(d, k)
		case "fields":
			c.fields(d, k, f)
		}
	}
	f.Order = slices.Sorted(maps.Keys(f.Fields))
	for _, k := range entries {
		switch k.name {
		case "map":
			c.formMap(d, k, f)
		case "honeypot":
			c.honeypot(d, k, f)
		}
	}
	if e.value.Kind == yaml.MappingNode && !given["fields"] {
		c.fault(d, e.key, "the form %s has no fields; it needs at least the one that holds the address: fields: {email: {type: email, required: true}}", e.name)
	}
	return f
}

func (c *compiler) asset(d *document, n *yaml.Node) string {
	c.webAddress(d, n, "asset")
	return n.Value
}

func (c *compiler) webAddress(d *document, n *yaml.Node, key string) {
	u, err := url.Parse(n.Value)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		c.fault(d, n, "%s is a web address that begins with https://", key)
	}
}

// thanks reads one address or a list of them.
func (c *compiler) thanks(d *document, e entry) (list []string) {
	for _, n := range c.textNodes(d, e, "thanks: https://example.com/thanks") {
		if n, ok := c.scalar(d, n, "a web address", "thanks: https://example.com/thanks"); ok {
			// The place of the asset's link is no address of its own.
			plain := *n
			plain.Value = strings.ReplaceAll(n.Value, AssetPlace, "x")
			c.webAddress(d, &plain, "thanks")
			list = append(list, n.Value)
		}
	}
	return list
}

// AssetPlace is where the link to the asset goes in an address under `thanks`.
const AssetPlace = "{asset}"

// origins reads one origin or a list of them.
func (c *compiler) origins(d *document, e entry) (list []string) {
	for _, n := range c.textNodes(d, e, "origins: [https://example.com]") {
		n, ok := c.scalar(d, n, "an origin", "origins: [https://example.com]")
		if !ok {
			continue
		}
		u, err := url.Parse(n.Value)
		if n.Value != "*" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Scheme+"://"+u.Host != n.Value) {
			c.fault(d, n, "an origin is a scheme and a host as in https://example.com, without a path, or * for any")
			continue
		}
		list = append(list, strings.ToLower(n.Value))
	}
	return list
}

// textNodes is one text or a list with at least one.
func (c *compiler) textNodes(d *document, e entry, example string) []*yaml.Node {
	nodes := oneOrMore(e.value)
	if len(nodes) == 0 {
		c.fault(d, e.value, "%s is empty; leave it out, or write %s", e.name, example)
	}
	return nodes
}

// fields reads the fields of one form and finds the one that holds the address.
func (c *compiler) fields(d *document, e entry, f *Form) {
	var emails []entry
	faulty := false
	for _, field := range c.entries(d, e.value, "email: {type: email, required: true}") {
		if !fieldPattern.MatchString(field.name) {
			c.fault(d, field.key, "%q cannot be the name of a field: letters, digits and _ are allowed, at most 64 of them, no digit first", field.name)
			faulty = true
			continue
		}
		if _, known := c.fieldTypes[field.name]; !known && c.limit(d, field.key, len(c.fieldTypes)+1, MaxEntries, "fields in all forms together") {
			return
		}
		decl, ok := c.field(d, field)
		if ok && decl.Type == lodestone.FieldEmail {
			emails = append(emails, field)
		}
		faulty = faulty || !ok
		f.Fields[field.name] = decl
		c.unite(d, field, f.Name, decl.Type)
	}
	if e.value.Kind != yaml.MappingNode || faulty {
		return
	}
	i := slices.IndexFunc(emails, func(e entry) bool { return e.name == "email" })
	switch {
	case len(emails) == 0:
		c.fault(d, e.key, "the form %s has no field of type email, so nobody could be reached; add email: {type: email, required: true}", f.Name)
	case i >= 0:
		f.Email = "email"
	case len(emails) == 1:
		f.Email = emails[0].name
	default:
		c.fault(d, emails[1].key, "the form %s has several fields of type email and none of them is named email; name the one that holds the lead's address email, or give the others the type text", f.Name)
	}
}

// field reads one declaration. ok is false when its type is not known.
func (c *compiler) field(d *document, e entry) (decl lodestone.Field, ok bool) {
	entries, given := c.mapping(d, e.value, fieldKeys)
	for _, k := range entries {
		switch k.name {
		case "required":
			decl.Required = c.boolean(d, k.value, "required")
		case "type":
			n, scalar := c.scalar(d, k.value, "a type", "type: text")
			if !scalar {
				continue
			}
			t := lodestone.FieldType(n.Value)
			if slices.Contains(lodestone.FieldTypes, t) {
				decl.Type, ok = t, true
				continue
			}
			c.fault(d, n, "unknown type %s%s", n.Value, typeHint(n.Value))
		}
	}
	if !given["type"] && e.value.Kind == yaml.MappingNode {
		c.fault(d, e.key, "the field %s has no type; add type: %s", e.name, typeWords("or"))
	}
	return decl, ok
}

func typeWords(or string) string {
	var words []string
	for _, t := range lodestone.FieldTypes {
		words = append(words, string(t))
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " " + or + " " + words[last]
}

func typeHint(s string) string {
	meant := map[string]string{
		"string": "text", "str": "text", "varchar": "text", "date": "text", "phone": "text", "tel": "text", "url": "text", "select": "text",
		"int": "number", "integer": "number", "float": "number", "double": "number", "numeric": "number",
		"bool": "boolean", "checkbox": "boolean", "mail": "email",
	}[strings.ToLower(s)]
	if meant == "" {
		var known []string
		for _, t := range lodestone.FieldTypes {
			known = append(known, string(t))
		}
		meant = scoring.Closest(s, known)
	}
	if meant == "" {
		return "; types are " + typeWords("and")
	}
	return "; did you mean " + meant + "?"
}

// unite adds a field to the union over all forms.
func (c *compiler) unite(d *document, e entry, form string, t lodestone.FieldType) {
	at := pos(d, e.key)
	before, ok := c.fieldTypes[e.name]
	if !ok || before.typ == "" {
		c.fieldTypes[e.name] = fieldPlace{t, form, at}
		return
	}
	if t == "" || t == before.typ {
		return
	}
	c.fault(d, e.key, "%s is of type %s here and of type %s in the form %s, at %s:%d:%d; give both the same type, or one of them another name",
		e.name, t, before.typ, before.form, before.pos.File, before.pos.Line, before.pos.Column)
}

// formExpressions compiles the expressions of a section's forms, once there is a schema. All of them run
// before there is a score.
func (c *compiler) formExpressions(s section) {
	for _, p := range pairsOf(s.node) {
		form := c.set.Forms[target(p.key).Value]
		if form == nil || form.Pos != pos(s.doc, p.key) {
			continue
		}
		if n := valueOf(p.value, "zone"); n != nil {
			if n, ok := c.scalar(s.doc, n, "an expression", "zone: context.timezone ?? zone_of_country(fields.country)"); ok {
				form.Zone = c.expression(s.doc, n, scoring.Text, true)
			}
		}
		if n := valueOf(p.value, "quarantine"); n != nil {
			if n, ok := c.scalar(s.doc, n, "a condition", "quarantine: risk.score > 80"); ok {
				form.Quarantine = c.expression(s.doc, n, scoring.Boolean, true)
			}
		}
	}
}

// honeypot reads the name of a field that is none of the form's.
func (c *compiler) honeypot(d *document, e entry, f *Form) {
	n, ok := c.scalar(d, e.value, "the name of a field", "honeypot: website")
	if !ok {
		return
	}
	if _, declared := f.Fields[n.Value]; declared || !fieldPattern.MatchString(n.Value) {
		c.fault(d, n, "honeypot is the name of a field that the form does not declare, as in website: people do not see it, and what fills it in is no person")
		return
	}
	f.Honeypot = n.Value
}

// lists reads all lists, written out or from files.
func (c *compiler) lists() {
	c.listTexts, c.listPlaces, c.listFiles = make(map[string][]string), make(map[string]Pos), make(map[string][]string)
	for _, s := range c.sections["lists"] {
		if s.node.ShortTag() == "!!null" {
			continue
		}
		for _, e := range c.entries(s.doc, s.node, "competitors: [rival.example]") {
			if !c.name(s.doc, e.key, "list", e.name) {
				continue
			}
			if before, taken := c.listPlaces[e.name]; taken {
				c.duplicate(s.doc, e.key, "list", e.name, before)
				continue
			}
			if c.limit(s.doc, e.key, len(c.listPlaces)+1, MaxEntries, "lists") {
				return
			}
			c.listPlaces[e.name] = pos(s.doc, e.key)
			texts := c.elements(s.doc, e)
			if slices.Contains(scoring.AddressLists, e.name) {
				texts = c.addressParts(s.doc, e, texts)
			}
			if c.texts += len(texts); c.texts > MaxTexts {
				c.fault(s.doc, e.key, "the lists up to this one hold more than %d texts together", MaxTexts)
				return
			}
			c.listTexts[e.name] = texts
		}
	}
}

func (c *compiler) elements(d *document, e entry) []string {
	if e.value.Kind == yaml.MappingNode {
		return c.listParts(d, e)
	}
	return c.writtenOut(d, e)
}

// writtenOut reads texts that stand in the rule file.
func (c *compiler) writtenOut(d *document, e entry) []string {
	texts := []string{}
	seen := make(map[string]bool)
	for _, n := range c.list(d, e.value, "texts", e.name+": [rival.example, other.example]") {
		if n, ok := c.scalar(d, n, "a text", "- rival.example"); ok {
			if seen[n.Value] {
				c.warn(d, n, "%s stands twice in the list %s", n.Value, e.name)
				continue
			}
			seen[n.Value] = true
			texts = append(texts, n.Value)
		}
	}
	return texts
}

// readListFile reads one text a line; # begins a comment. It returns nil for what it cannot read.
func (c *compiler) readListFile(f File) []string {
	if len(f.Data) > MaxFile {
		c.report(Fault{f.Name, 1, 1, SeverityError, "this file is larger than 1 MiB; spread it over several lists"})
		return nil
	}
	if line, column, bad := notUTF8(f.Data); bad {
		c.report(Fault{f.Name, line, column, SeverityError, "this file is not UTF-8; save it as UTF-8"})
		return nil
	}
	texts := []string{}
	seen := make(map[string]bool)
	for line := range strings.Lines(strings.TrimPrefix(string(f.Data), "\ufeff")) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" && !seen[line] {
			seen[line] = true
			texts = append(texts, line)
		}
	}
	return texts
}

// listParts reads a list that is not written out: one in a file, or a built-in one with changes.
func (c *compiler) listParts(d *document, e entry) []string {
	entries, given := c.mapping(d, e.value, listKeys)
	if len(e.value.Content) == 0 {
		c.fault(d, e.value, "a list is written [a, b] or {file: %s.txt}", e.name)
	}
	builtIn := slices.Contains(scoring.AddressLists, e.name)
	texts := []string{}
	if builtIn && !given["file"] {
		texts = scoring.BuiltInList(e.name)
	}
	var add, remove []string
	for _, k := range entries {
		switch {
		case k.name == "file":
			texts = c.listFile(d, e.name, k)
		case !builtIn:
			c.fault(d, k.key, "%s changes one of the built-in lists %s; write the texts of %s out, as in %s: [a, b]", k.name, strings.Join(scoring.AddressLists, ", "), e.name, e.name)
		case k.name == "add":
			add = c.addressParts(d, e, c.writtenOut(d, k))
		case k.name == "remove":
			remove = c.addressParts(d, e, c.writtenOut(d, k))
			for _, r := range remove {
				if !slices.Contains(texts, r) && !given["file"] {
					c.warn(d, k.key, "%s is not in the built-in list %s, so there is nothing to remove", r, e.name)
				}
			}
		}
	}
	texts = append(slices.Clone(texts), add...)
	return slices.DeleteFunc(texts, func(t string) bool { return slices.Contains(remove, t) })
}

// listFile finds the texts of a list that stands in a file.
func (c *compiler) listFile(d *document, list string, k entry) []string {
	n, ok := c.scalar(d, k.value, "the name of a file", "{file: "+list+".txt}")
	if !ok {
		return []string{}
	}
	name, ok := listPath(d.file, n.Value)
	if !ok {
		c.fault(d, n, "%s is not a file in this directory; list files stand beside the rule files", n.Value)
		return []string{}
	}
	i := slices.IndexFunc(c.files, func(f File) bool { return f.Name == name })
	if i < 0 {
		c.fault(d, n, "there is no file %s beside this rule file; create it with one text a line", n.Value)
		return []string{}
	}
	texts, ok := c.listFiles[name]
	if !ok {
		texts = c.readListFile(c.files[i])
		c.listFiles[name] = texts
	}
	if texts != nil && len(texts) == 0 {
		c.warn(d, n, "the file %s holds no text, so nothing is in the list %s", path.Base(name), list)
	}
	return texts
}

// addressParts makes the entries of a built-in list's namesake what addresses are compared with.
func (c *compiler) addressParts(d *document, e entry, texts []string) []string {
	out := make([]string, 0, len(texts))
	seen := make(map[string]bool)
	for _, t := range texts {
		normal, ok := scoring.NormalAddressPart(e.name, t)
		switch {
		case !ok && e.name == "role":
			c.fault(d, e.value, "%s in the list role is no first part of an address; write what stands before the @, as in info", t)
		case !ok:
			c.fault(d, e.value, "%s in the list %s is no domain; write what stands behind the @, as in mail.example", t, e.name)
		case !seen[normal]:
			seen[normal] = true
			out = append(out, normal)
		}
	}
	return out
}

// unusedLists warns of lists that no expression names.
func (c *compiler) unusedLists() {
	if c.unread || len(c.faults) > 0 {
		return // an expression that is not compiled may name it
	}
	used := make(map[string]bool)
	for _, p := range c.programs {
		for _, name := range p.Names() {
			used[name] = true
		}
	}
	for name, at := range c.listPlaces {
		if !used["lists."+name] && !slices.Contains(scoring.AddressLists, name) {
			c.report(Fault{at.File, at.Line, at.Column, SeverityWarning, "no expression uses the list " + name})
		}
	}
}

// characters counts what columns count.
func characters(s string) int { return utf8.RuneCountInString(s) }
