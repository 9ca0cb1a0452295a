package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// What providers hold of a person is deleted after they were erased here, so that nothing is sent meanwhile that
// brings them back there. What finds them at the provider is put under attention before that, one item an account,
// under a keyed hash and without the address: an item that is still there says that its account is not done, whatever
// ended the command. It goes when the provider was asked again and holds nothing any more.

// erased is somebody who is being erased: their address, which goes on no record, and the keyed hash that does.
type erased struct {
	email lodestone.Email
	name  string
}

// elsewhere is a person with what is known of where providers hold them.
type elsewhere struct {
	of       erased
	accounts map[string]remainder
}

// remainder is what an attention item about an account that is not done holds.
type remainder struct {
	IDs   []string  `json:"ids,omitempty"`        // of the provider, none of which is the address
	After time.Time `json:"not_before,omitzero"`  // a look before that may be too early: something was sent
	Since time.Time `json:"asked_first,omitzero"` // when it was asked for first
}

// Deleted is one record of a person that was to be deleted at a provider.
type Deleted struct {
	What      string `json:"what"`
	Operation string `json:"operation"`
	Class     string `json:"class"` // what came of the call; ok, or why not
	Status    int    `json:"status,omitempty"`
}

// The states of an [AtProvider] that was asked to forget.
const (
	StateClear   = "clear"
	StateRemains = "remains"
)

// remainders gathers what finds a person at the providers, and puts every account under attention until it is done.
// Every account that is configured is asked, because the record of who was told may have been pruned, or
// erased by an earlier try.
func (s *Server) remainders(ctx context.Context, email lodestone.Email, p boltstore.Person) (*elsewhere, error) {
	name, err := s.Store.Pseudonym(ctx, email)
	if err != nil {
		return nil, err
	}
	there := &elsewhere{erased{email, name}, map[string]remainder{}}
	now := time.Now().UTC()
	for account := range s.Accounts {
		there.accounts[account] = remainder{Since: now}
	}
	told := func(operation, reference string, at time.Time) {
		account, _ := lodestone.SplitOperation(operation)
		rem, ok := there.accounts[account]
		if !ok {
			rem.Since = now
		}
		if reference != "" && !boltstore.Mentions([]byte(reference), email) && !slices.Contains(rem.IDs, reference) {
			rem.IDs = append(rem.IDs, reference)
		}
		if a := s.Accounts[account]; a != nil {
			rem.After = later(rem.After, at.Add(a.Settings().Settle))
		}
		there.accounts[account] = rem
	}
	for i := range p.History {
		e := &p.History[i]
		for _, t := range e.Touchpoints {
			if toldOf(t.State) {
				told(t.Operation, t.Reference, e.At)
			}
		}
		if e.Call != nil && e.Call.Class != ClassBlocked && !s.reads(e.Call.Operation) {
			told(e.Call.Operation, "", e.At)
		}
	}
	var b sequencer.Batch
	for _, account := range slices.Sorted(maps.Keys(there.accounts)) {
		rem := there.accounts[account]
		items, err := s.Store.ItemsOf(ctx, there.item(account).ID)
		if err != nil {
			return nil, err
		}
		for i := range items {
			var old remainder
			if json.Unmarshal(items[i].Data, &old) == nil {
				rem.IDs = append(rem.IDs, old.IDs...)
				slices.Sort(rem.IDs)
				rem.IDs = slices.Compact(rem.IDs)
				rem.After = later(rem.After, old.After)
				rem.Since = cmp.Or(old.Since, rem.Since)
			}
		}
		there.accounts[account] = rem
		b.Attention = append(b.Attention, there.attention(account, "the command did not come to its end"))
	}
	_, err = s.Store.Commit(ctx, b)
	return there, err
}

