package rules

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scoring"
)

// operations are two of a connector, as it declares them.
func operations() map[string]lodestone.Operation {
	text := func(name string, required bool) lodestone.Parameter {
		return lodestone.Parameter{Name: name, Type: lodestone.FieldText, Required: required}
	}
	invite := lodestone.Operation{Name: "referralrock.invite", Summary: "Invite a person.", Effect: lodestone.EffectWrite, Parameters: []lodestone.Parameter{
		text("firstName", true), text("lastName", false), {Name: "email", Type: lodestone.FieldEmail, Required: true}, text("contactType", false),
	}}
	refer := lodestone.Operation{Name: "referralrock.refer", Effect: lodestone.EffectWrite, Parameters: []lodestone.Parameter{
		text("referralCode", true), text("firstName", false), text("lastName", false), text("fullName", false),
		{Name: "email", Type: lodestone.FieldEmail}, text("externalIdentifier", false), text("companyName", false),
		{Name: "amount", Type: lodestone.FieldNumber, Description: "Order value."}, {Name: "test", Type: lodestone.FieldBoolean}, text("note", false),
	}}
	return map[string]lodestone.Operation{invite.Name: invite, refer.Name: refer}
}

func options() Options { return Options{Operations: operations()} }

// compile makes files of a name and its text each.
func compile(t testing.TB, opts Options, namesAndTexts ...string) (*Set, error) {
	t.Helper()
	var files []File
	for i := 0; i+1 < len(namesAndTexts); i += 2 {
		files = append(files, File{Name: namesAndTexts[i], Data: []byte(namesAndTexts[i+1])})
	}
	set, err := Compile(files, opts)
	if err != nil {
		checkFaults(t, err, files)
	}
	return set, err
}

func mustCompile(t testing.TB, namesAndTexts ...string) *Set {
	t.Helper()
	set, err := compile(t, options(), namesAndTexts...)
	if err != nil {
		t.Fatalf("Compile:\n%s", err)
	}
	return set
}

func TestStarter(t *testing.T) {
	set, err := Compile(Starter(), options())
	if err != nil {
		t.Fatalf("Compile(Starter()):\n%s", err)
	}
	if len(set.Warnings) > 0 {
		t.Errorf("the starter warns:\n%s", set.Warnings)
	}
	if len(set.Forms) != 2 || len(set.Bands) != 3 || len(set.Rules) != 7 || len(set.Sequences) != 3 {
		t.Errorf("the starter has %d forms, %d bands, %d rules, %d sequences; want 2, 3, 7, 3", len(set.Forms), len(set.Bands), len(set.Rules), len(set.Sequences))
	}
	var order []string
	for _, q := range set.Sequences {
		order = append(order, q.Name)
	}
	if want := []string{"hot-invite", "partner-referral", "warm-invite"}; !slices.Equal(order, want) {
		t.Errorf("the starter assigns in the order %v, want %v", order, want)
	}
}

