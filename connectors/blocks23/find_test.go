package blocks23_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/blocks23"
)

// Records of lists. The act was intended at 10:10:00.7.

const (
	before = "2026-03-06T10:08:00Z"
	since  = "2026-03-06T10:10:00Z"
)

func referral(id, email, created, more string) string {
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf(`{"id": %q, "type": "referral", "attributes": {"unique_id": %q, "status": "pending", "referred_email": %q, "created_at": %q%s}}`, id, id, email, created, more)
}

func keyed(id, touchpoint string) string {
	return referral(id, "ada@example.com", since, fmt.Sprintf(`"metadata": {"lodestone_touchpoint": %q}`, touchpoint))
}

// others are records that have nothing to do with the act.
func others(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = referral(fmt.Sprintf("o-%d", i), "bob@example.com", since, "")
	}
	return all
}

// paged answers with the page of a list that is asked for, and its counts.
func paged(records []string, size int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		from := min((page-1)*size, len(records))
		_, _ = fmt.Fprintf(w, `{"data": [%s], "meta": {"totalPages": %d, "totalRecords": %d}}`,
			strings.Join(records[from:min(from+size, len(records))], ", "), (len(records)+size-1)/size, len(records))
	}
}

func TestFindReferral(t *testing.T) {
	const counts = `"meta": {"totalPages": 1, "totalRecords": 1}`
	one := func(record string) string { return `{"data": [` + record + `], ` + counts + `}` }
	for _, c := range []struct {
		name string
		body string
		want connectors.FindingState
		says string // of the evidence
	}{
		{"ours", one(keyed("r-1", "e1.nudge")), connectors.Found, "status pending"},
		{"ours, in the SDK's field", one(referral("r-1", "", since, `"data": {"lodestone_touchpoint": "e1.nudge"}`)), connectors.Found, ""},
		{"ours, in the SDK's other field", one(referral("r-1", "", since, `"metadata": null, "payload": {"a": 1, "lodestone_touchpoint": "e1.nudge"}`)), connectors.Found, ""},
		{"ours, by an odd date and without an address", one(referral("r-1", "", "yesterday", `"metadata": {"lodestone_touchpoint": "e1.nudge"}`)), connectors.Found, ""},
		{"none at all", none, connectors.Absent, "list of 0"},
		{"another touchpoint of the same person", one(keyed("r-1", "e1.nudge2")), connectors.Absent, "list of 1"},
		{"somebody else's", one(referral("r-1", "bob@example.com", since, "")), connectors.Absent, ""},
		{"the same person's, from before", one(referral("r-1", "ada@example.com", before, "")), connectors.Absent, ""},
		{"the SDK's counts", `{"data": [], "meta": {"total_pages": 0, "total_count": 0}}`, connectors.Absent, ""},
		{"counts that are texts", `{"data": [], "meta": {"totalPages": "0", "totalRecords": "0"}}`, connectors.Absent, ""},
		{"records alone are counted", `{"data": [` + keyed("r-1", "other") + `], "meta": {"totalRecords": 1}}`, connectors.Absent, ""},

		{"the same person's since, without a key", one(referral("r-1", "ADA@Example.com ", since, "")), connectors.Unclear, "carries no key"},
		{"the same by a clock that is half a minute behind", one(referral("r-1", "ada@example.com", "2026-03-06T10:09:31Z", "")), connectors.Unclear, "carries no key"},
		{"the same, in the SDK's field", one(referral("r-1", "", since, `"referee_email": "ada@example.com"`)), connectors.Unclear, "carries no key"},
		{"the same, undated", one(referral("r-1", "ada@example.com", "", "")), connectors.Unclear, "carries no key"},
		{"metadata that is no object", one(referral("r-1", "ada@example.com", since, `"metadata": "{\"lodestone_touchpoint\": \"e1.nudge\"}"`)), connectors.Unclear, "carries no key"},
		{"one since without key and address", one(referral("r-1", "", since, "")), connectors.Unclear, "neither a key nor an address"},
		{"an address that is none", one(referral("r-1", "", since, `"referred_email": 7`)), connectors.Unclear, "neither a key nor an address"},
		{"no counts", `{"data": []}`, connectors.Unclear, "does not say how long"},
		{"counts that are none", `{"data": [], "meta": {"totalPages": 0, "totalRecords": "none"}}`, connectors.Unclear, "does not say how long"},
		{"a negative count", `{"data": [], "meta": {"totalPages": 0, "totalRecords": -1}}`, connectors.Unclear, "does not say how long"},
		{"more stated than shown", `{"data": [], "meta": {"totalPages": 1, "totalRecords": 1}}`, connectors.Unclear, "states 1 records, and 0"},
		{"less stated than shown", `{"data": [` + keyed("r-1", "x") + `], "meta": {"totalPages": 0, "totalRecords": 0}}`, connectors.Unclear, "states 0 records, and 1"},
		{"a record twice", `{"data": [` + keyed("r-1", "x") + `, ` + keyed("r-1", "x") + `], "meta": {"totalPages": 1, "totalRecords": 2}}`, connectors.Unclear, "states 2 records, and 1"},
		{"a record that is none", one("7"), connectors.Unclear, "cannot be read"},
		{"a record without an id", one(`{"attributes": {}}`), connectors.Unclear, "cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, 200, c.body, extra())
			f, err := a.Find(t.Context(), refer())
			if err != nil || f.State != c.want || (c.want == connectors.Found) != (f.Reference == "r-1") {
				t.Fatalf("Find = %+v, %v; want %s", f, err, c.want)
			}
			if f.Evidence == "" || !strings.Contains(f.Evidence, c.says) || strings.Contains(f.Evidence, "@") {
				t.Errorf("evidence = %q, want it to say %q and no address", f.Evidence, c.says)
			}
			if got := p.all()[0]; got.Path != "/sub/referrals/form-1/instances" || got.Query != "page=1&records=100" {
				t.Errorf("request = %+v", got)
			}
		})
	}
}

