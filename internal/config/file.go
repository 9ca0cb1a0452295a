package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// file applies the configuration file.
func (l *loader) file(name string, data []byte) {
	r := fileReader{l, name}
	switch {
	case len(data) > MaxFile:
		r.fault(r.at(nil), "the file has more than %d bytes", MaxFile)
	case !utf8.Valid(data):
		r.fault(r.at(nil), "the file is not UTF-8")
	default:
		if root := r.parse(data); root != nil {
			r.section(root, "", l.config.settings())
		}
	}
}

// fileReader applies a file's nodes. It goes only as deep as the configuration has levels, so aliases
// that lead in a circle or multiply cost nothing.
type fileReader struct {
	*loader
	name string
}

// at is where a node stands, nil for the beginning of the file.
func (r fileReader) at(n *yaml.Node) place {
	if n == nil {
		return place{file: r.name, line: 1, column: 1}
	}
	return place{file: r.name, line: max(1, n.Line), column: max(1, n.Column)}
}

// parse reads the one document of the file; nil when it is empty or faulty.
func (r fileReader) parse(data []byte) *yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		r.fault(r.at(nil), "this is not YAML: %v", err)
		return nil
	}
	var doc, second yaml.Node
	err = loader.Load(&doc)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if err = loader.Load(&second); err == nil {
			r.fault(r.at(&second), "the file holds a second document; one is read")
			return nil
		}
	}
	if !errors.Is(err, io.EOF) {
		at, message := r.at(nil), err.Error()
		var fault *yaml.LoadError
		if errors.As(err, &fault) {
			at.line, at.column = max(1, fault.Mark.Line), max(1, fault.Mark.Column)
			message = fault.Message
		}
		r.fault(at, "this is not YAML: %s", message)
		return nil
	}
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return nil
	}
	return doc.Content[0]
}

// target is the node that an alias stands for, else the node.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// isNull reports whether a key has no value: it is as if the key were not there.
func isNull(n *yaml.Node) bool {
	n = target(n)
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// pair is a key and its value.
type pair struct {
	key   *yaml.Node
	value *yaml.Node // aliases resolved
}

// pairs lists a mapping's pairs that have a value. Keys that are no text or are there twice are
// faults; what says what the mapping is.
func (r fileReader) pairs(n *yaml.Node, what string) []pair {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		r.fault(r.at(n), "%s: want keys and values", what)
		return nil
	}
	var out []pair
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, v := target(n.Content[i]), target(n.Content[i+1])
		switch {
		case key.Kind != yaml.ScalarNode:
			r.fault(r.at(n.Content[i]), "%s: a key is a text", what)
		case key.Value == "<<":
			r.fault(r.at(n.Content[i]), "%s: merging with << is not understood; write the keys out", what)
		case seen[key.Value]:
			r.fault(r.at(n.Content[i]), "the key %s is there twice", quote(key.Value))
		default:
			seen[key.Value] = true
			if !isNull(v) {
				at := *key
				at.Line, at.Column = n.Content[i].Line, n.Content[i].Column
				out = append(out, pair{&at, v})
			}
		}
	}
	return out
}

// section applies a mapping whose keys begin with the path prefix.
func (r fileReader) section(n *yaml.Node, prefix string, settings []setting) {
	what := strings.TrimSuffix(prefix, ".")
	if what == "" {
		what = "the configuration"
	}
	for _, p := range r.pairs(n, what) {
		path := prefix + p.key.Value
		if i := slices.IndexFunc(settings, func(s setting) bool { return s.path == path }); i >= 0 {
			r.setting(settings[i], p.value)
			continue
		}
		switch inner := path + "."; {
		case slices.ContainsFunc(settings, func(s setting) bool { return strings.HasPrefix(s.path, inner) }):
			r.section(p.value, inner, settings)
		case path == "connectors":
			r.connectors(p.value)
		default:
			r.fault(r.at(p.key), "unknown key %s%s", quote(p.key.Value), suggest(p.key.Value, level1(prefix, settings)))
		}
	}
}