// What the starter says of a large company is what its comments promise.
func TestStarterScores(t *testing.T) {
	set, err := Compile(Starter(), options())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		email  lodestone.Email
		form   string
		fields map[string]any
		score  float64
		band   string
		first  string // the first sequence whose condition is true
	}{
		{"a large company asks for prices", "ada@bigco.example", "pricing-guide", map[string]any{"company_size": 1500.0}, 75, "hot", "hot-invite"},
		{"a partner sent somebody", "ada@gmail.com", "pricing-guide", map[string]any{"referral_code": "ADA2026"}, 15, "cold", "partner-referral"},
		{"a director at the webinar", "ada@bigco.example", "webinar", map[string]any{"job_title": "Director of Sales"}, 40, "warm", "warm-invite"},
		{"a competitor", "ada@rival.example", "pricing-guide", map[string]any{"company_size": 1500.0}, -25, "cold", ""},
		{"nothing is known", "info@mailinator.com", "webinar", nil, -10, "cold", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := set.Schema.Evaluator()
			defer e.Release()
			e.Bind(scoring.Facts{Form: tt.form, Fields: lodestone.FieldsOf(tt.fields), Lead: &lodestone.Lead{Email: tt.email, Submissions: 1}, Now: now})
			var sum float64
			for _, r := range set.Rules {
				ok, points := true, r.Points
				var err error
				if r.When != nil {
					ok, err = e.Bool(r.When)
				}
				if err == nil && ok && r.PointsExpr != nil {
					points, err = e.Number(r.PointsExpr)
				}
				if err != nil {
					t.Fatalf("rule %s: %v", r.Name, err)
				}
				if ok {
					sum += points
				}
			}
			if sum != tt.score || set.Band(int(sum)) != tt.band {
				t.Errorf("score %v (%s), want %v (%s)", sum, set.Band(int(sum)), tt.score, tt.band)
			}
			e.SetScore(int(sum), set.Band(int(sum)), "")
			first := ""
			for _, q := range set.Sequences {
				ok, err := e.Bool(q.When)
				if err != nil {
					t.Fatalf("sequence %s: %v", q.Name, err)
				}
				if ok && first == "" {
					first = q.Name
				}
			}
			if first != tt.first {
				t.Errorf("the first sequence is %q, want %q", first, tt.first)
			}
		})
	}
}

const demo = `
forms:
  demo:
    title: Demo
    asset: https://example.com/demo
    fields:
      mail: {type: email, required: true}
      size: {type: number}
      name: {type: text}
    zone: context.timezone
lists: {rivals: [b.example, a.example]}
scoring:
  bands: {cold: 0, hot: 60, warm: 30}
  rules:
    - {name: big, when: fields.size > 100, points: 40, each: true, half_life: 30d}
    - {name: small, points: 'fields.size / 10'}
    - {name: rival, when: lead.domain in lists.rivals, points: -10}
sequences:
  low: {when: true, steps: [{name: one, do: referralrock.invite, with: {firstName: there}}]}
  also-low: {when: true, steps: [{name: one, do: referralrock.invite, with: {firstName: there}}]}
  high:
    when: band == "hot"
    priority: 10
    consent: required
    reenter: 90d
    exit: signals.converted
    steps:
      - {name: one, after: 10m, do: referralrock.invite, with: {firstName: '${fields.name ?? "there"}', lastName: x}}
      - {name: two, after: 1d, when: not signals.opened, do: referralrock.refer, with: {referralCode: 'A ${fields.name}!', amount: 5}}
`

func TestCompile(t *testing.T) {
	set := mustCompile(t, "demo.yaml", demo)
	form := set.Forms["demo"]
	want := lodestone.Form{Name: "demo", Title: "Demo", Asset: "https://example.com/demo", Email: "mail", Order: []string{"mail", "name", "size"}, Fields: map[string]lodestone.Field{
		"mail": {Type: lodestone.FieldEmail, Required: true}, "size": {Type: lodestone.FieldNumber}, "name": {Type: lodestone.FieldText},
	}}
	if !reflect.DeepEqual(form.Form, want) || form.Zone == nil || form.Pos != (Pos{"demo.yaml", 3, 3}) {
		t.Errorf("form = %+v at %v, want %+v", form.Form, form.Pos, want)
	}
	if want := []Band{{"hot", 60}, {"warm", 30}, {"cold", 0}}; !slices.Equal(set.Bands, want) {
		t.Errorf("bands = %v, want %v", set.Bands, want)
	}
	big := set.Rule("big")
	if big.Points != 40 || !big.Each || big.HalfLife != 30*24*time.Hour || big.When == nil || big.PointsExpr != nil || big.Line != 15 {
		t.Errorf("rule big = %+v", big)
	}
	if small := set.Rule("small"); small.When != nil || small.PointsExpr == nil || small.Each || small.HalfLife != 0 {
		t.Errorf("rule small = %+v", small)
	}
	var names []string
	for _, q := range set.Sequences {
		names = append(names, q.Name)
	}
	if want := []string{"high", "low", "also-low"}; !slices.Equal(names, want) {
		t.Errorf("sequences in the order %v, want %v", names, want)
	}
	high := set.Sequence("high")
	if high.Priority != 10 || !high.ConsentRequired || high.Reenter != (Reenter{ReenterAfter, 90 * 24 * time.Hour}) || high.Exit == nil || high.Zone != "lead" || len(high.Steps) != 2 {
		t.Errorf("sequence high = %+v", high)
	}
	two := high.Steps[1]
	if two.Name != "two" || two.After != 24*time.Hour || two.When == nil || two.Do != "referralrock.refer" || two.Connector != "referralrock" || two.Operation != "refer" || high.Step("two") != 1 || high.Step("three") != -1 {
		t.Errorf("step two = %+v", two)
	}
	low := set.Sequence("low")
	if low.Reenter.Mode != ReenterNever || low.ConsentRequired || low.Exit != nil || low.Steps[0].After != 0 {
		t.Errorf("sequence low = %+v, want the defaults", low)
	}
	if set.Sequence("none") != nil || set.Rule("none") != nil {
		t.Error("what is not there is found")
	}
}

