package rules

import (
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scoring"
)

// Test is one entry under `tests`: what happens to the rules, and what must come of it. Tests say
// nothing that decides, so they are no part of a version.
type Test struct {
	Name     string
	Submit   []TestSubmission // at least one, in the order of the file
	Signals  []TestSignal
	Provider []TestAnswers
	Until    time.Time // when the clock stops; zero: when nothing waits any more
	Expect   []Expectation
	Pos
}

// TestSubmission is one submission of a test.
type TestSubmission struct {
	Form string
	Data []byte // {"fields", "context", "backfill"} as JSON, the way a publisher sends it
	At   time.Time
	Pos
}

// TestSignal is one signal of a test.
type TestSignal struct {
	Kind   lodestone.SignalKind
	Email  lodestone.Email
	At     time.Time
	Detail map[string]any // what JSON can hold; may be nil
	Pos
}

// TestAnswers are what a provider answers in a test. A call is answered by the most specific entry that
// fits: sequence and step, step, connector and operation, connector. Where none fits it is accepted.
type TestAnswers struct {
	Sequence, Step       string // Sequence is empty for that step of any sequence
	Connector, Operation string // Operation is empty for all of them
	Answers              []Answer
	Always               bool // the only answer answers every call; otherwise one after the other, then accepted
}

// Answer is one answer of a provider.
type Answer string

// The answers.
const (
	AnswerAccepted       Answer = "accepted"
	AnswerRefused        Answer = "refused"         // for good
	AnswerUnsubscribed   Answer = "unsubscribed"    // the check says that the address opted out there
	AnswerUnavailable    Answer = "unavailable"     // no connection: provably nothing happened
	AnswerRateLimited    Answer = "rate_limited"    // 429
	AnswerCheckFailed    Answer = "check_failed"    // the check does not answer, the act is not tried
	AnswerTimeout        Answer = "timeout"         // it happened and the answer was lost; the look-up finds it
	AnswerTimeoutAbsent  Answer = "timeout_absent"  // it did not happen; the look-up proves that
	AnswerTimeoutUnclear Answer = "timeout_unclear" // the look-up proves nothing
)

// Answers lists every answer.
var Answers = []Answer{
	AnswerAccepted, AnswerRefused, AnswerUnsubscribed, AnswerUnavailable, AnswerRateLimited, AnswerCheckFailed,
	AnswerTimeout, AnswerTimeoutAbsent, AnswerTimeoutUnclear,
}

// Expectation is what must have come of one lead of a test. What is nil or empty is not looked at.
type Expectation struct {
	Email       lodestone.Email
	Score       *int             // at the lead's last submission
	Band        string           // at the lead's last submission
	Lines       []ExpectedLine   // likewise
	Sequence    string           // the last one entered
	None        bool             // no sequence was entered at all
	Rejected    lodestone.Reason // why a submission could not be used
	Touchpoints []ExpectedTouchpoint
	Only        bool // there are no other touchpoints
	Pos
}

// ExpectedLine is what the lines of one rule are worth together, 0 where there must be none.
type ExpectedLine struct {
	Rule   string
	Points float64
}

// OutcomeDeferred expects that a touchpoint was put off; the other outcomes are touchpoint states.
const OutcomeDeferred = "deferred"

// ExpectedTouchpoint is one touchpoint, or one deferral of one. What is empty fits everything.
type ExpectedTouchpoint struct {
	Sequence, Step string
	At             time.Time // when it came to this; of one that waits, when it is due
	Outcome        string
	Reason         lodestone.Reason
	Pos
}

// TestStart is when a test begins that does not say so, a Monday.
var TestStart = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)

// Limits of tests.
const (
	MaxTests      = 10_000
	MaxTestEvents = 1_000 // submissions, signals and expectations: of each in one test
)

