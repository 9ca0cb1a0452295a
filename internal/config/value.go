package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/lodestonehq/lodestone/scoring"
)

// value is what one source says of one key.
type value struct {
	text   string
	list   []string // of a list in the file
	isList bool
	inFile bool   // the configuration file, where no secret may stand
	dir    string // directory that a relative path is taken from
	at     place
}

// items is the value as a list; in a variable or a flag its items are separated by commas.
func (v value) items() []string {
	if v.isList {
		return v.list
	}
	var out []string
	for s := range strings.SplitSeq(v.text, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// A parser reads a value into the place it was made for.
type parser func(value) error

var errList = errors.New("want one value, not a list")

func scalar(read func(value) error) parser {
	return func(v value) error {
		if v.isList {
			return errList
		}
		return read(v)
	}
}

func text(to *string, check func(string) error) parser {
	return scalar(func(v value) error {
		if check != nil {
			if err := check(v.text); err != nil {
				return err
			}
		}
		*to = v.text
		return nil
	})
}

func list(to *[]string, check func(string) error) parser {
	return func(v value) error {
		items := v.items()
		for _, s := range items {
			if err := check(s); err != nil {
				return err
			}
		}
		*to = items
		return nil
	}
}

func directory(to *string) parser {
	return scalar(func(v value) error {
		if v.text == "" {
			return errors.New("want the path of a directory")
		}
		*to = within(v.dir, v.text)
		return nil
	})
}

func path(to *string) parser {
	return scalar(func(v value) error {
		if v.text == "" {
			return errors.New("want the path of a file")
		}
		*to = within(v.dir, v.text)
		return nil
	})
}

// networks reads addresses and networks.
func networks(to *[]netip.Prefix) parser {
	return func(v value) error {
		var list []netip.Prefix
		for _, s := range v.items() {
			p, err := netip.ParsePrefix(s)
			if a, one := netip.ParseAddr(s); one == nil {
				p, err = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
			}
			if err != nil || p.Addr().Is4In6() || p.Addr().Zone() != "" {
				return fmt.Errorf("want an address or a network as in 10.0.0.0/8, not %s", quote(s))
			}
			list = append(list, p.Masked())
		}
		*to = list
		return nil
	}
}

func oneOf(to *string, words ...string) parser {
	return text(to, func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("%s is not one of %s%s", quote(s), strings.Join(words, ", "), near(s, words))
		}
		return nil
	})
}

// near is a suggestion, where there is one.
func near(s string, words []string) string {
	if c := scoring.Closest(s, words); c != "" {
		return "; did you mean " + c + "?"
	}
	return ""
}

func boolean(to *bool) parser {
	return scalar(func(v value) error {
		switch v.text {
		case "true", "1":
			*to = true
		case "false", "0":
			*to = false
		default:
			return fmt.Errorf("want true or false, not %s", quote(v.text))
		}
		return nil
	})
}

func integer(to *int, low, high int) parser {
	return scalar(func(v value) error {
		n, err := strconv.Atoi(v.text)
		if err != nil || n < low || n > high {
			return fmt.Errorf("want a whole number from %d to %d, not %s", low, high, quote(v.text))
		}
		*to = n
		return nil
	})
}

func level(to *slog.Level) parser {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	return scalar(func(v value) error {
		l, ok := levels[v.text]
		if !ok {
			return fmt.Errorf("%s is not one of debug, info, warn, error", quote(v.text))
		}
		*to = l
		return nil
	})
}

// duration reads 10s, 5m, 2h, 3d, 1w, or what Go writes, as 1m30s or 500ms; from low to high.
func duration(to *time.Duration, low, high time.Duration) parser {
	return scalar(func(v value) error {
		d, err := scoring.ParseDuration(v.text)
		if err != nil {
			d, err = time.ParseDuration(v.text)
		}
		if err != nil || d < low || d > high {
			return fmt.Errorf("want a duration from %v to %v as in 10s, not %s", low, high, quote(v.text))
		}
		*to = d
		return nil
	})
}

// rate reads a number of things a second, minute or hour, into things a second.
func rate(to *float64) parser {
	return scalar(func(v value) error {
		number, unit, _ := strings.Cut(v.text, "/")
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		per := map[string]float64{"s": 1, "m": 60, "h": 3600}[strings.TrimSpace(unit)]
		// The upper end keeps whatever counts in integers safe; no provider takes a million a second.
		if err != nil || per == 0 || math.IsNaN(n) || n <= 0 || n/per > 1e6 {
			return fmt.Errorf("want a rate as in 10/s or 600/m, not %s", quote(v.text))
		}
		*to = n / per
		return nil
	})
}

// size reads bytes, as 500MiB, 10GiB, 1GB or a plain number.
func size(to *int64) parser {
	units := []struct {
		name  string
		bytes float64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"", 1},
	}
	return scalar(func(v value) error {
		for _, u := range units {
			number, ok := strings.CutSuffix(v.text, u.name)
			if !ok {
				continue
			}
			n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
			if err != nil || !(n >= 0 && n*u.bytes < 1<<62) {
				break
			}
			*to = int64(n * u.bytes)
			return nil
		}
		return fmt.Errorf("want a size as in 500MiB or 10GiB, not %s", quote(v.text))
	})
}

// address checks host:port.
func address(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("want host:port as in 127.0.0.1:8080, not %s", quote(s))
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("the port is %s, want 0 to 65535", quote(port))
	}
	return nil
}

func addressOrNone(s string) error {
	if s == "none" {
		return nil
	}
	return address(s)
}

// origin checks what a browser sends as Origin: scheme and host, nothing behind them.
func origin(s string) error {
	if s == "*" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("want origins as in https://www.example.com, without a path, or *")
	}
	return nil
}

// webAddress checks the address of an HTTP API. The messages do not repeat it: a key could be in it.
func webAddress(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("want an address as in https://api.example.com")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("the address must have no user, password, query or fragment")
	}
	return nil
}

// natsURL reads the address of NATS servers. User and password may stand in a variable, but like
// every secret not in the file.
func natsURL(to *string) parser {
	return scalar(func(v value) error {
		for s := range strings.SplitSeq(v.text, ",") {
			if s = strings.TrimSpace(s); s == "" && v.text == "" {
				break
			}
			if !strings.Contains(s, "://") {
				s = "nats://" + s
			}
			u, err := url.Parse(s)
			if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
				return errors.New("want an address as in nats://127.0.0.1:4222")
			}
			if u.User != nil && v.inFile {
				return errors.New("a password never stands in the file itself: use nats.credentials, or give the whole address in LODESTONE_NATS_URL")
			}
		}
		*to = v.text
		return nil
	})
}

// quote repeats a short value in a message, so that it cannot break out of its line.
func quote(s string) string {
	if len(s) > 40 || strings.ContainsFunc(s, unicode.IsControl) {
		return "what is there"
	}
	return strconv.Quote(s)
}