func TestBands(t *testing.T) {
	set := mustCompile(t, "demo.yaml", demo)
	for score, want := range map[int]string{-1000: "cold", -1: "cold", 0: "cold", 29: "cold", 30: "warm", 59: "warm", 60: "hot", 1000: "hot"} {
		if got := set.Band(score); got != want {
			t.Errorf("Band(%d) = %s, want %s", score, got, want)
		}
	}
	for name, want := range map[string][3]int{"hot": {60, 0, 0}, "warm": {30, 60, 1}, "cold": {0, 30, 1}, "none": {0, 0, 0}} {
		lowest, next, hasNext := set.BandRange(name)
		if lowest != want[0] || next != want[1] || hasNext != (want[2] == 1) {
			t.Errorf("BandRange(%s) = %d, %d, %v; want %v", name, lowest, next, hasNext, want)
		}
	}
	none := mustCompile(t, "empty.yaml", "")
	if got := none.Band(5); got != "" {
		t.Errorf("Band without bands = %q, want none", got)
	}
}

func TestTemplates(t *testing.T) {
	set := mustCompile(t, "rules.yaml", `
forms:
  demo:
    fields: {email: {type: email}, name: {type: text}, size: {type: number}, vip: {type: boolean}}
sequences:
  q:
    when: true
    steps:
      - name: one
        do: referralrock.refer
        with:
          referralCode: ${fields.name}
          firstName: 'Dear ${fields.name} (${fields.size}, ${fields.vip}) of ${lead.domain}'
          lastName: '$${fields.name} costs $5 {really}'
          fullName: '${"}" + "{" + ''}''}'
          externalIdentifier: ''
          companyName: ${lead.first_seen}
          amount: ${fields.size}
          test: ${fields.vip}
          note: plain
`)
	seen := time.Date(2026, 3, 1, 9, 0, 0, 0, time.FixedZone("", 3600))
	full := scoring.Facts{Fields: lodestone.FieldsOf(map[string]any{"name": "Ada", "size": 2.5, "vip": true}), Lead: &lodestone.Lead{Email: "ada@bigco.example", FirstSeen: seen}}
	empty := scoring.Facts{Lead: &lodestone.Lead{Email: "ada@bigco.example"}}
	for _, tt := range []struct {
		name        string
		full, empty any
	}{
		{"referralCode", "Ada", nil},
		{"firstName", "Dear Ada (2.5, true) of bigco.example", "Dear  (, ) of bigco.example"},
		{"lastName", "${fields.name} costs $5 {really}", "${fields.name} costs $5 {really}"},
		{"fullName", "}{}", "}{}"},
		{"externalIdentifier", "", ""},
		{"companyName", "2026-03-01T08:00:00Z", nil},
		{"amount", 2.5, nil},
		{"test", true, nil},
		{"note", "plain", "plain"},
	} {
		i := slices.IndexFunc(set.Sequences[0].Steps[0].With, func(a Argument) bool { return a.Name == tt.name })
		if i < 0 {
			t.Fatalf("there is no argument %s", tt.name)
		}
		for _, c := range []struct {
			facts scoring.Facts
			want  any
		}{{full, tt.full}, {empty, tt.empty}} {
			e := set.Schema.Evaluator()
			e.Bind(c.facts)
			got, err := set.Sequences[0].Steps[0].With[i].Value.Eval(e)
			e.Release()
			if err != nil || got != c.want {
				t.Errorf("%s = %#v, %v; want %#v", tt.name, got, err, c.want)
			}
		}
	}
}