var (
	testKeys = keys{
		known: []string{"name", "submit", "signals", "provider", "until", "expect"},
		meaning: map[string]string{
			"submission": "submit", "submissions": "submit", "given": "submit", "when": "submit", "signal": "signals",
			"providers": "provider", "answers": "provider", "then": "expect", "expected": "expect", "expects": "expect", "want": "expect",
			"title": "name", "id": "name", "stop": "until", "end": "until", "now": "until",
		},
	}
	submitKeys = keys{
		known:   []string{"form", "fields", "context", "backfill", "at"},
		meaning: map[string]string{"data": "fields", "time": "at", "when": "at", "ctx": "context"},
	}
	contextKeys = keys{known: []string{"page", "ip", "user_agent", "timezone", "utm", "utm_first", "referral_code", "consent"},
		meaning: map[string]string{"zone": "timezone", "code": "referral_code", "url": "page"}}
	utmKeys     = keys{known: []string{"source", "medium", "campaign", "term", "content"}}
	consentKeys = keys{known: []string{"marketing", "text", "at"}}
	signalKeys  = keys{
		known:   []string{"kind", "email", "at", "detail"},
		meaning: map[string]string{"type": "kind", "name": "kind", "signal": "kind", "lead": "email", "time": "at", "when": "at", "data": "detail"},
	}
	expectKeys = keys{
		known: []string{"email", "score", "band", "lines", "sequence", "rejected", "touchpoints", "only"},
		meaning: map[string]string{
			"points": "lines", "ledger": "lines", "rules": "lines", "steps": "touchpoints", "touchpoint": "touchpoints",
			"lead": "email", "sequences": "sequence", "enrollment": "sequence",
		},
	}
	touchpointKeys = keys{
		known:   []string{"step", "sequence", "at", "outcome", "reason"},
		meaning: map[string]string{"name": "step", "state": "outcome", "result": "outcome", "status": "outcome", "time": "at", "why": "reason"},
	}
	reasonPattern = regexp.MustCompile(`^[a-z][a-z_]{0,63}$`)
	kindPattern   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// tests reads the tests of all files, once everything that they may name is known.
func (c *compiler) tests() {
	places := make(map[string]Pos)
	for _, s := range c.sections["tests"] {
		if s.node.ShortTag() == "!!null" {
			continue
		}
		for _, n := range c.list(s.doc, s.node, "tests", "- name: a large company is invited") {
			if c.limit(s.doc, n, len(c.set.Tests)+1, MaxTests, "tests") {
				return
			}
			t := c.test(s.doc, n)
			if t == nil {
				continue
			}
			if before, taken := places[t.Name]; taken && t.Name != "" {
				c.duplicate(s.doc, n, "test", t.Name, before)
			}
			places[t.Name] = t.Pos
			c.set.Tests = append(c.set.Tests, t)
		}
	}
}

// testClock reads the times of one test: RFC 3339, or how long after the start of the test.
type testClock struct{ start time.Time }

func (c *compiler) test(d *document, n *yaml.Node) *Test {
	t := &Test{Pos: pos(d, n)}
	entries, given := c.mapping(d, n, testKeys)
	if n.Kind != yaml.MappingNode {
		return nil
	}
	parts := make(map[string]entry, len(entries))
	for _, e := range entries {
		parts[e.name] = e
	}
	if e, ok := parts["name"]; ok {
		if s, ok := c.scalar(d, e.value, "a name", "name: a large company is invited"); ok {
			t.Name = s.Value
		}
	}
	if !given["name"] {
		c.fault(d, n, "this test has no name; say what it shows, as in name: a large company is invited")
	}
	k := &testClock{}
	if e, ok := parts["submit"]; ok {
		t.Submit = c.submissions(d, e, k)
	} else if !given["submit"] {
		c.fault(d, n, "this test submits nothing; add submit: {form: …, fields: {email: …}}")
	}
	lead := c.firstLead(t)
	if e, ok := parts["signals"]; ok {
		last := TestStart
		if n := len(t.Submit); n > 0 {
			last = t.Submit[n-1].At
		}
		t.Signals = c.testSignals(d, e, k, lead, last)
	}
	if e, ok := parts["provider"]; ok {
		t.Provider = c.testProvider(d, e)
	}
	if e, ok := parts["until"]; ok {
		t.Until = c.moment(d, e.value, k, "until: 7d")
	}
	if e, ok := parts["expect"]; ok {
		allKnown := !slices.ContainsFunc(t.Submit, func(s TestSubmission) bool { return c.set.Forms[s.Form] == nil })
		for i, x := range oneOrMore(e.value) {
			if c.limit(d, x, i+1, MaxTestEvents, "expectations in one test") {
				break
			}
			t.Expect = append(t.Expect, c.expectation(d, x, k, lead, allKnown))
		}
		if len(t.Expect) == 0 {
			c.fault(d, e.key, "this test expects nothing, so it could not fail; add what must come of it, as in expect: {band: hot}")
		}
	} else if !given["expect"] {
		c.fault(d, n, "this test expects nothing, so it could not fail; add what must come of it, as in expect: {band: hot}")
	}
	return t
}

// oneOrMore is the elements of a list, or a single value as a list of one.
func oneOrMore(n *yaml.Node) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return []*yaml.Node{n}
	}
	out := make([]*yaml.Node, len(n.Content))
	for i, e := range n.Content {
		out[i] = target(e)
	}
	return out
}

