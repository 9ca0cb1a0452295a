package api_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/connectortest"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// callRig is the API with a provider behind it; onCheck is told when the provider is asked who
// unsubscribed.
type callRig struct {
	t       *testing.T
	store   *boltstore.Store
	client  *api.Client
	box     *sandbox.Server
	posts   atomic.Int64
	onCheck func()
}

func newCallRig(t *testing.T, dir string) *callRig {
	t.Helper()
	r := &callRig{t: t}
	box := sandbox.New(sandbox.Options{})
	r.box = box
	t.Cleanup(box.Close)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost {
			r.posts.Add(1)
		} else if r.onCheck != nil && strings.Contains(req.URL.Path, "unsubscribed") {
			r.onCheck()
		}
		http.StripPrefix("", box.Handler()).ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	opened := openCallRig(t, dir, connectors.Settings{BaseURL: server.URL + "/referralrock"})
	r.store, r.client = opened.store, opened.client
	return r
}

// openCallRig makes the API of an account with these settings.
func openCallRig(t *testing.T, dir string, settings connectors.Settings, opts ...connectors.Option) *callRig {
	t.Helper()
	r := &callRig{t: t}
	settings.Rate, settings.Secrets = 1000, map[string]connectors.Secret{"public_key": "public", "private_key": "private"}
	a, err := connectors.Open(referralrock.Kind(), settings, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if r.store, err = boltstore.Open(dir, boltstore.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.store.Close() })
	s := &api.Server{Store: r.store, Rulebook: func() *sequencer.Rulebook { return nil }, Accounts: map[string]*connectors.Account{"referralrock": a}}
	r.client = api.Direct(s.Handler())
	return r
}

func (r *callRig) call(operation string, arguments map[string]any, by string) (done api.Called, err error) {
	err = r.client.Call(r.t.Context(), http.MethodPost, "/api/v1/calls", nil, api.Call{Connector: "referralrock", Operation: operation, Arguments: arguments, By: by}, &done)
	return done, err
}

func (r *callRig) suppress(email string) {
	r.t.Helper()
	if err := r.client.Call(r.t.Context(), http.MethodPost, "/api/v1/suppressions", nil, api.Suppress{Emails: []string{email}}, nil); err != nil {
		r.t.Fatal(err)
	}
}

// records are the classes of the calls on record, in order.
func (r *callRig) records() (classes []string, all string) {
	r.t.Helper()
	entries, err := r.store.Journal(context.Background(), 0, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Call != nil {
			classes = append(classes, e.Call.Class)
			all += e.Call.Arguments + e.Call.Detail
		}
	}
	return classes, all
}

func TestACallIsOnRecordBeforeAndAfter(t *testing.T) {
	r := newCallRig(t, t.TempDir())
	done, err := r.call("createInviteFeedEntry", map[string]any{"firstName": "Ada", "email": "ada@example.com"}, api.ByCommand)
	if err != nil || done.Class != "ok" || r.posts.Load() != 1 {
		t.Fatalf("call = %+v, %v, %d requests", done, err, r.posts.Load())
	}
	classes, all := r.records()
	if strings.Join(classes, " ") != "intended ok" {
		t.Errorf("on record: %v, want what was intended and what came of it", classes)
	}
	if strings.Contains(all, "ada@") || strings.Contains(all, "Ada") {
		t.Errorf("the record names the person: %s", all)
	}
}

func TestTheGateIsNotPassedBySpelling(t *testing.T) {
	r := newCallRig(t, t.TempDir())
	r.suppress("ada@example.com")
	for _, email := range []string{
		"ada@example.com", "ADA@Example.com", "Ada <ada@example.com>", "ada@example.com;", "ada%40example.com",
		"ada@example.com, eve@example.com", "\u200bada@example.com", "ada\uff20example.com",
	} {
		done, err := r.call("createReferral", map[string]any{"referralCode": "ADA2026", "email": email}, api.ByCommand)
		if err == nil && done.Class != api.ClassBlocked {
			t.Errorf("%q: %+v, want it stopped", email, done)
		}
	}
	if n := r.posts.Load(); n != 0 {
		t.Errorf("%d acts reached the provider", n)
	}
}

func TestWhatBecomesKnownDuringTheCheckStopsTheCall(t *testing.T) {
	r := newCallRig(t, t.TempDir())
	r.onCheck = func() { r.suppress("ada@example.com") }
	done, err := r.call("createInviteFeedEntry", map[string]any{"firstName": "Ada", "email": "ada@example.com"}, api.ByCommand)
	if err != nil || done.Class != api.ClassBlocked || r.posts.Load() != 0 {
		t.Errorf("call = %+v, %v, %d acts; want it stopped", done, err, r.posts.Load())
	}
}