func TestTemplateFault(t *testing.T) {
	set := mustCompile(t, "rules.yaml", `
forms: {demo: {fields: {email: {type: email}, size: {type: number}}}}
sequences:
  q: {when: true, steps: [{name: one, do: referralrock.invite, with: {firstName: 'a ${fields.size + 1}'}}]}
`)
	e := set.Schema.Evaluator()
	defer e.Release()
	e.Bind(scoring.Facts{})
	if v, err := set.Sequences[0].Steps[0].With[0].Value.Eval(e); err == nil {
		t.Errorf("arithmetic with nil gives %v, want a fault", v)
	}
}

func TestScaleTime(t *testing.T) {
	set := mustCompile(t, "demo.yaml", demo)
	fast := set.ScaleTime(60)
	start := time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	wait := func(s *Set) time.Duration {
		q := s.Sequence("high")
		return q.At(&q.Steps[0], start, time.UTC).Sub(start)
	}
	if got := wait(fast); got != 10*time.Second {
		t.Errorf("10m ÷ 60 = %v, want 10s", got)
	}
	if got := wait(set); got != 10*time.Minute {
		t.Errorf("the original has %v now, want 10m", got)
	}
	if fast.Sequence("high").Reenter != set.Sequence("high").Reenter || fast.Rule("big").HalfLife != set.Rule("big").HalfLife {
		t.Error("reenter or a half-life changed")
	}
	if fast.Version != set.Version || fast.Sequence("high").Version != set.Sequence("high").Version {
		t.Error("a version changed")
	}
}

