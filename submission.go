package lodestone

import (
	"maps"
	"slices"
	"time"
)

// FieldType is what a form declares a field to hold.
type FieldType string

// The field types. Values are held as string (email, text), float64 (number) and bool (boolean).
const (
	FieldEmail   FieldType = "email"
	FieldText    FieldType = "text"
	FieldNumber  FieldType = "number"
	FieldBoolean FieldType = "boolean"
)

// FieldTypes lists the field types in the order that messages name them.
var FieldTypes = []FieldType{FieldEmail, FieldText, FieldNumber, FieldBoolean}

// Field is one declared field of a form.
type Field struct {
	Type     FieldType
	Required bool
}

// Form is what a rule file declares of one form.
type Form struct {
	Name   string
	Title  string
	Asset  string           // address of what the form promises; empty when it promises nothing
	Fields map[string]Field // by name
	Order  []string         // the names of Fields, sorted; nil where nobody sorted them
	Email  string           // the field that holds the lead's address

	Thanks  []string // addresses that a page without script may be sent to; the first unless it asks for another
	Origins []string // pages whose scripts may post it; empty: those of the configuration

	Map       map[string]Path // where another tool's payload has what, by target; see [MapTargets]
	Honeypot  string          // a field that people do not see and leave empty; "" none
	Signature string          // how requests over HTTP are signed, one of [Signatures]; empty: they are not
}

// Names are the names of the fields, sorted. The list must not be changed.
func (f *Form) Names() []string {
	if len(f.Order) == len(f.Fields) {
		return f.Order
	}
	return slices.Sorted(maps.Keys(f.Fields))
}

// MapTargets are what a form's map can fill beside its fields.
var MapTargets = []string{
	"context.page", "context.ip", "context.user_agent", "context.timezone", "context.referral_code",
	"context.utm.source", "context.utm.medium", "context.utm.campaign", "context.utm.term", "context.utm.content",
	"context.consent.marketing", "context.consent.text", "context.consent.at",
	"submission.id", "submission.at",
}

// Signatures are the ways in which tools sign what they post.
var Signatures = []string{"standard-webhooks", "typeform", "tally", "hubspot", "webflow", "formspree", "bearer"}

// Submission is one form submission that can be used: its envelope was read, its form is declared,
// its fields have the declared types. It never changes once accepted.
type Submission struct {
	ID       string
	Form     string
	Email    Email
	Fields   Fields // by the form; an absent optional field is not among them
	Context  Context
	Backfill bool      // fills profile and ledger, enrolls nobody
	At       time.Time // when it was submitted; never later than Received
	Received time.Time // when the stream took it
	Seq      uint64    // sequence number in its stream
	Visitor  string    // network address from which a gateway saw it come that anybody can post to; "" otherwise
	Notes    []string  // what did not fit and was left out, in words without personal data
}

// Context is what the page knew about a submission. Empty texts mean absent.
type Context struct {
	Page         string   `json:"page,omitempty" msg:"p,omitempty"`
	IP           string   `json:"ip,omitempty" msg:"i,omitempty"`
	UserAgent    string   `json:"user_agent,omitempty" msg:"a,omitempty"`
	Timezone     string   `json:"timezone,omitempty" msg:"z,omitempty"`
	UTM          UTM      `json:"utm,omitzero" msg:"u,omitempty"`
	UTMFirst     UTM      `json:"utm_first,omitzero" msg:"uf,omitempty"` // of the first visit that had any
	ReferralCode string   `json:"referral_code,omitempty" msg:"r,omitempty"`
	Consent      *Consent `json:"consent,omitempty" msg:"c,omitempty"`

	// Evidence is never the page's own word; nil when nobody watched.
	Evidence *Evidence `json:"evidence,omitempty" msg:"ev,omitempty"`
}

// UTM holds the campaign parameters of the page's address.
type UTM struct {
	Source   string `json:"source,omitempty" msg:"s,omitempty"`
	Medium   string `json:"medium,omitempty" msg:"m,omitempty"`
	Campaign string `json:"campaign,omitempty" msg:"c,omitempty"`
	Term     string `json:"term,omitempty" msg:"t,omitempty"`
	Content  string `json:"content,omitempty" msg:"n,omitempty"`
}