// level1 lists the keys that may stand directly behind a prefix.
func level1(prefix string, settings []setting) []string {
	var out []string
	for _, s := range settings {
		if rest, ok := strings.CutPrefix(s.path, prefix); ok {
			key, _, _ := strings.Cut(rest, ".")
			out = append(out, key)
		}
	}
	if prefix == "" {
		out = append(out, "connectors")
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// setting applies one key.
func (r fileReader) setting(s setting, n *yaml.Node) {
	if s.form == formFile {
		ref, ok := r.reference(n, s.path)
		if ok && ref.file == "" {
			r.fault(r.at(n), "%s: want {file: PATH}", s.path)
		} else if ok {
			r.apply(s, value{text: ref.file, dir: r.base, at: r.at(n)})
		}
		return
	}
	v, ok := r.value(n, s.path)
	if !ok {
		return
	}
	if s.form == formList && !v.isList {
		v.list, v.isList = []string{v.text}, true
	}
	r.apply(s, v)
}

// value reads a scalar or a list of scalars.
func (r fileReader) value(n *yaml.Node, path string) (value, bool) {
	v := value{inFile: true, dir: r.base, at: r.at(n)}
	switch n.Kind {
	case yaml.ScalarNode:
		v.text = n.Value
		return v, true
	case yaml.SequenceNode:
		v.isList, v.list = true, make([]string, 0, len(n.Content))
		for _, item := range n.Content {
			item = target(item)
			if item.Kind != yaml.ScalarNode {
				r.fault(r.at(item), "%s: want a list of plain values", path)
				return v, false
			}
			v.list = append(v.list, item.Value)
		}
		return v, true
	}
	r.fault(v.at, "%s: want a plain value, not keys and values", path)
	return v, false
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// reference reads {env: NAME} or {file: PATH}.
func (r fileReader) reference(n *yaml.Node, path string) (Secret, bool) {
	if n.Kind != yaml.MappingNode {
		r.fault(r.at(n), "%s: %v", path, errLiteral)
		return Secret{}, false
	}
	ps := r.pairs(n, path)
	if len(ps) != 1 || ps[0].value.Kind != yaml.ScalarNode || ps[0].key.Value != "env" && ps[0].key.Value != "file" {
		r.fault(r.at(n), "%s: want either {env: NAME} or {file: PATH}", path)
		return Secret{}, false
	}
	text := ps[0].value.Value
	if ps[0].key.Value == "file" {
		if text == "" {
			r.fault(r.at(ps[0].value), "%s: the path is empty", path)
			return Secret{}, false
		}
		return Secret{file: within(r.base, text)}, true
	}
	if !variableName.MatchString(text) {
		// Not repeated: it may be the secret itself.
		r.fault(r.at(ps[0].value), "%s: what stands behind env is not the name of a variable", path)
		return Secret{}, false
	}
	return Secret{env: text, value: r.env.use(text)}, true
}

var accountName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// connectors applies the accounts.
func (r fileReader) connectors(n *yaml.Node) {
	for _, p := range r.pairs(n, "connectors") {
		name := p.key.Value
		if !accountName.MatchString(name) {
			r.fault(r.at(p.key), "connectors: %s cannot be the name of an account; use small letters, digits, - and _", quote(name))
			continue
		}
		if other := r.sameVariable(name); other != "" {
			r.fault(r.at(p.key), "connectors: %s and %s would share their variables; rename one", other, name)
			continue
		}
		ps := r.pairs(p.value, "connectors."+name)
		kind, at := name, r.at(p.key)
		for _, k := range ps {
			if k.key.Value == "kind" {
				kind, at = k.value.Value, r.at(k.value)
			}
		}
		if a := r.account(name, kind, at); a != nil {
			r.accountKeys(a, ps)
		}
	}
}

// sameVariable returns the account whose variables have the same names, "" when there is none.
func (r fileReader) sameVariable(name string) string {
	for _, a := range r.accounts {
		if variable(a.Name) == variable(name) {
			return a.Name
		}
	}
	return ""
}

func (r fileReader) accountKeys(a *account, ps []pair) {
	common := a.Connector.settings()
	for _, p := range ps {
		key := p.key.Value
		i := slices.IndexFunc(common, func(s setting) bool { return s.path == key })
		own, isOwn := a.key(key)
		switch {
		case key == "kind":
		case i >= 0:
			if v, ok := r.value(p.value, a.path(key)); ok {
				r.applyTo(a, common[i], v)
			}
		case isOwn && (own.Secret || p.value.Kind == yaml.MappingNode):
			if ref, ok := r.reference(p.value, a.path(key)); ok {
				if err := a.refer(own, ref); err != nil {
					r.fault(r.at(p.value), "%s: %v", a.path(key), err)
				}
			}
		case isOwn:
			if v, ok := r.value(p.value, a.path(key)); ok {
				if err := a.own(own, v); err != nil {
					r.fault(v.at, "%s: %v", a.path(key), err)
				}
			}
		default:
			r.fault(r.at(p.key), "unknown key %s%s", quote(key), suggest(key, a.names()))
		}
	}
}