// The version is a hash of what is defined, not of how it is written.
func TestVersion(t *testing.T) {
	base := mustCompile(t, "demo.yaml", demo)
	if len(base.Version) != 12 || strings.Trim(base.Version, "0123456789abcdef") != "" {
		t.Errorf("Version = %q, want 12 hexadecimal digits", base.Version)
	}
	replace := func(old, new string) string {
		t.Helper()
		if !strings.Contains(demo, old) {
			t.Fatalf("the rules do not hold %q", old)
		}
		return strings.Replace(demo, old, new, 1)
	}
	same := map[string]string{
		"comments":        "# hello\n" + replace("scoring:\n", "scoring: # how\n"),
		"order of keys":   replace("bands: {cold: 0, hot: 60, warm: 30}", "bands: {warm: 30, hot: 60, cold: 0}"),
		"order in a rule": replace("{name: big, when: fields.size > 100, points: 40,", "{points: 40, when: fields.size > 100, name: big,"),
		"block style":     replace("lists: {rivals: [b.example, a.example]}", "lists:\n  rivals:\n    - 'a.example'\n    - \"b.example\""),
		"quotes":          replace("when: fields.size > 100", "when: 'fields.size > 100'"),
		"block scalar":    replace("    when: band == \"hot\"\n", "    when: |\n      band == \"hot\"\n"),
		"default written": replace("low: {when: true,", "low: {when: true, priority: 0, reenter: never,"),
		"units":           replace("after: 1d", "after: 24h"),
		"anchors":         replace("mail: {type: email, required: true}", "mail: &m {type: email, required: true}"),
	}
	for name, text := range same {
		if set := mustCompile(t, "demo.yaml", text); set.Version != base.Version {
			t.Errorf("%s changed the version", name)
		}
	}
	// Top-level keys may stand in any file.
	parts := strings.SplitN(demo, "scoring:", 2)
	if set := mustCompile(t, "z.yaml", parts[0], "a.yaml", "scoring:"+parts[1]); set.Version != base.Version {
		t.Error("spreading the definitions over two files changed the version")
	}
	changed := map[string]string{
		"a threshold":   replace("hot: 60", "hot: 61"),
		"points":        replace("points: 40", "points: 41"),
		"an expression": replace("fields.size / 10", "fields.size / 11"),
		"a list":        replace("a.example]", "c.example]"),
		"a field":       replace("name: {type: text}", "name: {type: text, required: true}"),
		"a title":       replace("title: Demo", "title: Demos"),
		"an asset":      replace("https://example.com/demo", "https://example.com/demo2"),
		"a zone":        replace("zone: context.timezone", "zone: lead.zone"),
		"a half-life":   replace("half_life: 30d", "half_life: 31d"),
		"an argument":   replace("lastName: x", "lastName: y"),
		"a name":        replace("also-low:", "alow:"),
	}
	// Sequences of equal priority compete in the order in which they stand; others do not.
	lines := strings.Split(strings.TrimSpace(demo), "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "  low:") })
	swapped := slices.Clone(lines)
	swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
	changed["the order of ties"] = strings.Join(swapped, "\n")
	last := append(append(slices.Clone(lines[:i]), lines[i+2:]...), lines[i], lines[i+1])
	if set := mustCompile(t, "demo.yaml", strings.Join(last, "\n")); set.Version != base.Version {
		t.Error("the order of sequences that do not tie changed the version")
	}
	for name, text := range changed {
		if set := mustCompile(t, "demo.yaml", text); set.Version == base.Version {
			t.Errorf("%s did not change the version", name)
		}
	}
}

func TestSequenceVersion(t *testing.T) {
	base := mustCompile(t, "demo.yaml", demo)
	versions := func(set *Set) map[string]string {
		out := make(map[string]string)
		for _, q := range set.Sequences {
			out[q.Name] = q.Version
		}
		return out
	}
	for name, tt := range map[string]struct {
		old, new string
		changed  []string
	}{
		"a threshold":      {"hot: 60", "hot: 61", nil},
		"a rule":           {"points: 40", "points: 41", nil},
		"a list":           {"a.example]", "c.example]", nil},
		"another sequence": {"low: {when: true, steps", "low: {when: false, steps", []string{"low"}},
		"a delay":          {"after: 10m", "after: 11m", []string{"high"}},
		"a condition":      {"when: not signals.opened", "when: not signals.replied", []string{"high"}},
		"a template":       {"A ${fields.name}!", "B ${fields.name}!", []string{"high"}},
		"a literal":        {"amount: 5", "amount: 6", []string{"high"}},
		"consent":          {"consent: required\n", "\n", []string{"high"}},
		"the exit":         {"exit: signals.converted", "exit: signals.replied", []string{"high"}},
		"reenter":          {"reenter: 90d", "reenter: always", []string{"high"}},
		"the priority":     {"priority: 10", "priority: 11", []string{"high"}},
		"a step's name":    {"name: two, after", "name: three, after", []string{"high"}},
	} {
		if !strings.Contains(demo, tt.old) {
			t.Fatalf("%s: the rules do not hold %q", name, tt.old)
		}
		got := versions(mustCompile(t, "demo.yaml", strings.Replace(demo, tt.old, tt.new, 1)))
		for sequence, version := range versions(base) {
			if want := slices.Contains(tt.changed, sequence); (got[sequence] != version) != want {
				t.Errorf("%s: the version of %s changed: %v, want %v", name, sequence, !want, want)
			}
		}
	}
}

// A version that is stored must be the same after an upgrade: this one is fixed.
func TestVersionIsStable(t *testing.T) {
	set := mustCompile(t, "demo.yaml", demo)
	if set.Version != "82f8d7f492c9" || set.Sequence("high").Version != "52199b5152c4" {
		t.Errorf("versions %s and %s, want those of earlier releases; running enrollments refer to them", set.Version, set.Sequence("high").Version)
	}
}

func TestFaultsAcrossFiles(t *testing.T) {
	const form = "forms: {demo: {fields: {email: {type: email}, size: {type: number}}}}\n"
	many := func(n int) (out []string) {
		for i := range n {
			out = append(out, string(rune('a'+i))+".yaml", strings.Repeat("#", MaxFile-1)+"\n")
		}
		return out
	}
	for _, tt := range []struct {
		name  string
		files []string
		want  string
	}{
		{"no files", nil, ".:1:1: there are no rule files here; rule files are named *.yaml and hold forms, lists, scoring and sequences"},
		{"only list files", []string{"a.txt", "x"}, ".:1:1: there are no rule files here; rule files are named *.yaml and hold forms, lists, scoring and sequences"},
		{"the wrong ending", []string{"a.yml", form}, "a.yml:1:1: the names of rule files end in .yaml; rename this file to a.yaml"},
		{"one form twice", []string{"b.yaml", form, "a.yaml", form}, "b.yaml:1:9: there is already a form named demo, at a.yaml:1:9; give this one another name"},
		{"one list twice", []string{"a.yaml", "lists: {x: [a]}", "b.yaml", "lists: {x: [a]}"}, "b.yaml:1:9: there is already a list named x, at a.yaml:1:9; give this one another name"},
		{"one sequence twice", []string{"a.yaml", "sequences: {x: {when: true, steps: [{name: a, do: referralrock.invite, with: {firstName: x}}]}}", "b.yaml", "sequences: {x: {when: true}}"},
			"b.yaml:1:13: there is already a sequence named x, at a.yaml:1:13; give this one another name"},
		{"bands twice", []string{"a.yaml", "scoring: {bands: {a: 1}}", "b.yaml", "scoring: {bands: {a: 1}}"}, "b.yaml:1:11: bands stand in one file only; they are already at a.yaml:1:11"},
		{"one field, two types", []string{"a.yaml", form, "b.yaml", "forms: {other: {fields: {email: {type: email}, size: {type: text}}}}"},
			"b.yaml:1:48: size is of type text here and of type number in the form demo, at a.yaml:1:47; give both the same type, or one of them another name"},
		{"what a broken file may declare is not reported as missing", []string{"a.yaml", "forms: [", "b.yaml", "scoring: {rules: [{name: a, when: fields.size > 1, points: 1}, {name: b, points: }]}"},
			"a.yaml:1:9: a value is missing here, or a list or mapping before it is not closed\nb.yaml:1:82: a number or an expression is missing here, as in points: 20"},
		{"not UTF-8", []string{"a.yaml", "lists:\n  ä: [\xff]"}, "a.yaml:2:7: this file is not UTF-8; save it as UTF-8"},
		{"a list file that is not UTF-8", []string{"a.yaml", "lists: {x: {file: x.txt}}", "x.txt", "a\n\xff"}, "x.txt:2:1: this file is not UTF-8; save it as UTF-8"},
		{"a large file", []string{"a.yaml", strings.Repeat("#", MaxFile+1)}, "a.yaml:1:1: this file is larger than 1 MiB; spread it over several files"},
		{"a large list file", []string{"a.yaml", "lists: {x: {file: x.txt}}", "x.txt", strings.Repeat("#", MaxFile+1)}, "x.txt:1:1: this file is larger than 1 MiB; spread it over several lists"},
		{"a large directory", many(17), ".:1:1: the rule files together are larger than 16 MiB; remove what is not needed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := compile(t, options(), tt.files...)
			if err == nil || err.Error() != tt.want {
				t.Errorf("Compile:\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	set := mustCompile(t, "a.yaml", "lists:\n  unused: [a, b, a]\n  used: {file: x.txt}\nscoring:\n  rules:\n    - {name: a, when: lead.domain in lists.used, points: 0}\n", "x.txt", "# nothing\n")
	want := "a.yaml:2:18: warning: a stands twice in the list unused\n" +
		"a.yaml:3:16: warning: the file x.txt holds no text, so nothing is in the list used\n" +
		"a.yaml:6:58: warning: 0 points change no score"
	if got := set.Warnings.Error(); got != want {
		t.Errorf("warnings:\n%s\nwant\n%s", got, want)
	}
	set = mustCompile(t, "a.yaml", "lists:\n  unused: [a]\n")
	if got, want := set.Warnings.Error(), "a.yaml:2:3: warning: no expression uses the list unused"; got != want {
		t.Errorf("warnings:\n%s\nwant\n%s", got, want)
	}
}

// The lists behind lead.disposable, lead.freemail and lead.role can be replaced and changed.
func TestAddressLists(t *testing.T) {
	for _, tt := range []struct {
		name, list, file string
		in, out          string
	}{
		{"written out", "[Mail.Example, mail.example]", "", "mail.example", "gmail.com"},
		{"in a file", "{file: own.txt}", "# ours\nmail.example\nMÜLLER.example\n", "xn--mller-kva.example", "gmail.com"},
		{"added and removed", "{add: [mail.example, gmail.com], remove: [web.de]}", "", "mail.example", "web.de"},
		{"a file with more", "{file: own.txt, add: [more.example]}", "mail.example\n", "more.example", "gmail.com"},
		{"nothing", "[]", "", "", "gmail.com"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set := mustCompile(t, "a.yaml", "lists: {freemail: "+tt.list+"}\nscoring: {rules: [{name: a, when: lead.freemail, points: 1}, {name: b, when: 'lead.domain in lists.freemail', points: 1}]}\n", "own.txt", tt.file)
			if len(set.Warnings) > 0 {
				t.Errorf("it warns:\n%s", set.Warnings)
			}
			e := set.Schema.Evaluator()
			defer e.Release()
			for domain, want := range map[string]bool{tt.in: true, tt.out: false} {
				if domain == "" {
					continue
				}
				e.Bind(scoring.Facts{Lead: &lodestone.Lead{Email: lodestone.Email("a@" + domain)}})
				for _, r := range set.Rules {
					if got, err := e.Bool(r.When); err != nil || got != want {
						t.Errorf("%s for %s = %v, %v; want %v", r.When.Source(), domain, got, err, want)
					}
				}
			}
		})
	}
}

func TestConnectors(t *testing.T) {
	const rule = "sequences: {q: {when: true, steps: [{name: a, do: CONNECTOR.invite, with: {firstName: x}}]}}"
	for _, tt := range []struct {
		name, connector string
		opts            Options
		want            string
	}{
		{"nil accepts those of the operations", "referralrock", options(), ""},
		{"a configured one", "referralrock", Options{Operations: operations(), Connectors: []string{"referralrock", "saasquatch"}}, ""},
		{"one that is not configured", "referralrock", Options{Operations: operations(), Connectors: []string{"saasquatch"}}, "a.yaml:1:51: unknown connector referralrock; known: saasquatch"},
		{"one without operations", "saasquatch", Options{Operations: operations(), Connectors: []string{"saasquatch"}}, "a.yaml:1:62: saasquatch has no operation invite"},
		{"nothing is known", "referralrock", Options{}, "a.yaml:1:51: unknown connector referralrock; no connector is configured"},
	} {
		_, err := compile(t, tt.opts, "a.yaml", strings.Replace(rule, "CONNECTOR", tt.connector, 1))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: Compile = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestEmptyFilesAndSections(t *testing.T) {
	set := mustCompile(t, "a.yaml", "", "b.yaml", "# nothing yet\n", "c.yaml", "forms:\nlists:\nscoring:\nsequences:\n", "d.yaml", "---\n", "e.yaml", "scoring:\n  rules:\n")
	if len(set.Forms)+len(set.Rules)+len(set.Sequences)+len(set.Bands) != 0 || set.Version == "" {
		t.Errorf("empty files give %+v", set)
	}
}

func TestFaultJSON(t *testing.T) {
	got, err := json.Marshal(Faults{{"a.yaml", 1, 2, SeverityError, "m"}})
	if want := `[{"file":"a.yaml","line":1,"column":2,"severity":"error","message":"m"}]`; err != nil || string(got) != want {
		t.Errorf("JSON = %s, %v; want %s", got, err, want)
	}
}