// moment reads a time, or a duration that is counted from the start of the test.
func (c *compiler) moment(d *document, n *yaml.Node, k *testClock, example string) time.Time {
	s, ok := c.scalar(d, n, "a time", example)
	if !ok {
		return time.Time{}
	}
	start := k.start
	if start.IsZero() {
		start = TestStart
	}
	if wait, err := scoring.ParseDuration(s.Value); err == nil {
		return start.Add(wait)
	}
	t, err := time.Parse(time.RFC3339Nano, strings.ToUpper(s.Value))
	if err != nil || t.Unix() < 0 || t.Year() > 9999 {
		c.fault(d, s, "this is no time; write 2026-03-06T10:00:00Z, or how long after the first submission, as in 3d")
		return time.Time{}
	}
	return t.UTC()
}

func (c *compiler) submissions(d *document, e entry, k *testClock) (out []TestSubmission) {
	nodes := oneOrMore(e.value)
	if len(nodes) == 0 {
		c.fault(d, e.key, "this test submits nothing; add {form: …, fields: {email: …}}")
	}
	for i, n := range nodes {
		if c.limit(d, n, i+1, MaxTestEvents, "submissions in one test") {
			break
		}
		s := TestSubmission{Pos: pos(d, n), At: TestStart}
		if i > 0 {
			s.At = out[i-1].At
		}
		entries, given := c.mapping(d, n, submitKeys)
		data := make(map[string]any)
		var fields *entry
		for _, p := range entries {
			switch p.name {
			case "form":
				if v, ok := c.scalar(d, p.value, "the name of a form", "form: pricing-guide"); ok {
					s.Form = v.Value
					if c.set.Forms[v.Value] == nil && !c.unread {
						c.fault(d, v, "there is no form %s%s", v.Value, suggestion(v.Value, namesOf(c.set.Forms)))
					}
				}
			case "fields":
				fields = &p
			case "context":
				data["context"] = c.testContext(d, p.value, k)
			case "backfill":
				data["backfill"] = c.boolean(d, p.value, "backfill")
			case "at":
				s.At = c.moment(d, p.value, k, "at: 2026-03-06T10:00:00Z")
			}
		}
		if k.start.IsZero() {
			k.start = s.At
		}
		if n.Kind != yaml.MappingNode {
			continue
		}
		if !given["form"] {
			c.fault(d, n, "this submission names no form; add one, as in form: pricing-guide")
		}
		if fields == nil && !given["fields"] {
			c.fault(d, n, "this submission has no fields; add them, as in fields: {email: ada@example.com}")
		}
		values := make(map[string]any)
		if fields != nil {
			values = c.testFields(d, *fields, c.set.Forms[s.Form])
		}
		data["fields"] = values
		body, err := json.Marshal(data)
		if err != nil {
			c.fault(d, n, "this submission cannot be sent: %s", err)
		}
		s.Data = body
		out = append(out, s)
	}
	return out
}

// namesOf are the keys of a map of definitions.
func namesOf[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	return out
}

// testFields reads what a form sends. A field that the form does not declare is a fault here: on a web
// page it is left out with a note, in a test it is a slip of the pen.
func (c *compiler) testFields(d *document, e entry, form *Form) map[string]any {
	out := make(map[string]any)
	for _, p := range c.entries(d, e.value, "{email: ada@example.com}") {
		if form != nil && !c.unread {
			if _, ok := form.Fields[p.name]; !ok && p.name != form.Honeypot {
				c.fault(d, p.key, "the form %s has no field %s%s", form.Name, p.name, suggestion(p.name, namesOf(form.Fields)))
				continue
			}
		}
		if p.value.Kind != yaml.ScalarNode {
			c.fault(d, p.value, "a form sends a text, a number, or true or false; this is %s", kindOf(p.value))
			continue
		}
		out[p.name] = jsonValue(p.value)
	}
	return out
}

