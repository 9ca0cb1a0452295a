package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/blocks23"
	"github.com/lodestonehq/lodestone/connectors/referralfactory"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/saasquatch"
	"github.com/lodestonehq/lodestone/internal/access"
	"github.com/lodestonehq/lodestone/internal/app"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/config"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/rules"
)

// kinds are the connectors that this binary has. A new one is wired in here.
var kinds = []connectors.Kind{referralrock.Kind(), blocks23.Kind(), saasquatch.Kind(), referralfactory.Kind()}

func kindOf(name string) (connectors.Kind, bool) {
	i := slices.IndexFunc(kinds, func(k connectors.Kind) bool { return k.Name == name })
	if i < 0 {
		return connectors.Kind{}, false
	}
	return kinds[i], true
}

// settings is the configuration with what this binary makes of it.
type settings struct{ *config.Config }

// load reads the configuration once. Faults in it are a wrong use of the program.
func (c *cli) load() (settings, error) {
	if c.cfg != nil {
		return settings{c.cfg}, nil
	}
	own := map[string][]config.Key{}
	for _, k := range kinds {
		own[k.Name] = []config.Key{}
		for _, s := range k.Secrets {
			own[k.Name] = append(own[k.Name], config.Key{Name: s, Secret: true, Required: true})
		}
		for _, s := range k.Keys {
			own[k.Name] = append(own[k.Name], config.Key{Name: s})
		}
		for _, s := range app.HookKinds()[k.Name].Secrets {
			own[k.Name] = append(own[k.Name], config.Key{Name: s, Secret: true})
		}
	}
	flags := map[string]string{}
	for path, v := range map[string]string{
		"data": c.flags.data, "rules": c.flags.rules, "nats.url": c.flags.natsURL, "nats.listen": c.flags.natsListen,
		"http.listen": c.flags.httpListen, "log.level": c.flags.logLevel, "log.format": c.flags.logFormat,
	} {
		if v != "" {
			flags[path] = v
		}
	}
	cfg, err := config.Load(config.LoadOptions{Path: c.flags.config, Env: os.Environ(), Flags: flags, Kinds: own})
	var faults config.Faults
	switch {
	case errors.As(err, &faults):
		return settings{}, usagef("the configuration cannot be used:\n%w", err)
	case err != nil:
		return settings{}, usageError{err}
	}
	c.cfg = cfg
	log := c.logger(settings{cfg})
	for _, w := range cfg.Warnings {
		log.Warn(w)
	}
	return settings{cfg}, nil
}

func (c *cli) logger(cfg settings) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.Log.Level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(c.err, opts))
	}
	return slog.New(slog.NewTextHandler(c.err, opts))
}

// rulesOptions say what rule files may refer to: every operation of every account, and of every kind
// under its own name, because a connector needs no settings to be written about.
func (s settings) rulesOptions() rules.Options {
	ops := map[string]lodestone.Operation{}
	add := func(account string, k connectors.Kind) {
		for _, op := range k.RuleOperations() {
			op.Name = account + "." + op.Name
			ops[op.Name] = op
		}
	}
	for _, k := range kinds {
		add(k.Name, k)
	}
	if s.Config != nil {
		for _, a := range s.Connectors {
			if k, ok := kindOf(a.Kind); ok {
				add(a.Name, k)
			}
		}
	}
	opts := rules.Options{Operations: ops, Link: exampleLink("https://forms.example.com")}
	if s.Config != nil && s.HTTP.PublicURL != "" {
		opts.Link = exampleLink(s.HTTP.PublicURL)
	} else if s.Config != nil && (s.File != "" || len(s.Connectors) > 0) { // the settings are here, and nothing will set it
		opts.Link, opts.NoLinks = nil, true
	}
	return opts
}

// exampleLink makes links as they look. Those that work are made by the key of a data directory.
func exampleLink(base string) func(string, lodestone.Email, time.Time) string {
	return func(name string, _ lodestone.Email, _ time.Time) string {
		return strings.TrimSuffix(base, "/") + "/" + name + "/…"
	}
}

// configured are the accounts with settings; nil when no configuration is in reach that could hold
// any, as on a machine that only checks rule files.
func (c *cli) configured() []string {
	if c.cfg == nil || c.cfg.File == "" && len(c.cfg.Connectors) == 0 {
		return nil
	}
	names := []string{}
	for _, a := range c.cfg.Connectors {
		names = append(names, a.Name)
	}
	return names
}

// rulesDir is the directory to read rule files from: the argument, else the configured one.
func (c *cli) rulesDir(a []string) (string, rules.Options, error) {
	cfg, err := c.load()
	if err != nil {
		return "", rules.Options{}, err
	}
	dir := cfg.Rules
	if len(a) > 0 {
		dir = a[0]
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", rules.Options{}, fmt.Errorf("there is no directory of rule files at %s; name one as an argument or with --rules", dir)
	}
	return dir, cfg.rulesOptions(), nil
}

