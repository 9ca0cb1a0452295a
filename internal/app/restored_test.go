package app

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

const restoreRules = `
forms:
  guide:
    fields:
      email: {type: email, required: true}
      code: {type: text}
scoring:
  bands: {any: 0}
sequences:
  refer:
    when: fields.code != nil
    priority: 1
    steps:
      - {name: one, after: 1s, do: eu.refer, with: {referralCode: '${fields.code}'}}
      - {name: two, after: 1s, do: eu.refer, with: {referralCode: '${fields.code}'}}
  invite:
    when: 'true'
    steps:
      - {name: invite, after: 1s, do: eu.invite, with: {firstName: there}}
`

// A store is restored from a backup that was made before anything was sent, and the events that tell
// of it are there, or gone: then the provider is asked. Nothing goes out twice.
func TestRestoredWithoutEvents(t *testing.T) {
	for _, events := range []bool{true, false} {
		t.Run(fmt.Sprintf("events=%v", events), func(t *testing.T) {
			r := newRig(t)
			r.rules, r.settings.Settle = restoreRules, time.Second
			w := r.open()
			stop := r.start(w)
			publish(t, w, "lodestone.forms.guide", `{"email":"ref@example.com","code":"INES1042"}`)
			publish(t, w, "lodestone.forms.guide", `{"email":"inv@example.com"}`)
			for range 2 {
				r.until(func(e lodestone.Entry) bool { return e.Decision != nil })
			}
			file := filepath.Join(t.TempDir(), "b.db")
			if _, err := boltstore.WriteBackup(t.Context(), file, nil, func(to io.Writer) error { _, err := w.store.Backup(t.Context(), to); return err }); err != nil {
				t.Fatal(err)
			}
			ended := func(want int) {
				for n := 0; n < want; {
					r.until(func(e lodestone.Entry) bool {
						for _, x := range e.Touchpoints {
							if x.State == lodestone.TouchpointSent || x.State == lodestone.TouchpointHeld {
								n++
							}
						}
						return n >= want
					})
				}
			}
			ended(3)
			told, err := w.Broker().JetStream().OrderedConsumer(t.Context(), broker.EventsStream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{"lodestone.events.touchpoint.sent"}})
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if _, err := told.Next(jetstream.FetchMaxWait(time.Minute)); err != nil {
					t.Fatal(err)
				}
			}
			stop()
			acts := r.acts.Load()
			if acts != 3 {
				t.Fatalf("%d acts, want 3", acts)
			}
			// The file is lost with all that it knew.
			if err := os.WriteFile(filepath.Join(r.dir, boltstore.FileName), []byte("gone"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := boltstore.Restore(t.Context(), r.dir, file, time.Now().UTC()); err != nil {
				t.Fatal(err)
			}
			s, err := boltstore.Open(r.dir, boltstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Claim(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Close()
			w = r.open()
			if !events {
				stream, err := w.Broker().JetStream().Stream(t.Context(), broker.EventsStream)
				if err != nil {
					t.Fatal(err)
				}
				if err := stream.Purge(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			stop = r.start(w)
			ended(3)
			states := func(email lodestone.Email) string {
				p, err := w.store.Person(context.Background(), email, 100)
				if err != nil {
					t.Fatal(err)
				}
				var list []string
				for i := len(p.History) - 1; i >= 0; i-- {
					for _, x := range p.History[i].Touchpoints {
						if x.State == lodestone.TouchpointSent || x.State == lodestone.TouchpointHeld {
							list = append(list, fmt.Sprintf("%s %s %s", x.Step, x.State, x.Reason))
						}
					}
				}
				return strings.Join(list, ", ")
			}
			ref, inv := states("ref@example.com"), states("inv@example.com")
			faults, err := w.store.Check(t.Context())
			if err != nil || len(faults) > 0 {
				t.Errorf("the store: %v %v", err, faults)
			}
			stop()
			if n := r.acts.Load(); n != acts {
				t.Errorf("%d acts after the restore, want none", n-acts)
			}
			wantRef, wantInv := "one sent accepted, two sent accepted", "invite sent accepted"
			if !events {
				wantRef, wantInv = "one sent found, two sent found", "invite sent found"
			}
			if ref != wantRef || inv != wantInv {
				t.Errorf("%q and %q, want %q and %q", ref, inv, wantRef, wantInv)
			}
		})
	}
}
