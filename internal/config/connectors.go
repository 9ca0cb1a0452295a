package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Key is one setting that a kind of connector has of its own.
type Key struct {
	Name     string
	Secret   bool // stands in the file only as {env: NAME} or {file: PATH}
	Required bool // needed as soon as the connector is used
}

// Connector is one configured account at a provider. A zero value means the connector's default.
type Connector struct {
	Name        string // the key under connectors
	Kind        string // which connector it is
	BaseURL     string
	Rate        float64 // requests per second
	Concurrency int
	Timeout     time.Duration
	Attempts    int
	Settle      time.Duration
	Suppression string // provider or local-only
	OnUnknown   string // lookup or hold
	Insecure    bool
	Settings    map[string]string // its own settings that are no secrets
	Secrets     map[string]Secret
	required    []string
}

// Resolve returns the secrets by key. The error names everything that is missing, secrets or not, and
// where it can be said; it is meant for the moment when the connector is first needed.
func (c Connector) Resolve() (map[string]string, error) {
	out := make(map[string]string, len(c.Secrets))
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(c.Secrets)) {
		text, err := c.Secrets[key].Resolve()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[key] = text
	}
	for _, key := range c.required {
		_, secret := c.Secrets[key]
		if !secret && c.Settings[key] == "" {
			errs = append(errs, fmt.Errorf("connectors.%s.%s is missing; say it there or in the variable %s", c.Name, key, variable("connectors", c.Name, key)))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return out, nil
}

// account is a connector while it is being read.
type account struct {
	Connector
	keys []Key // of its kind
}

// account returns the account of a name, made if it is new; nil when there is no such kind.
func (l *loader) account(name, kind string, at place) *account {
	if a := l.known(name); a != nil {
		return a
	}
	keys, ok := l.kinds[kind]
	if !ok {
		known := slices.Sorted(maps.Keys(l.kinds))
		if kind == name {
			l.fault(at, "there is no connector %s%s; an account of another name says which one it is with kind", name, suggest(name, known))
		} else {
			l.fault(at, "connectors.%s.kind: there is no connector %s%s", name, quote(kind), suggest(kind, known))
		}
		return nil
	}
	a := &account{Connector: Connector{Name: name, Kind: kind, Settings: map[string]string{}, Secrets: map[string]Secret{}}, keys: keys}
	for _, k := range keys {
		if k.Required {
			a.required = append(a.required, k.Name)
		}
	}
	l.accounts = append(l.accounts, a)
	return a
}

func (l *loader) known(name string) *account {
	for _, a := range l.accounts {
		if a.Name == name {
			return a
		}
	}
	return nil
}

// key returns what the account's kind says of a key of its own.
func (a *account) key(name string) (Key, bool) {
	i := slices.IndexFunc(a.keys, func(k Key) bool { return k.Name == name })
	if i < 0 {
		return Key{}, false
	}
	return a.keys[i], true
}

// settings lists the keys that every account has.
func (c *Connector) settings() []setting {
	return []setting{
		{path: "base_url", set: text(&c.BaseURL, webAddress),
			doc: "Address of the provider's API."},
		{path: "rate", form: formRate, set: rate(&c.Rate),
			doc: "Requests a second, minute or hour, as in 10/s, shared by everything that uses the account. Default 10/s"},
		{path: "concurrency", form: formInteger, set: integer(&c.Concurrency, 1, 1000),
			doc: "Requests at one time. Default 8"},
		{path: "timeout", form: formDuration, set: duration(&c.Timeout, time.Millisecond, 10*time.Minute),
			doc: "How long an answer is waited for. Default 10s"},
		{path: "attempts", form: formInteger, set: integer(&c.Attempts, 1, 1000),
			doc: "Attempts before a touchpoint fails. Default 10"},
		{path: "settle", form: formDuration, set: duration(&c.Settle, time.Millisecond, 24*time.Hour),
			doc: "How long after a call was given up a look-up's \"not there\" is believed. Default 30s"},
		{path: "suppression", words: []string{"provider", "local-only"}, set: oneOf(&c.Suppression, "provider", "local-only"),
			doc: "Who is asked whether somebody unsubscribed; local-only must be said where the provider cannot tell."},
		{path: "on_unknown", words: []string{"lookup", "hold"}, set: oneOf(&c.OnUnknown, "lookup", "hold"),
			doc: "What happens to a call whose outcome is unknown. Default lookup"},
		{path: "insecure", form: formBoolean, set: boolean(&c.Insecure),
			doc: "Allow plain http beyond this machine. Default false"},
	}
}

// names lists every key that the account can have.
func (a *account) names() []string {
	names := append(paths(a.Connector.settings()), "kind")
	for _, k := range a.keys {
		names = append(names, k.Name)
	}
	return names
}

// own sets a key of the account's own from plain text.
func (a *account) own(k Key, v value) error {
	switch {
	case v.isList:
		return errList
	case k.Secret && v.inFile:
		return errLiteral
	case k.Secret:
		a.Secrets[k.Name] = Secret{key: a.path(k.Name), env: v.at.source, value: v.text}
	default:
		a.Settings[k.Name] = v.text
	}
	return nil
}

// refer sets a key of the account's own from {env: NAME} or {file: PATH}. What is no secret is looked
// up at once.
func (a *account) refer(k Key, s Secret) error {
	s.key = a.path(k.Name)
	if k.Secret {
		a.Secrets[k.Name] = s
		return nil
	}
	text, err := s.Resolve()
	if err == nil {
		a.Settings[k.Name] = text
	} else if s.file != "" {
		return errors.New(strings.TrimPrefix(err.Error(), s.key+": "))
	}
	return nil // an unset variable matters only when the connector is used
}

func (a *account) path(key string) string { return "connectors." + a.Name + "." + key }