func TestFindTheAddressThatTheRuleGave(t *testing.T) {
	body := `{"data": [` + referral("r-1", "ada+work@example.com", since, "") + `], "meta": {"totalPages": 1, "totalRecords": 1}}`
	a, _ := serve(t, 200, body, extra())
	if f, err := a.Find(t.Context(), refer("email", "ada+work@example.com")); err != nil || f.State != connectors.Unclear {
		t.Errorf("Find = %+v, %v; want unclear: it may be this one", f, err)
	}
}

// Whichever way the list runs, what is new is found with few requests, and absence takes them all.
func TestWalk(t *testing.T) {
	list := others(500)
	newest := append([]string{keyed("r-1", "e1.nudge")}, list...)
	oldest := append(append([]string{}, list...), keyed("r-1", "e1.nudge"))
	middle := append(append(append([]string{}, list[:250]...), keyed("r-1", "e1.nudge")), list[250:]...)
	for _, c := range []struct {
		name     string
		records  []string
		size     int
		want     connectors.FindingState
		requests []string // the pages asked for
	}{
		{"newest first", newest, 100, connectors.Found, []string{"1"}},
		{"oldest first", oldest, 100, connectors.Found, []string{"1", "6"}},
		{"in the middle", middle, 100, connectors.Found, []string{"1", "6", "2", "5", "3"}},
		{"not there", list, 100, connectors.Absent, []string{"1", "5", "2", "4", "3"}},
		{"not there, two pages", list[:101], 100, connectors.Absent, []string{"1", "2"}},
		{"not there, a full page", list[:100], 100, connectors.Absent, []string{"1"}},
		{"pages that are cut down", list[:40], 15, connectors.Absent, []string{"1", "3", "2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := handle(t, extra(), paged(c.records, c.size))
			f, err := a.Find(t.Context(), refer())
			var pages []string
			for _, r := range p.all() {
				pages = append(pages, strings.TrimSuffix(strings.TrimPrefix(r.Query, "page="), "&records=100"))
			}
			if err != nil || f.State != c.want || strings.Join(pages, " ") != strings.Join(c.requests, " ") {
				t.Errorf("Find = %+v, %v after pages %v; want %s after %v", f, err, pages, c.want, c.requests)
			}
		})
	}
}

