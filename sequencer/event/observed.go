package event

import (
	"cmp"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/lodestonehq/lodestone"
)

// HeaderObserved is the header in which the gateway says what it saw of a request: a seal, a dot, and the
// JSON of [Observed]. The body stays as it was sent.
const HeaderObserved = "Lodestone-Observed"

// headerUnsealed stands in a message whose [HeaderObserved] was taken out because its seal is not good.
const headerUnsealed = "Lodestone-Unsealed"

// Observed is what the gateway saw itself. It fills what the submission's own context leaves open.
type Observed struct {
	IP        string `json:"ip,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
	Page      string `json:"page,omitempty"` // the Referer

	Evidence *lodestone.Evidence `json:"evidence,omitempty"`
}

// Seal proves that what was observed was observed by a gateway of this data directory: whoever may publish a
// form over NATS could write the header as well, and count nothing against themselves. It holds for one
// message, its subject, its ids and its body. A nil seal makes no header and believes none. It is safe for
// concurrent use.
//
// The key lives as long as the store. What another store's gateway sealed, or an earlier version that sealed
// nothing, counts as not observed.
type Seal struct{ key []byte }

// NewSeal makes a seal of a secret.
func NewSeal(secret []byte) (*Seal, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "lodestone: what a gateway observed", sha256.Size)
	return &Seal{key}, err
}

// Close puts into a message what was observed of it. Its subject, headers and data are those that it is
// published with.
func (s *Seal) Close(m *Message, o Observed) {
	if s == nil {
		return
	}
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // it holds nothing but texts and numbers
	}
	m.Header[HeaderObserved] = []string{base64.RawURLEncoding.EncodeToString(s.mac(m, b)) + "." + string(b)}
}

// Open takes out of a message, as it comes out of a stream, what is said to be observed and is not sealed with
// this key; it is noted then where the submission is decoded. The message's header is not changed but
// replaced.
func (s *Seal) Open(m *Message) {
	values := m.Header[HeaderObserved]
	if len(values) == 0 {
		return
	}
	seal, said, _ := strings.Cut(values[0], ".")
	mac, err := base64.RawURLEncoding.DecodeString(seal)
	if s != nil && err == nil && len(values) == 1 && hmac.Equal(mac, s.mac(m, []byte(said))) {
		return
	}
	m.Header = maps.Clone(m.Header)
	delete(m.Header, HeaderObserved)
	m.Header[headerUnsealed] = []string{"true"}
}

// mac is over everything that says which submission it is: each piece with its length before it.
func (s *Seal) mac(m *Message, said []byte) []byte {
	h := hmac.New(sha256.New, s.key)
	piece := func(b string) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write([]byte(b))
	}
	piece(m.Subject)
	names := slices.Collect(maps.Keys(m.Header))
	slices.Sort(names)
	for _, name := range names {
		// What a broker or a client adds on the way is of no matter.
		if lower := strings.ToLower(name); lower == "nats-msg-id" || lower == "content-type" || strings.HasPrefix(lower, "ce-") {
			for _, v := range m.Header[name] {
				piece(lower)
				piece(v)
			}
		}
	}
	piece("")
	piece(string(said))
	h.Write(m.Data)
	return h.Sum(nil)
}

// ObservedOf reads what was observed of a message whose seal was looked at; ok is false when nothing was.
func ObservedOf(m *Message) (o Observed, ok bool) {
	values := m.Header[HeaderObserved]
	if len(values) == 0 {
		return o, false
	}
	_, said, _ := strings.Cut(values[0], ".")
	err := json.Unmarshal([]byte(said), &o)
	return o, err == nil
}

// observed fills c with what the gateway saw, where c says nothing itself. A header that cannot be
// read counts as none. visitor is the address from which it was posted to a form that anybody can post to.
func (d *decoder) observed(c *lodestone.Context, m *Message) (visitor string) {
	if len(m.Header[headerUnsealed]) > 0 {
		d.note("what is said to have been seen of the request does not bear this gateway's seal, so it does not count")
	}
	o, ok := ObservedOf(m)
	if !ok {
		return ""
	}
	if o.Evidence != nil {
		visitor = o.IP
	}
	if visitor != "" && c.IP != "" && c.IP != visitor {
		d.note("context.ip is not the address that this was posted from: it counts as what the sender said")
	}
	c.IP = cmp.Or(c.IP, o.IP)
	c.UserAgent = cmp.Or(c.UserAgent, o.UserAgent)
	c.Page = cmp.Or(c.Page, o.Page)
	c.Evidence = o.Evidence
	return visitor
}

// honeypot notes that the field which people do not see was filled in.
func honeypot(c *lodestone.Context, form *lodestone.Form, fields value) {
	if form.Honeypot == "" {
		return
	}
	if v, _ := take(fields.of(form.Honeypot), lodestone.FieldText); v == nil {
		return
	}
	if c.Evidence == nil {
		c.Evidence = new(lodestone.Evidence)
	}
	c.Evidence.Honeypot = true
}
