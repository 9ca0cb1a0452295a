package app

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/internal/links"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// personLink makes the links of expressions. Without a public address there are none: a link in a
// message must work where the message is read.
func personLink(sealer *links.Sealer, publicURL string) func(string, lodestone.Email, time.Time) string {
	if publicURL == "" {
		return nil
	}
	purposes := map[string]links.Purpose{"unsubscribe": links.Unsubscribe, "confirm": links.Confirm}
	return func(name string, email lodestone.Email, now time.Time) string {
		return gateway.Link(sealer, publicURL, purposes[name], email, now)
	}
}

// Links makes the links of expressions as a worker of the store would; nil without a public address.
func Links(store *boltstore.Store, publicURL string) (func(string, lodestone.Email, time.Time) string, error) {
	key, err := store.LinkKey()
	if err != nil {
		return nil, err
	}
	sealer, err := links.New(key)
	if err != nil {
		return nil, err
	}
	return personLink(sealer, publicURL), nil
}

// Seal is what the gateway of a store seals with what it observes.
func Seal(store *boltstore.Store) (*event.Seal, error) {
	key, err := store.LinkKey()
	if err != nil {
		return nil, err
	}
	return event.NewSeal(key)
}

// people serves the links that people are given.
func (w *Worker) people() http.Handler {
	o := gateway.PeopleOptions{Links: w.links, Registerer: w.metrics.registry, Log: w.log}
	if w.broker != nil { // without one the data directory is an unclaimed copy
		o.Act = w.chosen
	}
	return gateway.People(o)
}

// chosen carries out what a person chose, by a link that was made when they were asked. An opt-out is in force when this returns: it is committed
// before the signal is published, which tells rules and events of it.
func (w *Worker) chosen(ctx context.Context, purpose links.Purpose, email lodestone.Email, asked time.Time) error {
	now := time.Now().UTC()
	kind := lodestone.SignalConfirmed
	erased := false // and not known since: nobody is told, because the news would name them
	if purpose == links.Unsubscribe {
		kind = lodestone.SignalUnsubscribed
		fresh := false
		results, err := w.store.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			fresh, erased = st.Suppression == nil, st.Lead == nil && !st.Erased.IsZero()
			if !fresh {
				return sequencer.Change{}, nil
			}
			return sequencer.Plan(st.Lead, sequencer.Suppressed{Suppression: lodestone.Suppression{
				Email: email, Reason: "unsubscribed by the link in a message", Source: "link", At: now,
			}}, w.book.Load(), now)
		}}}})
		if err != nil {
			return err
		}
		if err := results[0].Err; err != nil {
			return err
		}
		if !fresh {
			return nil
		}
		w.committed(&results[0].Change)
	} else if st, err := w.store.State(ctx, email); err != nil || st.Lead == nil {
		// Who was erased is not to be known again by a link that is still about.
		return cmp.Or(err, gateway.ErrUnknownPerson)
	} else if _, already := st.Lead.Confirmed(); already {
		return nil
	} else if no := st.Suppression; no != nil && !no.At.Before(asked) || !st.Lead.Answers(asked) {
		return gateway.ErrOutdated
	}
	if erased {
		return nil
	}
	err := w.signal(ctx, kind, email, now, asked)
	if err != nil && kind == lodestone.SignalUnsubscribed {
		w.log.WarnContext(ctx, "an opt-out is in force, but the signal that tells of it could not be published", "error", err)
		return nil
	}
	return err
}

func (w *Worker) signal(ctx context.Context, kind lodestone.SignalKind, email lodestone.Email, at, asked time.Time) error {
	subject, err := event.SignalSubject(kind)
	if err != nil {
		return err
	}
	// Who presses again within a minute says nothing new: the stream drops what has the same id. It is sealed
	// because the address follows from a bare hash.
	sum := sha256.Sum256([]byte(w.links.Seal("signal", fmt.Appendf(nil, "%s %s %d %d", kind, email, asked.UnixNano(), at.Unix()/60), time.Time{})))
	id := hex.EncodeToString(sum[:16])
	detail := map[string]any{"connector": "link"}
	if !asked.IsZero() {
		detail[lodestone.DetailAsked] = asked // Plan decides whether it counts
	}
	body, err := json.Marshal(map[string]any{
		"specversion": "1.0", "type": event.TypeSignal, "source": "/links", "id": id, "datacontenttype": "application/json",
		"data": map[string]any{"email": email, "at": at, "detail": detail},
	})
	if err != nil {
		return err
	}
	return syncedPublisher{w.broker}.PublishBatch(ctx, []*nats.Msg{{
		Subject: subject, Header: nats.Header{"Content-Type": {event.ContentType}, nats.MsgIdHdr: {id}}, Data: body,
	}})
}
