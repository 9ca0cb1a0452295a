package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/lodestonehq/lodestone/scoring"
)

const prefix = "LODESTONE_"

// environment is the variables of the process; it remembers which ones meant something.
type environment struct {
	vars map[string]string
	used map[string]bool
}

func newEnvironment(list []string) *environment {
	e := &environment{vars: map[string]string{}, used: map[string]bool{}}
	for _, kv := range list {
		if name, text, ok := strings.Cut(kv, "="); ok {
			e.vars[name] = text
		}
	}
	return e
}

// use returns a variable, empty when it is not set.
func (e *environment) use(name string) string {
	e.used[name] = true
	return e.vars[name]
}

// ours lists the variables of ours that are set and that nothing used so far, in order.
func (e *environment) ours() []string {
	var names []string
	for name, text := range e.vars {
		if strings.HasPrefix(name, prefix) && text != "" && !e.used[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

var toVariable = strings.NewReplacer(".", "_", "-", "_")

// variable is the name of the variable for a path.
func variable(path ...string) string {
	return prefix + strings.ToUpper(toVariable.Replace(strings.Join(path, "_")))
}

// environment applies the variables.
func (l *loader) environment() {
	settings := l.config.settings()
	for _, s := range settings {
		name := variable(s.path)
		names := []string{name}
		if s.form == formFile {
			names = append(names, name+"_FILE")
		}
		for _, name := range names {
			if text := l.env.use(name); text != "" {
				l.apply(s, value{text: text, dir: l.base, at: place{source: name}})
			}
		}
	}
	l.accountsFromEnv()
	for _, name := range l.env.ours() {
		l.unknownVariable(name, settings)
	}
}

// accountsFromEnv applies the variables of connectors. An account that the file does not have comes
// into being when its name is that of a connector, or when a variable says its kind.
func (l *loader) accountsFromEnv() {
	head := variable("connectors") + "_"
	kinds := map[string]string{} // by account, for those that a variable may bring into being
	for kind := range l.kinds {
		kinds[kind] = kind
	}
	for _, name := range l.env.ours() {
		middle, ok := strings.CutSuffix(strings.TrimPrefix(name, head), "_KIND")
		if !ok || !strings.HasPrefix(name, head) || middle == "" {
			continue
		}
		account := l.accountNamed(middle, kinds)
		if a := l.known(account); a != nil {
			if kind := l.env.use(name); kind != a.Kind {
				l.fault(place{source: name}, "the file says that %s is of kind %s; say it in one place", a.path("kind"), a.Kind)
			}
			continue
		}
		kinds[account] = l.env.use(name)
		l.account(account, kinds[account], place{source: name})
	}
	candidates := slices.Collect(maps.Keys(kinds))
	for _, a := range l.accounts {
		candidates = append(candidates, a.Name)
	}
	// Longer names first: of accounts rock and rock_two the variable ROCK_TWO_RATE is the second's.
	slices.SortFunc(candidates, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	for _, account := range slices.Compact(candidates) {
		for _, name := range l.env.ours() {
			if rest, ok := strings.CutPrefix(name, variable("connectors", account)+"_"); ok {
				l.accountVariable(account, kinds[account], name, rest)
			}
		}
	}
}

// accountNamed is the account that a part of a variable's name means: one there is, else the part
// itself in lower case.
func (l *loader) accountNamed(part string, kinds map[string]string) string {
	for _, a := range l.accounts {
		if variable(a.Name) == prefix+part {
			return a.Name
		}
	}
	for kind := range kinds {
		if variable(kind) == prefix+part {
			return kind
		}
	}
	return strings.ToLower(part)
}

// accountVariable applies one variable of an account; rest is its name behind the account's. When it
// is no key of that account, the variable is left for somebody else.
func (l *loader) accountVariable(name, kind, variableName, rest string) {
	at := place{source: variableName}
	keys, ok := l.kinds[kind]
	if a := l.known(name); a != nil {
		keys = a.keys
	} else if !ok {
		return
	}
	is := func(key string) bool { return rest == strings.ToUpper(toVariable.Replace(key)) }
	for _, s := range new(Connector).settings() {
		if is(s.path) {
			a := l.account(name, kind, at)
			own := a.Connector.settings()
			i := slices.IndexFunc(own, func(o setting) bool { return o.path == s.path })
			l.applyTo(a, own[i], value{text: l.env.use(variableName), dir: l.base, at: at})
			return
		}
	}
	for _, k := range keys {
		var err error
		switch {
		case is(k.Name):
			err = l.account(name, kind, at).own(k, value{text: l.env.use(variableName), at: at})
		case is(k.Name + "_env"):
			from := l.env.use(variableName)
			err = l.account(name, kind, at).refer(k, Secret{env: from, value: l.env.use(from)})
		case is(k.Name + "_file"):
			err = l.account(name, kind, at).refer(k, Secret{file: within(l.base, l.env.use(variableName))})
		default:
			continue
		}
		if err != nil {
			l.fault(at, "%v", err)
		}
		return
	}
}

// applyTo sets one of the keys that every account has.
func (l *loader) applyTo(a *account, s setting, v value) {
	if err := s.set(v); err != nil {
		l.fault(v.at, "%s: %v", a.path(s.path), err)
	}
}

// link is what container platforms name after a service that is called lodestone or begins so.
var link = regexp.MustCompile(`^LODESTONE_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)$`)

// unknownVariable decides what a variable that means nothing is: a fault where it was surely meant
// for us, else a warning.
func (l *loader) unknownVariable(name string, settings []setting) {
	if link.MatchString(name) {
		return
	}
	known := []string{"LODESTONE_CONFIG"}
	sections := map[string]bool{"CONNECTORS": true}
	for _, s := range settings {
		known = append(known, variable(s.path))
		if section, _, ok := strings.Cut(s.path, "."); ok {
			sections[strings.ToUpper(section)] = true
		}
	}
	if strings.HasPrefix(name, variable("connectors")+"_") {
		for _, a := range l.accounts {
			known = append(known, l.accountVariables(a)...)
		}
		for kind, keys := range l.kinds {
			if l.known(kind) == nil {
				known = append(known, l.accountVariables(&account{Connector: Connector{Name: kind}, keys: keys})...)
			}
		}
	}
	at := place{source: name}
	closest := scoring.Closest(name, known)
	section, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "_")
	switch {
	case closest != "":
		l.fault(at, "this variable means nothing; did you mean %s?", closest)
	case sections[section]:
		l.fault(at, "this variable means nothing; see `lodestone schema config` for the keys there are")
	default:
		l.config.Warnings = append(l.config.Warnings, "the variable "+name+" means nothing to Lodestone")
	}
}

func (l *loader) accountVariables(a *account) []string {
	var out []string
	for _, key := range a.names() {
		out = append(out, variable("connectors", a.Name, key))
	}
	return out
}