// jsonValue is a value as JSON holds it. Mappings and lists are taken whole.
func jsonValue(n *yaml.Node) any {
	n = target(n)
	switch n.Kind {
	case yaml.MappingNode:
		out := make(map[string]any)
		for _, p := range pairsOf(n) {
			out[target(p.key).Value] = jsonValue(p.value)
		}
		return out
	case yaml.SequenceNode:
		out := make([]any, len(n.Content))
		for i, e := range n.Content {
			out[i] = jsonValue(e)
		}
		return out
	}
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) {
			return json.Number(n.Value) // with all its digits: it may be a telephone number
		}
		if x, err := strconv.ParseFloat(n.Value, 64); err == nil && !math.IsInf(x, 0) && !math.IsNaN(x) {
			return x
		}
		if x, err := strconv.ParseInt(n.Value, 0, 64); err == nil {
			return x
		}
	}
	return n.Value
}

func (c *compiler) testContext(d *document, n *yaml.Node, k *testClock) map[string]any {
	out := make(map[string]any)
	entries, _ := c.mapping(d, n, contextKeys)
	for _, p := range entries {
		switch p.name {
		case "utm", "utm_first":
			utm := make(map[string]any)
			inner, _ := c.mapping(d, p.value, utmKeys)
			for _, q := range inner {
				if s, ok := c.scalar(d, q.value, "a text", q.name+": newsletter"); ok {
					utm[q.name] = s.Value
				}
			}
			out[p.name] = utm
		case "consent":
			consent := make(map[string]any)
			inner, given := c.mapping(d, p.value, consentKeys)
			for _, q := range inner {
				switch q.name {
				case "marketing":
					consent["marketing"] = c.boolean(d, q.value, "marketing")
				case "text":
					if s, ok := c.scalar(d, q.value, "a text", "text: Yes, send me news"); ok {
						consent["text"] = s.Value
					}
				case "at":
					consent["at"] = c.moment(d, q.value, k, "at: 2026-03-06T10:00:00Z").Format(time.RFC3339Nano)
				}
			}
			if p.value.Kind == yaml.MappingNode && !given["marketing"] {
				c.fault(d, p.key, "consent does not say whether it was given; add marketing: true or marketing: false")
			}
			out["consent"] = consent
		default:
			if s, ok := c.scalar(d, p.value, "a text", p.name+": …"); ok {
				out[p.name] = s.Value
			}
		}
	}
	return out
}

// firstLead is the address of the first submission, which is meant where none is named.
func (c *compiler) firstLead(t *Test) lodestone.Email {
	for _, s := range t.Submit {
		form := c.set.Forms[s.Form]
		var data struct{ Fields map[string]any }
		if form == nil || json.Unmarshal(s.Data, &data) != nil {
			continue
		}
		text, _ := data.Fields[form.Email].(string)
		if e, err := lodestone.ParseEmail(text); err == nil {
			return e
		}
	}
	return ""
}

// address reads whose signal or expectation it is.
func (c *compiler) address(d *document, n *yaml.Node) lodestone.Email {
	s, ok := c.scalar(d, n, "an address", "email: ada@example.com")
	if !ok {
		return ""
	}
	e, err := lodestone.ParseEmail(s.Value)
	if err != nil {
		c.fault(d, s, "this cannot be a lead's address: %s", err)
	}
	return e
}

// testSignals reads the signals; one that does not say when it comes does so at the last submission.
func (c *compiler) testSignals(d *document, e entry, k *testClock, lead lodestone.Email, last time.Time) (out []TestSignal) {
	for i, n := range oneOrMore(e.value) {
		if c.limit(d, n, i+1, MaxTestEvents, "signals in one test") {
			break
		}
		s := TestSignal{Pos: pos(d, n), Email: lead, At: last}
		entries, given := c.mapping(d, n, signalKeys)
		for _, p := range entries {
			switch p.name {
			case "kind":
				if v, ok := c.scalar(d, p.value, "a kind", "kind: converted"); ok {
					if s.Kind = lodestone.SignalKind(v.Value); !kindPattern.MatchString(v.Value) {
						c.fault(d, v, "the kind of a signal is one word, as in converted or unsubscribed")
					}
				}
			case "email":
				s.Email = c.address(d, p.value)
			case "at":
				s.At = c.moment(d, p.value, k, "at: 2d")
			case "detail":
				if p.value.Kind != yaml.MappingNode {
					c.fault(d, p.value, "detail has entries, as in detail: {type: hard}; this is %s", kindOf(p.value))
					continue
				}
				s.Detail, _ = jsonValue(p.value).(map[string]any)
			}
		}
		if n.Kind != yaml.MappingNode {
			continue
		}
		if !given["kind"] {
			c.fault(d, n, "this signal has no kind; add one, as in kind: converted")
		}
		out = append(out, s)
	}
	return out
}