// Consent is what the person agreed to, in the words that were shown.
type Consent struct {
	Marketing bool      `json:"marketing" msg:"m"`
	Text      string    `json:"text,omitempty" msg:"t,omitempty"`
	At        time.Time `json:"at,omitzero" msg:"a,omitempty"`

	// Where it was said, filled in when it is kept with a lead: never the page's own word where the gateway
	// saw it said. At is then when it was received.
	Submission string    `json:"submission,omitempty" msg:"s,omitempty"` // the id of the one that earned it; of a withdrawal the signal's
	Form       string    `json:"form,omitempty" msg:"f,omitempty"`
	Page       string    `json:"page,omitempty" msg:"p,omitempty"`
	IP         string    `json:"ip,omitempty" msg:"i,omitempty"`
	Confirmed  time.Time `json:"confirmed,omitzero" msg:"c,omitempty"` // by a link in a message

	// What the sender said of it instead, which proves nothing; empty where it said the same.
	ClaimedAt time.Time `json:"claimed_at,omitzero" msg:"ca,omitempty"`
	ClaimedIP string    `json:"claimed_ip,omitempty" msg:"ci,omitempty"`
}

// Since is when it was said, for which of two words is the later one: a page may have kept it for a while
// before it could be sent.
func (c *Consent) Since() time.Time {
	if c.ClaimedAt.IsZero() {
		return c.At
	}
	return c.ClaimedAt
}

// SignalKind names something that came back about a lead.
type SignalKind string

// The signals that Lodestone itself acts on. Any other kind is kept and can be used in expressions.
const (
	SignalConverted    SignalKind = "converted"
	SignalUnsubscribed SignalKind = "unsubscribed" // suppresses
	SignalBounced      SignalKind = "bounced"      // suppresses when its detail says hard
	SignalReplied      SignalKind = "replied"
	SignalOpened       SignalKind = "opened"
	SignalClicked      SignalKind = "clicked"
	SignalJoined       SignalKind = "joined"
	SignalComplained   SignalKind = "complained"
	SignalConfirmed    SignalKind = "confirmed" // the address belongs to whoever entered it
	SignalWithdrawn    SignalKind = "withdrawn" // consent is taken back
)

// SignalKinds lists the signals that expressions may name without a rule file having to declare
// them.
var SignalKinds = []SignalKind{
	SignalConverted, SignalUnsubscribed, SignalBounced, SignalReplied,
	SignalOpened, SignalClicked, SignalJoined, SignalComplained, SignalConfirmed, SignalWithdrawn,
}

// Signal is one event about a lead that did not come from a form.
type Signal struct {
	ID       string
	Kind     SignalKind
	Email    Email
	At       time.Time
	Received time.Time
	Seq      uint64
	Detail   map[string]any
}

// DetailAsked is where the detail of a confirmation says when the person was asked, as in RFC 3339.
const DetailAsked = "asked"

// Asked is when the person was asked for what the signal confirms: its own time where it does not say.
func (s Signal) Asked() time.Time {
	text, _ := s.Detail[DetailAsked].(string)
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at.UTC()
	}
	return s.At
}

// Suppresses reports whether the signal means that the address must not be contacted again.
func (s Signal) Suppresses() bool {
	switch s.Kind {
	case SignalUnsubscribed, SignalComplained:
		return true
	case SignalBounced:
		hard, _ := s.Detail["hard"].(bool)
		kind, _ := s.Detail["type"].(string)
		return hard || kind == "hard"
	}
	return false
}

// Rejection says why a submission or a signal cannot be used. It is kept whole under attention.
type Rejection struct {
	Reason Reason // one of the rejection reasons
	Detail string // what was found and what would help, in words without personal data
	Form   string // the form named by the subject; may be one that no rule file declares
	Email  Email  // as far as it could be read; empty otherwise
	ID     string // the submission's id as far as it could be read
}
