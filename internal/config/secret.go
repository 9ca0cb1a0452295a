package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// maxSecret is the largest secret that is read from a file, in bytes.
const maxSecret = 64 << 10

// Secret says where a secret is. It prints as <secret> in every format, in JSON, YAML and logs.
// Whether it is there shows when it is used, so that a connector that nothing uses needs none.
type Secret struct {
	key   string // path of its key, as in connectors.referralrock.private_key
	env   string // the variable it stands in; empty: not in one
	file  string // the file it stands in; empty: not in one
	value string // as the variable had it when the configuration was read
}

// Resolve returns the secret itself. The error names what is missing and never holds the secret. One
// line break at the end of a file is not part of it.
func (s Secret) Resolve() (string, error) {
	if s.file == "" {
		if s.value == "" {
			return "", fmt.Errorf("%s: the variable %s is not set", s.key, s.env)
		}
		return s.value, nil
	}
	f, err := os.Open(s.file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", s.key, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", s.key, err)
	case len(b) > maxSecret:
		return "", fmt.Errorf("%s: the file %s has more than %d bytes; is it the right one?", s.key, s.file, maxSecret)
	case text == "":
		return "", fmt.Errorf("%s: the file %s is empty", s.key, s.file)
	}
	return text, nil
}

// File is the path of the file that the secret stands in, "" when it stands in a variable.
func (s Secret) File() string { return s.file }

const secretText = "<secret>"

// Format implements fmt.Formatter: every verb prints the same.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secretText) }

// String implements fmt.Stringer.
func (Secret) String() string { return secretText }

// MarshalText covers JSON, YAML and map keys.
func (Secret) MarshalText() ([]byte, error) { return []byte(secretText), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(secretText) }

// errLiteral is the objection to a secret in the file itself.
var errLiteral = errors.New("a secret never stands in the file itself: write {env: NAME} or {file: PATH}")
