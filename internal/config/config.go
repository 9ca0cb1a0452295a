// Package config reads the configuration: flags before the environment before lodestone.yaml before
// defaults.
//
// Every key has a variable: LODESTONE_ and its path, joined by underscores, upper-cased, dashes as
// underscores; nats.listen is LODESTONE_NATS_LISTEN, the private key of account referralrock is
// LODESTONE_CONNECTORS_REFERRALROCK_PRIVATE_KEY. An empty variable counts as not set. A variable of
// ours that means nothing is a fault when it begins like a section or is close to a key, otherwise a
// warning, because an environment is shared with others: container platforms and build scripts name
// variables after their services.
//
// All faults are reported at once, each with its place: file:line:column, the variable or the flag. A
// fault never repeats a value that could be a secret. Secrets stand in the file only as {env: NAME}
// or {file: PATH}; they are looked up when they are used, and print as <secret>.
//
// Relative paths are relative to the configuration file, those of flags and all of them without a
// file to the working directory.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/scoring"
)

const (
	// FileName is the configuration file that is read when no other is named.
	FileName = "lodestone.yaml"
	// MaxFile is the largest configuration file that is read, in bytes.
	MaxFile = 1 << 20
)

// Config is everything that can be configured. Paths are absolute.
type Config struct {
	File       string // the file that was read; empty: there was none
	Data       string // directory of the store, embedded JetStream, the socket
	Rules      string // directory of the rule files
	NATS       NATS
	HTTP       HTTP
	Log        Log
	Retention  Retention
	Connectors []Connector // by name; those that anything is configured of
	Warnings   []string    // about variables that mean nothing
}

// NATS says which server to use; see package broker for what the settings mean.
type NATS struct {
	URL               string   // empty: the server in this process
	Listen            string   // of the server in this process; "none": in-process only
	Websocket         string   // of the server in this process, for browsers; "none": nowhere
	Credentials       string   // path of a file; empty: none
	Monitor           []string // monitoring addresses of the server outside
	SystemCredentials string   // path of a credentials file; empty: none
	AcceptUnsynced    bool     // go on with a server outside that may lose acknowledged submissions
	MaxStore          int64    // bytes of all streams of the server in this process; 0: by its free disk
	MaxBytes          int64    // bytes of each stream; 0: no limit of its own
	Replicas          int      // of streams that are made anew
}

// HTTP says where forms, webhooks, health and metrics are.
type HTTP struct {
	Listen    string
	Origins   []string // pages whose scripts may post forms; "*": any
	MX        bool     // ask whether the domains of addresses take mail
	PublicURL string   // where browsers reach Listen; empty: where their request went

	FormSecrets string // path of a file; empty: no form is signed

	TLSCert, TLSKey string         // paths of files; empty: plain HTTP
	TrustedProxies  []netip.Prefix // whose word about where a request came from is believed
	Forwarded       string         // the headers that they say it in: x-forwarded or forwarded
	AcceptPlain     bool           // take passwords and tokens from elsewhere over plain HTTP
}

// Log says what is logged and how.
type Log struct {
	Level  slog.Level
	Format string // text or json
}

// Retention says how long what is over is kept.
type Retention struct {
	Journal     time.Duration // what was decided and done, lead by lead
	Leads       time.Duration // leads with nothing pending, after the last thing that happened
	Attention   time.Duration // submissions and signals that could not be used
	Submissions time.Duration // in their streams, after they were applied
	Events      time.Duration // in their stream
}

// LoadOptions says what to read.
type LoadOptions struct {
	Path  string            // of the configuration file; empty: LODESTONE_CONFIG, else FileName if it is there
	Dir   string            // working directory; empty: the process's
	Env   []string          // KEY=value, as os.Environ gives it
	Flags map[string]string // by the path of the key, as in nats.listen; only those that were given
	Kinds map[string][]Key  // the connectors there are, with their own keys
}

// Load reads the configuration. The error is [Faults] unless the file cannot be read.
func Load(o LoadOptions) (*Config, error) {
	dir := o.Dir
	if dir == "" {
		var err error
		if dir, err = os.Getwd(); err != nil {
			return nil, fmt.Errorf("find the working directory: %w", err)
		}
	}
	env := newEnvironment(o.Env)
	path, name, data, err := read(dir, o.Path, env)
	if err != nil {
		return nil, err
	}
	l := &loader{config: &Config{File: path}, kinds: o.Kinds, env: env, base: dir, work: dir}
	if path != "" {
		l.base = filepath.Dir(path)
	}
	l.config.defaults(l)
	l.file(name, data)
	l.environment()
	l.flags(o.Flags)
	l.finish()
	if len(l.faults) > 0 {
		return nil, l.faults
	}
	return l.config, nil
}