// broker is where the broker is to be found or made.
func (s settings) broker() broker.Options {
	return broker.Options{
		URL: s.NATS.URL, Listen: s.NATS.Listen, Websocket: s.NATS.Websocket, Origins: s.HTTP.Origins,
		FormKeys: filepath.Join(s.Data, broker.FormKeysName), Credentials: s.NATS.Credentials, Monitor: s.NATS.Monitor,
		SystemCredentials: s.NATS.SystemCredentials, AcceptUnsynced: s.NATS.AcceptUnsynced,
		MaxStore: s.NATS.MaxStore, MaxBytes: s.NATS.MaxBytes, Replicas: s.NATS.Replicas,
	}
}

// worker is what `run` opens.
func (s settings) worker(c *cli) (app.Options, error) {
	hookSecrets, err := s.hookSecrets()
	if err != nil {
		return app.Options{}, err
	}
	var formSecrets map[string]connectors.Secret
	if s.HTTP.FormSecrets != "" {
		if formSecrets, err = gateway.ReadFormSecrets(s.HTTP.FormSecrets); err != nil {
			return app.Options{}, err
		}
	}
	return app.Options{
		HookSecrets: hookSecrets, FormSecrets: formSecrets,
		Data: s.Data, Broker: s.broker(), HTTPListen: s.HTTP.Listen, Origins: s.HTTP.Origins, PublicURL: s.HTTP.PublicURL, MX: s.HTTP.MX, Log: c.logger(s),
		TLSCert: s.HTTP.TLSCert, TLSKey: s.HTTP.TLSKey, AcceptPlain: s.HTTP.AcceptPlain,
		Proxies:      access.Proxies{Trusted: s.HTTP.TrustedProxies, Header: s.HTTP.Forwarded},
		Retention:    app.Retention(s.Retention),
		Rules:        func() ([]rules.File, error) { return rules.ReadDir(s.Rules) },
		RulesOptions: s.rulesOptions(), WatchRules: s.Rules,
		Accounts: func(used []string, reg prometheus.Registerer, log *slog.Logger) (map[string]*connectors.Account, error) {
			return s.accounts(used, reg, log, connectors.WithTracer(c.tracer), s.connectorState())
		},
	}, nil
}

// connectorState is where connectors keep what must outlive the process.
func (s settings) connectorState() connectors.Option {
	return connectors.WithState(filepath.Join(s.Data, "connectors"))
}

// accounts opens the connectors that are configured. One that the rules use and whose settings are
// incomplete stops the start by naming what is missing; one that no rule uses needs no settings.
func (s settings) accounts(used []string, reg prometheus.Registerer, log *slog.Logger, more ...connectors.Option) (map[string]*connectors.Account, error) {
	accounts := map[string]*connectors.Account{}
	configured := slices.Clone(s.Connectors)
	for _, name := range used {
		if !slices.ContainsFunc(configured, func(a config.Connector) bool { return a.Name == name }) {
			configured = append(configured, config.Connector{Name: name, Kind: name})
		}
	}
	var faults []error
	for _, a := range configured {
		opened, err := open(a, reg, log, more...)
		switch {
		case err == nil:
			accounts[a.Name] = opened
		case slices.Contains(used, a.Name):
			faults = append(faults, err)
		default:
			log.Warn("a connector that no rule uses is left out, because its settings are incomplete", "connector", a.Name, "error", err)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("the rules use a connector whose settings are incomplete:\n%w", err)
	}
	return accounts, nil
}

func open(a config.Connector, reg prometheus.Registerer, log *slog.Logger, more ...connectors.Option) (*connectors.Account, error) {
	kind, ok := kindOf(a.Kind)
	if !ok {
		return nil, fmt.Errorf("connectors.%s: there is no connector %q", a.Name, a.Kind)
	}
	secrets, err := a.Resolve()
	if err != nil {
		return nil, err
	}
	return connectors.Open(kind, accountSettings(a, secrets), append(more, connectors.WithRegisterer(reg), connectors.WithLogger(log))...)
}

func accountSettings(a config.Connector, secrets map[string]string) connectors.Settings {
	st := connectors.Settings{
		Name: a.Name, BaseURL: a.BaseURL, Rate: a.Rate, Concurrency: a.Concurrency, Timeout: a.Timeout, Attempts: a.Attempts,
		Settle: a.Settle, Suppression: a.Suppression, OnUnknown: a.OnUnknown, Insecure: a.Insecure,
		Secrets: map[string]connectors.Secret{}, Extra: a.Settings,
	}
	for k, v := range secrets {
		if !slices.Contains(app.HookKinds()[a.Kind].Secrets, k) { // the gateway's, not the connector's
			st.Secrets[k] = connectors.Secret(v)
		}
	}
	return st
}

// hookSecrets are the secrets by which webhooks are verified, by account and setting. One that is
// configured and cannot be had is an error; one that is not configured is left out.
func (s settings) hookSecrets() (map[string]map[string]connectors.Secret, error) {
	all := map[string]map[string]connectors.Secret{}
	var faults []error
	for _, a := range s.Connectors {
		all[a.Name] = map[string]connectors.Secret{}
		for _, key := range app.HookKinds()[a.Kind].Secrets {
			secret, ok := a.Secrets[key]
			if !ok {
				continue
			}
			text, err := secret.Resolve()
			faults = append(faults, err)
			all[a.Name][key] = connectors.Secret(text)
		}
	}
	return all, errors.Join(faults...)
}