// Another command holds the account's only place while this one is through with its checks. Nothing may
// come between them and the act.
func TestNothingComesBetweenTheChecksAndTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wire := connectortest.NewWire()
		box := sandbox.New(sandbox.Options{})
		var seen []string
		asked, let := make(chan struct{}, 1), make(chan struct{})
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			seen = append(seen, req.Method+" "+path.Base(req.URL.Path)) // one at a time: there is one place
			if strings.Contains(req.URL.Path, "unsubscribed") {
				asked <- struct{}{}
				<-let
			}
			box.Handler().ServeHTTP(w, req)
		})}
		served := make(chan struct{})
		go func() { defer close(served); _ = server.Serve(wire) }()
		defer func() { server.Close(); <-served; box.Close() }()
		r := openCallRig(t, t.TempDir(), connectors.Settings{BaseURL: "http://127.0.0.1/referralrock", Concurrency: 1}, connectors.WithDial(wire.Dial))
		r.box = box

		var done api.Called
		called := make(chan error, 1)
		go func() {
			var err error
			done, err = r.call("createInviteFeedEntry", map[string]any{"firstName": "Ada", "email": "ada@example.com"}, api.ByCommand)
			called <- err
		}()
		<-asked
		listed := make(chan error, 1)
		go func() { _, err := r.call("listMembers", nil, api.ByCommand); listed <- err }()
		synctest.Wait() // it waits for the place
		close(let)
		if err := errors.Join(<-called, <-listed); err != nil || done.Class != "ok" {
			t.Fatalf("call = %+v, %v", done, err)
		}
		if len(seen) != 3 || !strings.HasPrefix(seen[1], "POST") {
			t.Errorf("the provider was asked for %q, want the act right after its check", seen)
		}
	})
}

func TestOnlyPeopleResubscribe(t *testing.T) {
	r := newCallRig(t, t.TempDir())
	_, err := r.call("removeEmailUnsubscribe", map[string]any{"email": "unsubscribed@example.com"}, "persona nora")
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != http.StatusForbidden || r.posts.Load() != 0 {
		t.Errorf("a persona: %v, %d requests; want 403 and none", err, r.posts.Load())
	}
	if done, err := r.call("removeEmailUnsubscribe", map[string]any{"email": "unsubscribed@example.com"}, api.ByCommand); err != nil || done.Class != "ok" {
		t.Errorf("a person: %+v, %v", done, err)
	}
}

func TestACopyAsksNobodyAnything(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	s, err := boltstore.Open(dir, boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	data, err := os.ReadFile(filepath.Join(dir, boltstore.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, boltstore.FileName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newCallRig(t, other)
	for _, operation := range []string{"listMembers", "createInviteFeedEntry"} {
		done, err := r.call(operation, map[string]map[string]any{"createInviteFeedEntry": {"firstName": "Ada", "email": "ada@example.com"}}[operation], api.ByCommand)
		if err != nil || done.Class != api.ClassBlocked {
			t.Errorf("%s on a copy: %+v, %v; want it stopped", operation, done, err)
		}
	}
}

func TestSecretsStayOutOfTheRecord(t *testing.T) {
	r := newCallRig(t, t.TempDir())
	if _, err := r.call("createMember", map[string]any{
		"programId": "6f1d2c44-0a7e-4c55-9a51-2f9f6d1f0b10", "firstName": "Mary", "email": "mary.o'hara@example.com", "password": "hunter2secret",
	}, api.ByCommand); err != nil {
		t.Fatal(err)
	}
	_, all := r.records()
	for _, hidden := range []string{"hunter2", "mary", "o'hara", "Mary"} {
		if strings.Contains(all, hidden) {
			t.Errorf("%q is on record: %s", hidden, all)
		}
	}
}

// A person named by an id alone is matched against opt-outs by the address behind it.
func TestOptOutsOfPeopleNamedByAnID(t *testing.T) {
	const tomas, owed = "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e03", "9a4f0c1e-55aa-4b6b-8d0f-1f2e3d4c5b06"
	r := newCallRig(t, t.TempDir())
	qualify := func() (api.Called, error) {
		return r.call("updateReferralStatus", map[string]any{"referralId": tomas, "status": "qualified"}, api.ByCommand)
	}
	evidence := func(done api.Called) (all string) {
		for _, v := range done.Verdicts {
			all += v.Evidence + "; "
		}
		return all
	}
	if done, err := qualify(); err != nil || done.Class != "ok" || !strings.Contains(evidence(done), "referralId was looked up") || !strings.Contains(evidence(done), "not on the suppression list") {
		t.Errorf("call = %+v, %v; want it done after the person behind the id was cleared", done, err)
	}
	r.suppress("tomas.blei@example.com")
	if done, err := qualify(); err != nil || done.Class != api.ClassBlocked || !strings.Contains(done.Detail, "suppressed") {
		t.Errorf("call = %+v, %v; want it stopped by the opt-out of the person behind the id", done, err)
	}
	if n := r.posts.Load(); n != 1 {
		t.Errorf("%d acts reached the provider, want 1", n)
	}
	if done, err := r.call("issueReward", map[string]any{"rewardId": owed}, api.ByCommand); err != nil || done.Class != "ok" || !strings.Contains(evidence(done), "rewardId stands for somebody, and the provider does not tell for whom") {
		t.Errorf("call = %+v, %v; want a verdict that says that it could not be matched", done, err)
	}
	if _, all := r.records(); strings.Contains(all, "tomas.blei") {
		t.Errorf("the record names the person: %s", all)
	}
}

// When the question who stands behind an id fails, nothing is sent.
func TestAFailedQuestionStopsTheCall(t *testing.T) {
	r := newCallRig(t, t.TempDir())
	if err := r.box.Fault(sandbox.Fault{Kind: sandbox.Fault500, Operation: "getReferral"}); err != nil {
		t.Fatal(err)
	}
	done, err := r.call("updateReferralStatus", map[string]any{"referralId": "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e03", "status": "qualified"}, api.ByCommand)
	if err != nil || done.Class != api.ClassBlocked || done.Verdicts[len(done.Verdicts)-1].Reason != lodestone.ReasonCheckFailed {
		t.Errorf("call = %+v, %v; want it stopped, because it could not be known", done, err)
	}
	if n := r.posts.Load(); n != 0 {
		t.Errorf("%d acts reached the provider", n)
	}
}
