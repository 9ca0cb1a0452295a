package scoring

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
)

func TestAddresses(t *testing.T) {
	s := NewSchema(testConfig())
	programs := make(map[string]*Program)
	for _, name := range []string{"freemail", "disposable", "role"} {
		p, err := s.Compile("lead."+name, Boolean)
		if err != nil {
			t.Fatal(err)
		}
		programs[name] = p
	}
	e := s.Evaluator()
	defer e.Release()
	for _, tt := range []struct {
		email                      lodestone.Email
		freemail, disposable, role bool
	}{
		{"ada@bigco.example", false, false, false},
		{"ada@gmail.com", true, false, false},
		{"ada@mail.gmail.com", false, false, false}, // another domain
		{"ada@mailinator.com", false, true, false},
		{"sales@bigco.example", false, false, true},
		{"sales+emea@bigco.example", false, false, true},
		{"info@gmx.de", true, false, true},
		{"salesperson@bigco.example", false, false, false},
		{"", false, false, false},
	} {
		e.Bind(Facts{Lead: &lodestone.Lead{Email: tt.email}})
		for name, want := range map[string]bool{"freemail": tt.freemail, "disposable": tt.disposable, "role": tt.role} {
			if got, err := e.Bool(programs[name]); err != nil || got != want {
				t.Errorf("lead.%s of %s = %v, %v; want %v", name, tt.email, got, err, want)
			}
		}
	}
}

// The tables hold what they are looked up by: normalised domains and local parts.
func TestAddressTables(t *testing.T) {
	for name, table := range map[string]wordSet{"freemail": freemail, "disposable": disposable} {
		if len(table) < 50 {
			t.Errorf("%s has %d entries, want more", name, len(table))
		}
		for domain := range table {
			if e, err := lodestone.ParseEmail("x@" + domain); err != nil || e.Domain() != domain {
				t.Errorf("%s holds %q, which is not a normalised domain (%v)", name, domain, err)
			}
			if _, both := disposable[domain]; both && name == "freemail" {
				t.Errorf("%s is in freemail and in disposable", domain)
			}
		}
	}
	for local := range role {
		if e, err := lodestone.ParseEmail(local + "@bigco.example"); err != nil || e.Local() != local {
			t.Errorf("role holds %q, which is not a normalised local part (%v)", local, err)
		}
	}
}

// Each table says where it comes from and of when it is.
func TestAddressTablesSayTheirSource(t *testing.T) {
	for _, name := range AddressLists {
		data, err := tables.ReadFile("addresses/" + name + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(data), "\n\n")
		_, date, ok := strings.Cut(head, "\n# As of: ")
		if date, _, _ = strings.Cut(date, "\n"); !ok || !strings.Contains(head, "\n# Source: ") {
			t.Errorf("%s.txt does not begin with its source and its date", name)
		} else if _, err := time.Parse(time.DateOnly, date); err != nil {
			t.Errorf("%s.txt is of %q, which is no date", name, date)
		}
		if list := BuiltInList(name); len(list) < 50 || !slices.IsSorted(list) {
			t.Errorf("BuiltInList(%s) has %d entries, sorted: %v", name, len(list), slices.IsSorted(list))
		}
	}
	if BuiltInList("competitors") != nil {
		t.Error("there is a built-in list of competitors")
	}
}

// A list of the rule files takes the place of the built-in one, and of that one alone.
func TestOwnAddressLists(t *testing.T) {
	c := testConfig()
	c.Lists["disposable"], c.Lists["role"] = []string{"bigco.example"}, []string{}
	s := NewSchema(c)
	for source, want := range map[string]map[lodestone.Email]bool{
		"lead.disposable": {"a@bigco.example": true, "a@mailinator.com": false},
		"lead.role":       {"info@bigco.example": false},
		"lead.freemail":   {"a@gmail.com": true, "a@bigco.example": false},
	} {
		p, err := s.Compile(source, Boolean)
		if err != nil {
			t.Fatal(err)
		}
		for email, want := range want {
			e := s.Evaluator()
			e.Bind(Facts{Lead: &lodestone.Lead{Email: email}})
			if got, err := e.Bool(p); err != nil || got != want {
				t.Errorf("%s of %s = %v, %v; want %v", source, email, got, err, want)
			}
			e.Release()
		}
	}
}

func TestZoneOfCountry(t *testing.T) {
	for code, want := range map[string]string{
		"DE": "Europe/Berlin", "de": "Europe/Berlin", " dE ": "Europe/Berlin", "US": "America/New_York", "AU": "Australia/Sydney",
		"BR": "America/Sao_Paulo", "CN": "Asia/Shanghai", "IN": "Asia/Kolkata", "GB": "Europe/London", "UA": "Europe/Kyiv",
		"": "", "XX": "", "UK": "", "DEU": "", "Germany": "", "ß": "",
	} {
		if got := ZoneOfCountry(code); got != want {
			t.Errorf("ZoneOfCountry(%q) = %q, want %q", code, got, want)
		}
	}
	if len(zones) < 245 {
		t.Errorf("%d countries have a zone, want at least 245", len(zones))
	}
	for code, zone := range zones {
		if len(code) != 2 || code[0] < 'A' || code[0] > 'Z' || code[1] < 'A' || code[1] > 'Z' {
			t.Errorf("%q is not a country code", code)
		}
		if _, err := time.LoadLocation(zone); err != nil {
			t.Errorf("the zone of %s does not load: %v", code, err)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "10m": 10 * time.Minute, "2h": 2 * time.Hour, "3d": 72 * time.Hour, "2w": 336 * time.Hour, "0s": 0, "007d": 168 * time.Hour,
	} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("ParseDuration(%s) = %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "d", "10", "10 m", "-1d", "+1d", "1.5h", "10min", "1h30m", "1D", "١d", "999999999999999999999d", "99999999w"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", s, got)
		}
	}
}
