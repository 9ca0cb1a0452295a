package api

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

// Streams is what a running worker knows of the streams.
type Streams interface {
	// Messages returns every message about a person.
	Messages(ctx context.Context, email lodestone.Email) ([]StreamMessage, error)
	// Clear deletes them securely, of a person whose erasure is under way. done: that ended the erasure; else
	// something came meanwhile, and the worker goes on by itself.
	Clear(ctx context.Context, email lodestone.Email) (deleted int, done bool, err error)
}

// StreamMessage is one message of a stream about a person.
type StreamMessage struct {
	Stream  string              `json:"stream"`
	Seq     uint64              `json:"seq"`
	Subject string              `json:"subject"`
	At      time.Time           `json:"at"`
	Header  map[string][]string `json:"headers,omitempty"`
	Data    json.RawMessage     `json:"data"` // as it came, when it is JSON, else as a text
}

// Export is everything that is known of a person.
type Export struct {
	Email       lodestone.Email        `json:"email"`
	At          time.Time              `json:"at"` // when it was put together
	Lead        *lodestone.Lead        `json:"lead"`
	Explanation *Explanation           `json:"explanation"` // with the whole history
	Suppression *lodestone.Suppression `json:"suppression"`
	Attention   []Kept                 `json:"attention"`
	Messages    []StreamMessage        `json:"messages"`
	Streams     bool                   `json:"streams"` // false: no worker runs, so the streams were not looked into
}

// Kept is an attention item with the message that it keeps.
type Kept struct {
	Item
	Subject string              `json:"subject,omitempty"`
	Header  map[string][]string `json:"headers,omitempty"`
	Data    string              `json:"data,omitempty"`
}

func (s *Server) export(r *http.Request) (any, error) {
	email, err := pathEmail(r)
	if err != nil {
		return nil, err
	}
	p, err := s.Store.Person(r.Context(), email, MaxLimit)
	if err != nil {
		return nil, err
	}
	if p.Attention, err = s.Store.AttentionOf(r.Context(), email); err != nil {
		return nil, err
	}
	out := Export{Email: email, At: time.Now().UTC(), Lead: p.Lead, Suppression: p.Suppression, Attention: []Kept{}, Messages: []StreamMessage{}, Streams: s.Streams != nil}
	if p.Lead != nil {
		x := Explain(email, p, View{Book: s.Rulebook(), Operations: s.Operations, Now: out.At})
		out.Explanation = &x
	}
	for i, it := range items(p.Attention) {
		a := p.Attention[i]
		out.Attention = append(out.Attention, Kept{it, a.Subject, a.Header, string(a.Data)})
	}
	if s.Streams != nil {
		if out.Messages, err = s.Streams.Messages(r.Context(), email); err != nil {
			return nil, err
		}
	}
	if p.Lead == nil && p.Suppression == nil && len(p.Attention) == 0 && len(out.Messages) == 0 {
		return nil, problem(http.StatusNotFound, "nothing is known of %s", email)
	}
	return out, nil
}

// Forgotten says what was taken away of a person.
type Forgotten struct {
	Email lodestone.Email `json:"email"`
	boltstore.Erased
	Messages int `json:"messages"` // deleted from the streams
	// Person is the keyed hash by which they stand on record from now on, where the providers were asked.
	Person  string `json:"person,omitempty"`
	Pending bool   `json:"pending"` // the streams are not clear yet: a worker does it, now or at its next start
	// Providers names where the person may be on record, with the operations that delete there.
	Providers []AtProvider `json:"providers"`
}

// AtProvider is a provider that was told of a person, or was asked to forget them.
type AtProvider struct {
	Connector  string   `json:"connector"`
	Operations []string `json:"operations"` // that delete, as `call` takes them
	// State is empty while the provider is only named; else "clear": it was looked up that nothing is left
	// but what Kept says, or "remains".
	State   string    `json:"state,omitempty"`
	Deleted []Deleted `json:"deleted,omitempty"`
	Kept    []string  `json:"kept,omitempty"`
	Detail  string    `json:"detail,omitempty"` // why something remains, and what to do
}