// defaults fills in what holds when nothing is said.
func (c *Config) defaults(l *loader) {
	c.Data = filepath.Join(l.base, "data")
	c.Rules = filepath.Join(l.base, "rules")
	c.NATS.Listen = "127.0.0.1:4222"
	c.NATS.Websocket = "none"
	c.NATS.Replicas = 1
	c.HTTP.Listen = "127.0.0.1:8080"
	c.HTTP.Origins = []string{"*"}
	c.HTTP.Forwarded = "x-forwarded"
	c.Log = Log{Level: slog.LevelInfo, Format: "text"}
	const day = 24 * time.Hour
	c.Retention = Retention{Journal: 400 * day, Leads: 1100 * day, Attention: 400 * day, Submissions: 90 * day, Events: 7 * day}
}

// read finds and reads the configuration file; path is empty when there is none. name is the path as
// it was given, for messages.
func read(dir, named string, env *environment) (path, name string, data []byte, err error) {
	asked := "--config"
	if named == "" {
		named, asked = env.use("LODESTONE_CONFIG"), "LODESTONE_CONFIG"
	}
	if name = named; name == "" {
		name = FileName
	}
	path = within(dir, name)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && named == "":
		return "", "", nil, nil
	case errors.Is(err, fs.ErrNotExist):
		return "", "", nil, fmt.Errorf("the configuration file %s does not exist; %s names it", path, asked)
	case err != nil:
		return "", "", nil, fmt.Errorf("read the configuration: %w", err)
	case !info.Mode().IsRegular():
		return "", "", nil, fmt.Errorf("the configuration file %s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", "", nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	if data, err = io.ReadAll(io.LimitReader(f, MaxFile+1)); err != nil {
		return "", "", nil, fmt.Errorf("read the configuration: %w", err)
	}
	return path, name, data, nil
}

// within is path, taken from dir when it is relative.
func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// loader gathers the configuration from its sources, weakest first.
type loader struct {
	config   *Config
	kinds    map[string][]Key
	env      *environment
	accounts []*account
	base     string // directory that relative paths are taken from
	work     string // the same for flags
	faults   Faults
}

func (l *loader) fault(at place, format string, args ...any) {
	l.faults = append(l.faults, Fault{File: at.file, Line: at.line, Column: at.column, Source: at.source, Message: fmt.Sprintf(format, args...)})
}

// flags applies what was given on the command line.
func (l *loader) flags(given map[string]string) {
	settings := l.config.settings()
	names := make([]string, 0, len(given))
	for name := range given {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		at := place{source: "--" + strings.NewReplacer(".", "-", "_", "-").Replace(name)}
		i := slices.IndexFunc(settings, func(s setting) bool { return s.path == name })
		if i < 0 {
			l.fault(at, "unknown key %s%s", name, suggest(name, paths(settings)))
			continue
		}
		l.apply(settings[i], value{text: given[name], dir: l.work, at: at})
	}
}

// apply sets one setting from one source.
func (l *loader) apply(s setting, v value) {
	if err := s.set(v); err != nil {
		l.fault(v.at, "%s: %v", s.path, err)
	}
}

// finish turns the accounts that were found into connectors and sorts what is not in order yet.
func (l *loader) finish() {
	if h := l.config.HTTP; (h.TLSCert == "") != (h.TLSKey == "") {
		l.fault(place{source: "http.tls"}, "cert and key go together; one of them is missing")
	}
	for _, a := range l.accounts {
		l.config.Connectors = append(l.config.Connectors, a.Connector)
	}
	slices.SortFunc(l.config.Connectors, func(a, b Connector) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(l.config.Warnings)
	l.faults.sort()
}

func paths(settings []setting) []string {
	var out []string
	for _, s := range settings {
		out = append(out, s.path)
	}
	return out
}

// suggest is the end of a message about an unknown word.
func suggest(word string, known []string) string {
	if c := scoring.Closest(word, known); c != "" {
		return "; did you mean " + c + "?"
	}
	if len(known) == 0 {
		return ""
	}
	known = slices.Sorted(slices.Values(known))
	return "; known: " + strings.Join(known, ", ")
}