// What moves under a walk is never taken for absence.
func TestWalkOverAListThatChanges(t *testing.T) {
	list := others(300)
	made := others(301)[300:]
	swapped := append(append([]string{}, list[1:]...), made...)
	for _, c := range []struct {
		name  string
		pages [][]string // the list at each request
		want  string
	}{
		{"one was made", [][]string{list, append(made[:1:1], list...), append(made[:1:1], list...)}, "changed its length"},
		{"one was deleted", [][]string{list, list[1:], list[1:]}, "changed its length"},
		{"one was deleted, then another made", [][]string{list, list[1:], swapped}, "changed its length"},
		{"one was exchanged on a page that was read", [][]string{list, list, append(made[:1:1], list[1:]...)}, ""},
		{"the order was turned round", [][]string{list, list[200:], list[:100]}, "changed its length"},
	} {
		t.Run(c.name, func(t *testing.T) {
			requests := 0
			a, _ := handle(t, extra(), func(w http.ResponseWriter, r *http.Request) {
				paged(c.pages[requests], 100)(w, r)
				requests++ // one at a time
			})
			f, err := a.Find(t.Context(), refer())
			if c.want == "" { // every record that was there from the start was seen
				if err != nil || f.State != connectors.Absent {
					t.Errorf("Find = %+v, %v; want absent", f, err)
				}
				return
			}
			if err != nil || f.State != connectors.Unclear || !strings.Contains(f.Evidence, c.want) {
				t.Errorf("Find = %+v, %v; want unclear: %s", f, err, c.want)
			}
		})
	}
	t.Run("records came twice and others not at all", func(t *testing.T) {
		a, _ := handle(t, extra(), func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			q.Set("page", "1") // whatever was asked for
			r.URL.RawQuery = q.Encode()
			paged(list, 100)(w, r)
		})
		f, err := a.Find(t.Context(), refer())
		if err != nil || f.State != connectors.Unclear || !strings.Contains(f.Evidence, "states 300 records, and 100") {
			t.Errorf("Find = %+v, %v; want unclear", f, err)
		}
	})
}

