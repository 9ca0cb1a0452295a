package api_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// TestOneItem: an id is its sender's choice, so releasing or dropping by it never takes in more than the one that was
// meant, and no id at all means nothing.
func TestOneItem(t *testing.T) {
	ctx := t.Context()
	store, err := boltstore.Open(t.TempDir(), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	at := time.Now().UTC().Add(-time.Hour)
	item := func(seq uint64, email string) lodestone.Attention {
		return lodestone.Attention{
			ID: "web 4711", Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonQuarantined, Form: "guide", Email: lodestone.Email(email), At: at, Received: at, Seq: seq,
			Subject: "lodestone.forms.guide", Header: map[string][]string{"Nats-Msg-Id": {"web 4711"}}, Data: []byte(`{"email": "` + email + `"}`),
		}
	}
	if _, err := store.Commit(ctx, sequencer.Batch{Attention: []lodestone.Attention{
		item(1, "ada@example.com"), item(2, "grace@example.com"), item(3, "ada@example.com"),
		{ID: "web 4711", Kind: lodestone.AttentionConnector, At: at, Detail: "locked out"},
	}}); err != nil {
		t.Fatal(err)
	}
	book := operateBook(t)
	client := api.Direct((&api.Server{Store: store, Rulebook: func() *sequencer.Rulebook { return book }}).Handler())
	count := func(want int) {
		t.Helper()
		if _, n, err := store.Attention(ctx, 1); err != nil || n != want {
			t.Fatalf("%d items are left, want %d: %v", n, want, err)
		}
	}
	refused := func(path string, q any, status, items int) {
		t.Helper()
		var p *api.Problem
		if err := client.Call(ctx, "POST", path, nil, q, nil); !errors.As(err, &p) || p.Status != status || len(p.Items) != items {
			t.Errorf("%s %+v: %v, want %d and %d items to choose from", path, q, err, status, items)
		}
		count(4)
	}
	refused("/api/v1/release", api.Release{By: "ada"}, http.StatusBadRequest, 0)
	refused("/api/v1/release", api.Release{Chosen: api.Chosen{Item: "submission/1"}, By: "ada"}, http.StatusBadRequest, 0)
	refused("/api/v1/release", api.Release{Chosen: api.Chosen{ID: "web 4711"}, All: true, By: "ada"}, http.StatusBadRequest, 0)
	refused("/api/v1/release", api.Release{Chosen: api.Chosen{ID: "web 4711"}, By: "ada"}, http.StatusConflict, 3)
	refused("/api/v1/release", api.Release{Chosen: api.Chosen{ID: "web 4711", Item: "connector/0"}, By: "ada"}, http.StatusConflict, 0)
	refused("/api/v1/release", api.Release{Chosen: api.Chosen{ID: "web 4711", Item: "submission/4"}, By: "ada"}, http.StatusNotFound, 0)
	refused("/api/v1/release", api.Release{Chosen: api.Chosen{ID: "web 4711", Item: "the first"}, By: "ada"}, http.StatusBadRequest, 0)
	refused("/api/v1/drop", api.Drop{By: "ada"}, http.StatusBadRequest, 0)
	refused("/api/v1/drop", api.Drop{Chosen: api.Chosen{ID: "web 4711"}, By: "ada"}, http.StatusConflict, 4)

	var released api.Released
	if err := client.Call(ctx, "POST", "/api/v1/release", nil, api.Release{Chosen: api.Chosen{ID: "web 4711", Item: "submission/2"}, By: "ada"}, &released); err != nil {
		t.Fatal(err)
	}
	if len(released.Released) != 1 || released.Released[0].Email != "grace@example.com" {
		t.Errorf("released: %+v", released)
	}
	count(3)
	if p, err := store.Person(ctx, "ada@example.com", 1); err != nil || p.Lead != nil {
		t.Errorf("ada was taken in as well: %+v, %v", p.Lead, err)
	}
	var dropped api.Dropped
	if err := client.Call(ctx, "POST", "/api/v1/drop", nil, api.Drop{Chosen: api.Chosen{ID: "web 4711", Item: "submission/3"}, By: "ada"}, &dropped); err != nil {
		t.Fatal(err)
	}
	if len(dropped.Dropped) != 1 || dropped.Dropped[0].Item != "submission/3" {
		t.Errorf("dropped: %+v", dropped)
	}
	count(2)
	if err := client.Call(ctx, "POST", "/api/v1/release", nil, api.Release{Chosen: api.Chosen{ID: "web 4711"}, By: "ada"}, &released); err != nil {
		t.Errorf("the only submission that is left: %v", err)
	}
	count(1)
}

// A submission and a signal of one id and one place in their streams are two items, each with a name of its own.
func TestItemsOfTwoStreams(t *testing.T) {
	ctx := t.Context()
	store, err := boltstore.Open(t.TempDir(), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	item := func(subject string) lodestone.Attention {
		return lodestone.Attention{ID: "4711", Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonNoEmail, At: time.Now().UTC(), Seq: 1, Subject: subject}
	}
	if _, err := store.Commit(ctx, sequencer.Batch{Attention: []lodestone.Attention{item("lodestone.forms.guide"), item("lodestone.signals.opened")}}); err != nil {
		t.Fatal(err)
	}
	book := operateBook(t)
	client := api.Direct((&api.Server{Store: store, Rulebook: func() *sequencer.Rulebook { return book }}).Handler())
	var p *api.Problem
	if err := client.Call(ctx, "POST", "/api/v1/drop", nil, api.Drop{Chosen: api.Chosen{ID: "4711"}, By: "ada"}, nil); !errors.As(err, &p) || len(p.Items) != 2 {
		t.Fatalf("dropping both: %v, want to be asked which", err)
	}
	if got := [2]string{p.Items[0].Item, p.Items[1].Item}; got != [2]string{"submission/1", "signal/1"} {
		t.Errorf("the items are %q", got)
	}
	if err := client.Call(ctx, "POST", "/api/v1/drop", nil, api.Drop{Chosen: api.Chosen{ID: "4711", Item: "signal/1"}, By: "ada"}, nil); err != nil {
		t.Fatal(err)
	}
	if left, _, err := store.Attention(ctx, 10); err != nil || len(left) != 1 || left[0].IsSignal() {
		t.Errorf("left are %+v, %v; want the submission", left, err)
	}
}