func (s *Server) forget(r *http.Request) (any, error) {
	email, err := pathEmail(r)
	if err != nil {
		return nil, err
	}
	if s.Store.Copied() {
		return nil, problem(http.StatusConflict, "this data directory is a copy and changes nothing until `lodestone claim`")
	}
	p, err := s.Store.Person(r.Context(), email, MaxLimit)
	if err != nil {
		return nil, err
	}
	out := Forgotten{Email: email, Pending: true, Providers: s.atProviders(p)}
	var there *elsewhere
	if r.URL.Query().Get("providers") == "true" { // what finds them there goes on record before it is erased here
		if there, err = s.remainders(r.Context(), email, p); err != nil {
			return nil, err
		}
	}
	gone, change, err := s.Store.Erase(r.Context(), email, time.Now().UTC())
	if err != nil {
		return nil, err
	}
	out.Erased = gone
	if change.Entry != nil && s.Committed != nil {
		s.Committed(&change)
	}
	if s.Streams != nil {
		// Whoever asked may go away; what was begun is finished, or taken up by the worker.
		var done bool
		if out.Messages, done, err = s.Streams.Clear(context.WithoutCancel(r.Context()), email); err != nil {
			return nil, problem(http.StatusInternalServerError, "the store is clear; the streams are not yet, and the worker tries again by itself: %v", err)
		}
		out.Pending = !done
	}
	if there != nil {
		out.Person = there.of.name
		out.Providers = s.forgetThere(context.WithoutCancel(r.Context()), there, gone.Out)
	}
	return out, nil
}

// atProviders finds the connectors that something was sent to about a person.
func (s *Server) atProviders(p boltstore.Person) []AtProvider {
	told := map[string]bool{}
	for i := range p.History {
		for _, t := range p.History[i].Touchpoints {
			if toldOf(t.State) {
				c, _ := lodestone.SplitOperation(t.Operation)
				told[c] = true
			}
		}
		if c := p.History[i].Call; c != nil {
			name, _ := lodestone.SplitOperation(c.Operation)
			told[name] = true
		}
	}
	list := []AtProvider{}
	for _, name := range slices.Sorted(maps.Keys(told)) {
		list = append(list, AtProvider{Connector: name, Operations: s.deleting(name)})
	}
	return list
}

// deleting names the operations of a connector that delete people, in alphabetical order.
func (s *Server) deleting(connector string) []string {
	list := []string{}
	for full, op := range s.Operations {
		if c, _ := lodestone.SplitOperation(full); c == connector && op.Effect == lodestone.EffectDestroy && deletesPeople(full) {
			list = append(list, full)
		}
	}
	slices.Sort(list)
	return list
}

// toldOf reports whether a touchpoint in that state may have told its provider of the person.
func toldOf(s lodestone.TouchpointState) bool {
	return s == lodestone.TouchpointIntended || s == lodestone.TouchpointSent || s == lodestone.TouchpointUnknown || s == lodestone.TouchpointHeld
}

// deletesPeople reports whether an operation that destroys does so to people or what stands in their name, rather
// than to webhooks or rewards.
func deletesPeople(operation string) bool {
	_, name := lodestone.SplitOperation(operation)
	name = strings.ToLower(name)
	if !strings.Contains(name, "delete") && !strings.Contains(name, "remove") || strings.Contains(name, "unsubscribe") {
		return false
	}
	return strings.Contains(name, "member") || strings.Contains(name, "user") || strings.Contains(name, "referral")
}

// Export asks for everything that is known of an address.
func (c *Client) Export(ctx context.Context, email string) (x Export, err error) {
	return x, c.Call(ctx, http.MethodPost, "/api/v1/leads/"+url.PathEscape(email)+"/export", nil, nil, &x)
}

// Forget erases a person, also what the providers hold of them when that is asked for.
func (c *Client) Forget(ctx context.Context, email string, providers bool) (f Forgotten, err error) {
	var query url.Values
	if providers {
		query = url.Values{"providers": {"true"}}
	}
	return f, c.Call(ctx, http.MethodPost, "/api/v1/leads/"+url.PathEscape(email)+"/forget", query, nil, &f)
}