func TestWalkIsBounded(t *testing.T) {
	long := paged(others(6000), 100)
	t.Run("by its length", func(t *testing.T) {
		a, p := handle(t, extra(), long)
		f, err := a.Find(t.Context(), refer())
		if n := len(p.all()); err != nil || f.State != connectors.Unclear || n != 50 || !strings.Contains(f.Evidence, "60 pages, and 50") {
			t.Errorf("Find = %+v, %v after %d requests; want unclear after 50", f, err, n)
		}
	})
	t.Run("by a list that repeats itself", func(t *testing.T) {
		a, p := serve(t, 200, `{"data": [`+keyed("r-1", "other")+`]}`, extra())
		f, err := a.Find(t.Context(), refer())
		if n := len(p.all()); err != nil || f.State != connectors.Unclear || n != 2 {
			t.Errorf("Find = %+v, %v after %d requests; want unclear after 2", f, err, n)
		}
	})
	t.Run("by a list without counts that goes on for ever", func(t *testing.T) {
		a, p := handle(t, extra(), func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"data": [`+keyed("r-"+r.URL.Query().Get("page"), "other")+`]}`)
		})
		f, err := a.Find(t.Context(), refer())
		if n := len(p.all()); err != nil || f.State != connectors.Unclear || n != 50 {
			t.Errorf("Find = %+v, %v after %d requests; want unclear after 50", f, err, n)
		}
	})
	t.Run("by the time there is", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, p := handle(t, extra(), long)
		a := p.open(t, connectors.Settings{Rate: 4, Extra: extra(), Suppression: connectors.SuppressionLocalOnly})
		f, err := a.Find(ctx, refer())
		if n := len(p.all()); err != nil || f.State != connectors.Unclear || n > 8 || !strings.Contains(f.Evidence, "time was up") {
			t.Errorf("Find = %+v, %v after %d requests; want unclear for want of time", f, err, n)
		}
	})
}

// A look-up whose turn comes too late is made again later; it is not the list that was too long.
func TestWalksTakeTurns(t *testing.T) {
	holding, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	a, _ := handle(t, extra(), func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("page") != "1" {
			once.Do(func() {
				close(holding)
				<-release
			})
		}
		paged(others(300), 100)(w, r)
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if f, err := a.Find(t.Context(), refer()); err != nil || f.State != connectors.Absent {
			t.Errorf("Find of the first = %+v, %v; want absent", f, err)
		}
	})
	<-holding
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	f, err := a.Find(ctx, refer())
	var fault *connectors.Fault
	if !errors.As(err, &fault) || fault.Class != connectors.Failed || !strings.Contains(fault.Detail, "other look-ups") {
		t.Errorf("Find of the second = %+v, %v; want a failed look-up", f, err)
	}
	close(release)
	wg.Wait()
}

// A page that fails is no answer about the list: the look-up is made again later.
func TestWalkOverAPageThatFails(t *testing.T) {
	for _, status := range []int{400, 404, 429, 500} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			a, _ := handle(t, extra(), func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("page") == "2" {
					w.WriteHeader(status)
					return
				}
				paged(others(300), 100)(w, r)
			})
			f, err := a.Find(t.Context(), refer())
			var fault *connectors.Fault
			if !errors.As(err, &fault) || f != (connectors.Finding{}) {
				t.Errorf("Find = %+v, %v; want a fault", f, err)
			}
		})
	}
}

func TestFindChange(t *testing.T) {
	change := act("updateReferral", map[string]any{"unique_id": "r-1", "status": "converted", "reward_amount": 25.0, "referred_name": "Ada"})
	is := func(attributes string) string {
		return `{"data": {"id": "r-1", "attributes": {` + attributes + `}}}`
	}
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   connectors.FindingState
	}{
		{"in place", 200, is(`"status": "converted", "reward_amount": 25, "referred_name": "Ada"`), connectors.Found},
		{"a decimal that is a text", 200, is(`"status": "converted", "reward_amount": "25.00", "referred_name": "Ada"`), connectors.Found},
		{"the SDK's names", 200, is(`"status": "converted", "reward_amount": 25, "referee_name": "Ada"`), connectors.Found},
		{"one field differs", 200, is(`"status": "converted", "reward_amount": 20, "referred_name": "Ada"`), connectors.Unclear},
		{"one field is not set", 200, is(`"status": "converted", "reward_amount": null, "referred_name": "Ada"`), connectors.Unclear},
		{"nothing is there", 200, is(``), connectors.Unclear},
		{"another referral", 200, `{"data": {"id": "r-2", "attributes": {"status": "converted"}}}`, connectors.Unclear},
		{"gone", 404, `{"errors": [{"code": "not_found"}]}`, connectors.Unclear},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, c.status, c.body, extra())
			if f, err := a.Find(t.Context(), change); err != nil || f.State != c.want || f.Evidence == "" {
				t.Errorf("Find = %+v, %v; want %s", f, err, c.want)
			}
			if got := p.only(t); got.Method != "GET" || got.Path != "/sub/referrals/form-1/instances/r-1" {
				t.Errorf("request = %+v", got)
			}
		})
	}
}

func TestFindDeletion(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   connectors.FindingState // empty: an error
	}{
		{"gone", 404, `{"errors": [{"status": "404", "code": "not_found", "detail": "No such referral"}]}`, connectors.Found},
		{"marked as deleted", 200, strings.Replace(made, "pending", "Deleted", 1), connectors.Found},
		{"still there", 200, made, connectors.Absent},
		{"another referral", 200, strings.ReplaceAll(made, "r-1", "r-2"), connectors.Unclear},
		{"a path that does not exist", 404, `{"error": "Not Found", "message": "No route matches"}`, ""},
		{"a 404 without words", 404, `{}`, ""},
		{"an error", 400, `{"errors": [{"code": "not_found"}]}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := serve(t, c.status, c.body, extra())
			f, err := a.Find(t.Context(), act("deleteReferral", map[string]any{"unique_id": "r-1"}))
			if (err != nil) != (c.want == "") || f.State != c.want {
				t.Errorf("Find = %+v, %v; want %q", f, err, c.want)
			}
		})
	}
}

func TestFindWithoutAsking(t *testing.T) {
	for operation, want := range map[string]connectors.FindingState{
		"getReferral": connectors.Absent, "listReferrals": connectors.Absent, "invite": connectors.Unsupported,
	} {
		a, p := serve(t, 200, none, extra())
		if f, err := a.Find(t.Context(), act(operation, nil)); err != nil || f.State != want || len(p.all()) != 0 {
			t.Errorf("Find(%s) = %+v, %v after %d requests; want %s after none", operation, f, err, len(p.all()), want)
		}
	}
	for _, operation := range []string{"updateReferral", "deleteReferral"} {
		a, p := serve(t, 200, none, extra())
		if f, err := a.Find(t.Context(), act(operation, nil)); err != nil || f.State != connectors.Unclear || len(p.all()) != 0 {
			t.Errorf("Find(%s of nothing) = %+v, %v; want unclear", operation, f, err)
		}
	}
}

// repeat gives a record many times.
func repeat(record string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = record
	}
	return all
}