// testProvider reads who answers what.
func (c *compiler) testProvider(d *document, e entry) (out []TestAnswers) {
	for _, p := range c.entries(d, e.value, "{referralrock.invite: refused}") {
		a := TestAnswers{Always: p.value.Kind == yaml.ScalarNode}
		first, second, dotted := strings.Cut(p.name, ".")
		sequence := c.set.Sequence(first)
		switch {
		case dotted && slices.Contains(c.accounts, first):
			a.Connector, a.Operation = first, second
			if _, ok := c.opts.Operations[p.name]; !ok {
				c.fault(d, p.key, "%s has no operation %s", first, second)
			}
		case dotted && sequence != nil && sequence.Step(second) >= 0:
			a.Sequence, a.Step = first, second
		case !dotted && slices.ContainsFunc(c.set.Sequences, func(q *Sequence) bool { return q.Step(first) >= 0 }):
			a.Step = first
		case !dotted && slices.Contains(c.accounts, first):
			a.Connector = first
		case !c.unread:
			c.fault(d, p.key, "nothing here is called %s; name a step, sequence.step, a connector, or connector.operation as in referralrock.invite", p.name)
		}
		for _, n := range oneOrMore(p.value) {
			v, ok := c.scalar(d, n, "an answer", p.name+": refused")
			if !ok {
				continue
			}
			known := make([]string, len(Answers))
			for i, x := range Answers {
				known[i] = string(x)
			}
			if !slices.Contains(known, v.Value) {
				hint := "; answers are " + strings.Join(known, ", ")
				if meant := scoring.Closest(v.Value, known); meant != "" {
					hint = "; did you mean " + meant + "?"
				}
				c.fault(d, v, "unknown answer %s%s", v.Value, hint)
				continue
			}
			a.Answers = append(a.Answers, Answer(v.Value))
		}
		if len(a.Answers) > 0 {
			out = append(out, a)
		}
	}
	return out
}

func (c *compiler) expectation(d *document, n *yaml.Node, k *testClock, lead lodestone.Email, allKnown bool) Expectation {
	x := Expectation{Email: lead, Pos: pos(d, n)}
	entries, given := c.mapping(d, n, expectKeys)
	for _, p := range entries {
		switch p.name {
		case "email":
			x.Email = c.address(d, p.value)
		case "score":
			if v, ok := c.scalar(d, p.value, "a whole number", "score: 60"); ok {
				score, err := strconv.Atoi(v.Value)
				if err != nil || v.ShortTag() != "!!int" {
					c.fault(d, v, "a score is a whole number, as in score: 60")
					continue
				}
				x.Score = &score
			}
		case "band":
			if v, ok := c.scalar(d, p.value, "the name of a band", "band: hot"); ok {
				x.Band = v.Value
				if !slices.ContainsFunc(c.set.Bands, func(b Band) bool { return b.Name == v.Value }) && !c.unread {
					var known []string
					for _, b := range c.set.Bands {
						known = append(known, b.Name)
					}
					c.fault(d, v, "there is no band %s%s", v.Value, suggestion(v.Value, known))
				}
			}
		case "lines":
			x.Lines = c.expectedLines(d, p)
		case "sequence":
			if v, ok := c.scalar(d, p.value, "the name of a sequence, or none", "sequence: hot-invite"); ok {
				if x.None = v.Value == "none" && c.set.Sequence("none") == nil; !x.None {
					x.Sequence = v.Value
					c.knownSequence(d, v)
				}
			}
		case "rejected":
			if v, ok := c.scalar(d, p.value, "a reason", "rejected: missing_field"); ok {
				x.Rejected = c.testReason(d, v)
			}
		case "touchpoints":
			x.Touchpoints = c.expectedTouchpoints(d, p, k)
		case "only":
			x.Only = c.boolean(d, p.value, "only")
		}
	}
	if n.Kind != yaml.MappingNode {
		return x
	}
	if len(given) == 0 || len(given) == 1 && given["email"] {
		c.fault(d, n, "nothing is expected here, so the test could not fail; add what must come of it, as in band: hot")
	}
	if x.Email == "" && !given["email"] && x.Rejected == "" && allKnown && !c.unread {
		c.fault(d, n, "it is not clear whose score and touchpoints these are; add email")
	}
	return x
}

