package event

import (
	"cmp"
	"encoding/json"

	"github.com/lodestonehq/lodestone"
)

// HeaderObserved is the header in which the gateway says what it saw of a request, as the JSON of
// [Observed]. The body stays as it was sent.
const HeaderObserved = "Lodestone-Observed"

// Observed is what the gateway saw itself. It fills what the submission's own context leaves open.
type Observed struct {
	IP        string `json:"ip,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
	Page      string `json:"page,omitempty"` // the Referer

	Evidence *lodestone.Evidence `json:"evidence,omitempty"`
}

// Header is the value of [HeaderObserved].
func (o Observed) Header() string {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // it holds nothing but texts
	}
	return string(b)
}

// observed fills c with what the gateway saw, where c says nothing itself. A header that cannot be
// read counts as none.
func observed(c *lodestone.Context, header map[string][]string) {
	var o Observed
	if json.Unmarshal([]byte(first(header[HeaderObserved])), &o) != nil {
		return
	}
	c.IP = cmp.Or(c.IP, o.IP)
	c.UserAgent = cmp.Or(c.UserAgent, o.UserAgent)
	c.Page = cmp.Or(c.Page, o.Page)
	c.Evidence = o.Evidence
}

// honeypot notes that the field which people do not see was filled in.
func honeypot(c *lodestone.Context, form *lodestone.Form, fields map[string]any) {
	if form.Honeypot == "" {
		return
	}
	if v, _ := take(fields[form.Honeypot], lodestone.FieldText); v == nil {
		return
	}
	if c.Evidence == nil {
		c.Evidence = new(lodestone.Evidence)
	}
	c.Evidence.Honeypot = true
}