func subscription(id, email, status, subscribed, unsubscribed string) string {
	raw, _ := json.Marshal(map[string]any{"id": id, "type": "subscription", "attributes": map[string]any{
		"unique_id": id, "email": email, "status": status, "subscribed_at": subscribed, "unsubscribed_at": json.RawMessage(unsubscribed),
	}})
	return string(raw)
}

func TestUnsubscribed(t *testing.T) {
	const jan, may, june = "2026-01-10T10:30:00Z", `"2026-05-01T07:00:00Z"`, "2026-06-01T07:00:00Z"
	ended, active := subscription("s-1", "ada@example.com", "unsubscribed", jan, may), subscription("s-2", "ada@example.com", "active", jan, "null")
	for _, c := range []struct {
		name         string
		records      []string
		unsubscribed bool
		fails        string // what the error says
	}{
		{name: "nobody subscribed"},
		{name: "active", records: []string{active}},
		{name: "ended", records: []string{ended}, unsubscribed: true},
		{name: "ended, in other letters", records: []string{subscription("s-1", " ADA@Example.com", "Unsubscribed", jan, "null")}, unsubscribed: true},
		{name: "one of two ended", records: []string{active, ended}, unsubscribed: true},
		{name: "another person's ended", records: []string{subscription("s-1", "bob@example.com", "unsubscribed", jan, may)}},
		{name: "active again", records: []string{subscription("s-1", "ada@example.com", "active", june, may)}},
		{name: "active, and ended since", records: []string{subscription("s-1", "ada@example.com", "active", jan, may)}, unsubscribed: true},
		{name: "active, and ended some time", records: []string{subscription("s-1", "ada@example.com", "active", june, `"yes"`)}, unsubscribed: true},
		{name: "active, and ended by a number", records: []string{subscription("s-1", "ada@example.com", "active", june, `1777618800`)}, unsubscribed: true},
		{name: "another person's status is odd", records: []string{subscription("s-1", "bob@example.com", "bounced", jan, "null")}},
		{name: "an active one without an address", records: []string{subscription("s-1", "", "active", jan, "null")}},
		{name: "the status is odd", records: []string{subscription("s-1", "ada@example.com", "bounced", jan, "null")}, fails: "not understood"},
		{name: "the status is odd, and another has ended", records: []string{subscription("s-2", "ada@example.com", "", jan, "null"), ended}, unsubscribed: true},
		{name: "one that ended has no address", records: []string{subscription("s-1", "", "unsubscribed", jan, may)}, fails: "no address"},
		{name: "one cannot be read", records: []string{active, "null"}, fails: "cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := handle(t, extra(blocks23.SubscriptionForm, "news"), paged(c.records, 100))
			s, err := a.Unsubscribed(t.Context(), "ada@example.com")
			switch {
			case c.fails != "":
				var f *connectors.Fault
				if !errors.As(err, &f) || f.Class != connectors.Failed || !strings.Contains(f.Detail, c.fails) || strings.Contains(f.Detail, "@") || s.Unsubscribed {
					t.Errorf("Unsubscribed = %+v, %v; want a failed check that says %q", s, err, c.fails)
				}
			case err != nil || s.Unsubscribed != c.unsubscribed || s.Kind != connectors.SuppressionProvider || s.Evidence == "":
				t.Errorf("Unsubscribed = %+v, %v; want %t", s, err, c.unsubscribed)
			}
			if got := p.all()[0]; got.Path != "/sub/subscriptions/news/instances" || got.Query != "page=1&records=100" {
				t.Errorf("request = %+v", got)
			}
		})
	}
	t.Run("on the last page", func(t *testing.T) {
		var list []string
		for i := range 250 {
			list = append(list, subscription(fmt.Sprintf("o-%d", i), "bob@example.com", "active", jan, "null"))
		}
		a, _ := handle(t, extra(blocks23.SubscriptionForm, "news"), paged(append(list, ended), 100))
		if s, err := a.Unsubscribed(t.Context(), "ada@example.com"); err != nil || !s.Unsubscribed {
			t.Errorf("Unsubscribed = %+v, %v; want an address that opted out", s, err)
		}
	})
	t.Run("of a list that is too long", func(t *testing.T) {
		a, _ := handle(t, extra(blocks23.SubscriptionForm, "news"), paged(repeat(active, 6000), 100))
		if s, err := a.Unsubscribed(t.Context(), "ada@example.com"); err == nil || !strings.Contains(err.Error(), "60 pages") {
			t.Errorf("Unsubscribed = %+v, %v; want an error that says how long the list is", s, err)
		}
	})
}
