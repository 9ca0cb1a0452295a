package gateway

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/maphash"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/links"
)

const (
	// TokensPath is where a page gets the token of a form.
	TokensPath = "/tokens/"

	tokenLife  = 24 * time.Hour
	watchSpan  = time.Hour
	maxWatched = 1 << 16 // addresses, sources and tokens that are counted in one half of the span
	maxKinds   = 16      // different forms or sources that are told apart for one address
)

// watch counts what comes how often, for about an hour, in memory that is bounded: two generations
// of which the older is forgotten. What is counted is known by a hash with a key of this process.
type watch struct {
	seed maphash.Seed

	mu       sync.Mutex // guards what follows
	new, old map[uint64]*count
	turned   time.Time
}

// count is what was seen under one hash. A number from another one is a hash.
type count struct {
	n              int
	forms, sources []uint64
}

func newWatch() *watch { return &watch{seed: maphash.MakeSeed(), new: map[uint64]*count{}} }

func (w *watch) hash(kind, text string) uint64 {
	var h maphash.Hash
	h.SetSeed(w.seed)
	h.WriteString(kind)
	h.WriteByte(0)
	h.WriteString(text)
	return h.Sum64()
}

// submitted counts one submission and says what was counted.
func (w *watch) submitted(form string, email lodestone.Email, source, token string, now time.Time) (ev lodestone.Evidence) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if age := now.Sub(w.turned); age > watchSpan/2 || len(w.new) >= maxWatched {
		w.old = w.new
		if age > watchSpan {
			w.old = nil
		}
		w.new, w.turned = map[uint64]*count{}, now
	}
	if email != "" {
		c := w.one(w.hash("address", string(email)))
		c.forms, c.sources = with(c.forms, w.hash("form", form)), with(c.sources, w.hash("source", source))
		ev.AddressSubmissions, ev.AddressForms, ev.AddressSources = c.n, len(c.forms), len(c.sources)
	}
	if source != "" {
		ev.SourceSubmissions = w.one(w.hash("source", source)).n
	}
	if token != "" {
		ev.TokenUses = w.one(w.hash("token", token)).n
	}
	return ev
}

// one counts under a hash; a count of the older generation goes on.
func (w *watch) one(h uint64) *count {
	c := w.new[h]
	if c == nil {
		if c = w.old[h]; c == nil {
			c = &count{}
		}
		w.new[h] = c
	}
	c.n++
	return c
}

func with(list []uint64, h uint64) []uint64 {
	if len(list) < maxKinds && !slices.Contains(list, h) {
		list = append(list, h)
	}
	return list
}

// token seals when a page was shown a form.
func (f *forms) token(w http.ResponseWriter, r *http.Request, name string) {
	name, form, no := f.find(name)
	if no == nil && f.Links == nil {
		no = refuse(http.StatusServiceUnavailable, resultBrokerAway, "no tokens are given at the moment")
	}
	if no != nil {
		no.write(w)
		return
	}
	w.Header().Add("Vary", "Origin")
	allowed := f.cors(w.Header(), r, form)
	switch {
	case r.Method != http.MethodGet:
		no = refuse(http.StatusMethodNotAllowed, resultBadMethod, "tokens are fetched with GET")
		no.allow = http.MethodGet
	case !allowed:
		no = refuse(http.StatusForbidden, resultBadOrigin, "this page may not post this form")
	}
	if no != nil {
		no.write(w)
		return
	}
	now := f.now()
	content := binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano()))
	w.Header().Set("Content-Type", jsonType)
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]string{"token": f.Links.Seal(links.FormToken, append(content, name...), now.Add(tokenLife))}) // the page is gone; there is nobody to tell
}

// evidence is what speaks for and against a submission that is about to be stored.
func (f *forms) evidence(form string, email lodestone.Email, source string, data []byte, now time.Time) *lodestone.Evidence {
	token := tokenIn(data)
	ev := f.watch.submitted(form, email, source, token, now)
	if token == "" {
		return &ev
	}
	ev.Token = lodestone.TokenBad
	content, err := f.Links.Open(links.FormToken, token, now)
	if err != nil || len(content) < 8 || string(content[8:]) != form {
		return &ev
	}
	shown := time.Unix(0, int64(binary.BigEndian.Uint64(content)))
	ev.Token, ev.FillSeconds = lodestone.TokenGood, max(0, now.Sub(shown).Seconds())
	return &ev
}

// tokenIn finds the token in the data of a submission.
func tokenIn(data []byte) string {
	if !bytes.Contains(data, []byte(`"token"`)) { // as in most; reading all of it again is not cheap
		return ""
	}
	type body struct {
		Context struct {
			Token string `json:"token"`
		} `json:"context"`
	}
	var b struct {
		body
		Data body `json:"data"` // of a structured event
	}
	if err := json.Unmarshal(data, &b); err != nil {
		var wrong *json.UnmarshalTypeError
		if !errors.As(err, &wrong) { // something else stands where a token would
			return ""
		}
	}
	if b.Context.Token != "" {
		return b.Context.Token
	}
	return strings.TrimSpace(b.Data.Context.Token)
}