// reads reports whether an operation leaves nothing behind at its provider.
func (s *Server) reads(operation string) bool {
	account, name := lodestone.SplitOperation(operation)
	if a := s.Accounts[account]; a != nil {
		e, err := a.Endpoint(name)
		return err == nil && e.Effect == lodestone.EffectRead
	}
	return false
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (t *elsewhere) item(account string) sequencer.AttentionKey {
	return sequencer.AttentionKey{Kind: lodestone.AttentionConnector, ID: "forget/" + account + "/" + t.of.name}
}

func (t *elsewhere) attention(account, why string) lodestone.Attention {
	key, rem := t.item(account), t.accounts[account]
	data, _ := json.Marshal(rem) // texts and times
	return lodestone.Attention{
		ID: key.ID, Kind: key.Kind, Reason: lodestone.ReasonErased, At: rem.Since, Data: data,
		Detail: fmt.Sprintf("%s may still hold somebody who was erased here (keyed hash %s): %s; run `lodestone forget EMAIL --providers` again with their address", account, t.of.name, why),
	}
}

// forgetThere has every account forget a person who is erased here, and says of each what came of it. out names those
// at which a call was out when the person was erased.
func (s *Server) forgetThere(ctx context.Context, t *elsewhere, out []string) []AtProvider {
	for _, account := range out {
		if a := s.Accounts[account]; a != nil {
			rem := t.accounts[account]
			rem.After = later(rem.After, time.Now().UTC().Add(a.Settings().Timeout+a.Settings().Settle))
			t.accounts[account] = rem
		}
	}
	list := []AtProvider{}
	for _, account := range slices.Sorted(maps.Keys(t.accounts)) {
		at := s.forgetAt(ctx, account, t)
		b := sequencer.Batch{Resolved: []sequencer.AttentionKey{t.item(account)}}
		if at.State == StateRemains {
			b = sequencer.Batch{Attention: []lodestone.Attention{t.attention(account, at.Detail)}}
		}
		if _, err := s.Store.Commit(ctx, b); err != nil {
			at.State, at.Detail = StateRemains, "what came of it could not be stored: "+err.Error()
		}
		if err := s.Store.Record(ctx, &lodestone.Entry{At: time.Now().UTC(), Operator: &lodestone.OperatorEntry{
			By: ByCommand, Command: "forget", Subject: t.of.name, Detail: at.words(),
		}}); err != nil {
			at.State, at.Detail = StateRemains, "what came of it could not be put on record: "+err.Error()
		}
		list = append(list, at)
	}
	return list
}

// words say what came of it, for the record.
func (p *AtProvider) words() string {
	done := make([]string, 0, len(p.Deleted))
	for _, d := range p.Deleted {
		done = append(done, d.What+" "+d.Class)
	}
	text := p.Connector + ": " + p.State
	if p.Detail != "" {
		text += ", " + p.Detail
	}
	if len(done) > 0 {
		text += "; deleting: " + strings.Join(done, ", ")
	}
	return text
}

// forgetAt deletes what one account's provider holds of a person, each record behind the gate and on record, and looks
// whether anything is left.
func (s *Server) forgetAt(ctx context.Context, account string, t *elsewhere) (at AtProvider) {
	at = AtProvider{Connector: account, Operations: []string{}, State: StateRemains}
	remains := func(format string, args ...any) AtProvider {
		at.Detail = fmt.Sprintf(format, args...)
		return at
	}
	a := s.Accounts[account]
	if a == nil {
		return remains("connectors.%s has no settings here; give it some", account)
	}
	at.Operations = s.deleting(account)
	rem := t.accounts[account]
	held, err := a.Held(ctx, t.of.email, rem.IDs)
	if err != nil {
		return remains("what it holds could not be read: %s", said(err))
	}
	if len(held.Records) > 0 {
		// The provider may forget the opt-out with the person.
		sub, err := a.Unsubscribed(ctx, t.of.email)
		if err != nil {
			return remains("whether the person unsubscribed there could not be read, and would be lost: %s", said(err))
		}
		if sub.Unsubscribed {
			if err := s.keepOptOut(ctx, account, t.of.email); err != nil {
				return remains("that the person unsubscribed there could not be stored: %v", err)
			}
			at.Kept = append(at.Kept, "that the person unsubscribed there: here, under the keyed hash, and on the provider's own list where it has one")
		}
		for _, r := range held.Records {
			done, err := s.carryOut(ctx, &Call{Connector: account, Operation: r.Operation, Arguments: r.Arguments, By: ByCommand}, &t.of)
			if err != nil {
				return remains("a %s could not be deleted: %v", r.What, err)
			}
			at.Deleted = append(at.Deleted, Deleted{What: r.What, Operation: account + "." + r.Operation, Class: done.Class, Status: done.Status})
			if done.Class == ClassBlocked {
				return remains("the gate stopped it: %s", done.Detail)
			}
		}
		if held, err = a.Held(ctx, t.of.email, rem.IDs); err != nil {
			return remains("whether what was to be deleted is gone could not be read: %s", said(err))
		}
	}
	at.Kept = append(at.Kept, held.Kept...)
	switch now := time.Now(); {
	case len(held.Records) > 0:
		return remains("records of the person that it still holds: %d", len(held.Records))
	case held.Gap != "":
		return remains("%s", held.Gap)
	case now.Before(rem.After):
		return remains("something about the person was sent there a moment ago and may not show yet: look again after %s", rem.After.Truncate(time.Second).Add(time.Second).Format(time.RFC3339))
	}
	at.State = StateClear
	return at
}

// said is what is fit to be told of a fault of a reading.
func said(err error) string {
	var f *connectors.Fault
	if errors.As(err, &f) && f.Detail != "" {
		return f.Detail
	}
	return err.Error()
}

func (s *Server) keepOptOut(ctx context.Context, account string, email lodestone.Email) error {
	now := time.Now().UTC()
	results, err := s.Store.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
		if st.Suppression != nil {
			return sequencer.Change{}, nil
		}
		return sequencer.Plan(st.Lead, sequencer.Suppressed{Suppression: lodestone.Suppression{
			Email: email, Reason: "unsubscribed at the provider", Source: account, At: now,
		}}, s.Rulebook(), now)
	}}}})
	if err != nil {
		return err
	}
	return results[0].Err
}
