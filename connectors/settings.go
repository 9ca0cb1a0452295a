package connectors

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Secret is a key or a token. It prints as <secret> in every format, in JSON and in logs, so that it
// cannot get out by being part of something that is printed.
type Secret string

const secretText = "<secret>"

// Reveal gives the secret itself, for the one header it belongs in.
func (s Secret) Reveal() string { return string(s) }

// Format implements fmt.Formatter: every verb prints the same.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(secretText)) }

// String implements fmt.Stringer.
func (Secret) String() string { return secretText }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return secretText }

// MarshalText covers JSON, YAML and XML.
func (Secret) MarshalText() ([]byte, error) { return []byte(secretText), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(secretText) }

// What answers the question whether an address unsubscribed.
const (
	SuppressionProvider  = "provider"   // the provider is asked before each act
	SuppressionLocalOnly = "local-only" // our own list alone decides
)

// What happens to a call whose outcome is unknown.
const (
	OnUnknownLookup = "lookup" // the provider is asked
	OnUnknownHold   = "hold"   // it waits for a human
)

// Settings of one account. A zero value of a field with a default means the default.
type Settings struct {
	Name        string            // the key under `connectors`; the connector label of metrics
	BaseURL     string            // default: the kind's
	Secrets     map[string]Secret // by setting name, as the kind lists them
	Rate        float64           // requests per second, checks and look-ups included; default 10
	Concurrency int               // requests at a time; default 8
	Timeout     time.Duration     // of one request, or of one read with its repeats; default 10 s
	Attempts    int               // acts that may be tried for one touchpoint; default 10
	Settle      time.Duration     // how long after a call was given up a look-up's "not there" is believed; default 30 s
	Suppression string            // default SuppressionProvider
	OnUnknown   string            // default OnUnknownLookup
	Insecure    bool              // plain http is allowed beyond loopback
	Extra       map[string]string // the connector's own settings that are no secrets
}

// WithDefaults fills in what was left out.
func (s Settings) WithDefaults(kind Kind) Settings {
	if s.Name == "" {
		s.Name = kind.Name
	}
	if s.BaseURL == "" {
		s.BaseURL = kind.BaseURL
	}
	s.BaseURL = strings.TrimRight(s.BaseURL, "/")
	if s.Rate == 0 {
		s.Rate = 10
	}
	if s.Concurrency == 0 {
		s.Concurrency = 8
	}
	if s.Timeout == 0 {
		s.Timeout = cmp.Or(kind.Timeout, 10*time.Second)
	}
	if s.Attempts == 0 {
		s.Attempts = 10
	}
	if s.Settle == 0 {
		s.Settle = 30 * time.Second
	}
	if s.Suppression == "" {
		s.Suppression = SuppressionProvider
	}
	if s.OnUnknown == "" {
		s.OnUnknown = OnUnknownLookup
	}
	s.Secrets, s.Extra = maps.Clone(s.Secrets), maps.Clone(s.Extra)
	return s
}

// burst is a tenth of a second's worth of requests, at least one.
func (s Settings) burst() int { return max(1, int(s.Rate/10)) }

// check finds every fault of settings that have their defaults.
func (s Settings) check(kind Kind) error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("connectors.%s.%s: %s", s.Name, key, fmt.Sprintf(format, args...)))
	}
	if why := s.checkBaseURL(); why != "" {
		fault("base_url", "%s", why)
	}
	for _, key := range kind.Secrets {
		switch secret := s.Secrets[key].Reveal(); {
		case secret == "":
			fault(key, "is missing; give it as {env: NAME} or {file: PATH}, or in the environment as %s", s.variable(key))
		case strings.ContainsFunc(secret, unicode.IsControl):
			fault(key, "holds a line break or another control character, which no header may; give the bare value")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.Extra)) {
		if !slices.Contains(kind.Keys, key) {
			fault(key, "is no setting of %s", kind.Name)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.Secrets)) {
		if !slices.Contains(kind.Secrets, key) {
			fault(key, "is no secret setting of %s", kind.Name)
		}
	}
	if !(s.Rate > 0) || math.IsInf(s.Rate, 0) {
		fault("rate", "must be more than 0 a second")
	}
	if s.Concurrency < 1 || s.Concurrency > 1000 {
		fault("concurrency", "must be 1 to 1000, is %d", s.Concurrency)
	}
	if s.Timeout < 0 {
		fault("timeout", "must not be negative")
	}
	if s.Attempts < 1 {
		fault("attempts", "must be at least 1, is %d", s.Attempts)
	}
	if s.Settle < 0 {
		fault("settle", "must not be negative")
	}
	switch {
	case s.Suppression != SuppressionProvider && s.Suppression != SuppressionLocalOnly:
		fault("suppression", "must be provider or local-only, is %q", s.Suppression)
	case s.Suppression == SuppressionProvider && !kind.Check:
		fault("suppression", "%s cannot be asked whether an address unsubscribed; say `suppression: local-only` to rely on the local list alone", kind.Name)
	}
	if s.OnUnknown != OnUnknownLookup && s.OnUnknown != OnUnknownHold {
		fault("on_unknown", "must be lookup or hold, is %q", s.OnUnknown)
	}
	return errors.Join(faults...)
}

// checkBaseURL says what is wrong with the base URL, without repeating it: it may hold credentials.
func (s Settings) checkBaseURL() string {
	if s.BaseURL == "" {
		return "is missing"
	}
	u, err := url.Parse(s.BaseURL)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return "is not a URL such as https://api.example.com"
	case u.User != nil:
		return "must not hold credentials; they have settings of their own"
	case u.RawQuery != "" || u.Fragment != "":
		return "must not hold a query or a fragment"
	case u.Scheme == "https":
	case u.Scheme != "http":
		return "must begin with https://"
	case !s.Insecure && !loopback(u.Hostname()):
		return "is plain http, which shows the keys to everyone on the way; use https, or say `insecure: true`"
	}
	return ""
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (s Settings) variable(key string) string {
	clean := func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}
	return "LODESTONE_CONNECTORS_" + strings.Map(clean, s.Name) + "_" + strings.Map(clean, key)
}