func (c *compiler) knownSequence(d *document, v *yaml.Node) {
	if c.set.Sequence(v.Value) != nil || c.unread {
		return
	}
	known := []string{"none"}
	for _, q := range c.set.Sequences {
		known = append(known, q.Name)
	}
	c.fault(d, v, "there is no sequence %s%s", v.Value, suggestion(v.Value, known))
}

func (c *compiler) testReason(d *document, v *yaml.Node) lodestone.Reason {
	if !reasonPattern.MatchString(v.Value) {
		c.fault(d, v, "a reason is one word as explanations show it, as in no_consent or condition_false")
	}
	return lodestone.Reason(v.Value)
}

func (c *compiler) expectedLines(d *document, e entry) (out []ExpectedLine) {
	for _, p := range c.entries(d, e.value, "{business-email: 20}") {
		if c.set.Rule(p.name) == nil && !c.unread {
			var known []string
			for _, r := range c.set.Rules {
				known = append(known, r.Name)
			}
			c.fault(d, p.key, "there is no scoring rule %s%s", p.name, suggestion(p.name, known))
		}
		v, ok := c.scalar(d, p.value, "a number of points", p.name+": 20")
		if !ok {
			continue
		}
		x, err := strconv.ParseFloat(v.Value, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			c.fault(d, v, "points are a number, as in %s: 20; 0 expects that the rule gave nothing", p.name)
			continue
		}
		out = append(out, ExpectedLine{p.name, x})
	}
	return out
}

// outcomes are what a touchpoint can come to in an expectation.
func outcomes() []string {
	out := []string{OutcomeDeferred}
	for _, s := range lodestone.TouchpointStates {
		if s != lodestone.TouchpointIntended { // no test can stop in the middle of a call
			out = append(out, string(s))
		}
	}
	return out
}

func (c *compiler) expectedTouchpoints(d *document, e entry, k *testClock) (out []ExpectedTouchpoint) {
	for i, n := range c.list(d, e.value, "touchpoints", "- {step: invite, outcome: sent}") {
		if c.limit(d, n, i+1, MaxTestEvents, "touchpoints in one expectation") {
			break
		}
		t := ExpectedTouchpoint{Pos: pos(d, n)}
		entries, given := c.mapping(d, n, touchpointKeys)
		var step *yaml.Node
		for _, p := range entries {
			switch p.name {
			case "step":
				if v, ok := c.scalar(d, p.value, "the name of a step", "step: invite"); ok {
					t.Step, step = v.Value, v
				}
			case "sequence":
				if v, ok := c.scalar(d, p.value, "the name of a sequence", "sequence: hot-invite"); ok {
					t.Sequence = v.Value
					c.knownSequence(d, v)
				}
			case "at":
				t.At = c.moment(d, p.value, k, "at: 2026-03-06T10:10:00Z")
			case "outcome":
				if v, ok := c.scalar(d, p.value, "an outcome", "outcome: sent"); ok {
					t.Outcome = v.Value
					if !slices.Contains(outcomes(), v.Value) {
						c.fault(d, v, "unknown outcome %s%s", v.Value, suggestion(v.Value, outcomes()))
					}
				}
			case "reason":
				if v, ok := c.scalar(d, p.value, "a reason", "reason: no_consent"); ok {
					t.Reason = c.testReason(d, v)
				}
			}
		}
		if n.Kind == yaml.MappingNode && !given["step"] {
			c.fault(d, n, "this touchpoint names no step; add one, as in step: invite")
		}
		if step != nil {
			c.knownStep(d, step, t.Sequence)
		}
		out = append(out, t)
	}
	return out
}

func (c *compiler) knownStep(d *document, v *yaml.Node, sequence string) {
	var known []string
	for _, q := range c.set.Sequences {
		if sequence != "" && q.Name != sequence {
			continue
		}
		for s := range q.All() {
			known = append(known, s.Name)
		}
	}
	if slices.Contains(known, v.Value) || c.unread || sequence != "" && c.set.Sequence(sequence) == nil {
		return
	}
	slices.Sort(known)
	hint := suggestion(v.Value, slices.Compact(known))
	if sequence != "" {
		c.fault(d, v, "the sequence %s has no step %s%s", sequence, v.Value, hint)
		return
	}
	c.fault(d, v, "no sequence has a step %s%s", v.Value, hint)
}
