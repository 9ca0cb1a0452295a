// Package console is what a person sees in a browser: how the worker is, what waits, what needs a human and what to
// do about it, and one lead with the reasons for everything.
//
// It shows, and lets an operator release or drop what could not be used. It asks the API and has no data of its own. Its pages need no script, load nothing,
// and repeat nothing unescaped; no address of a person stands in the address of a page, where proxies and browsers
// would keep it.
package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/access"
	"github.com/lodestonehq/lodestone/internal/api"
)

// Door signs people in and out; an [access.Guard] does.
type Door interface {
	Login(w http.ResponseWriter, r *http.Request, name, password string) *access.Refusal
	Logout(w http.ResponseWriter, r *http.Request)
}

// Options of [New].
type Options struct {
	Client *api.Client
	// Ready says why the worker is not ready, and what is amiss although it is.
	Ready func() (reasons, warnings []string)
	Log   *slog.Logger // nil: silent
}

// Console serves the pages.
type Console struct {
	Options
	// Door must be set before a page is served.
	Door Door
}

// New makes a console.
func New(o Options) *Console {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Console{Options: o}
}

// Routes are the pages and what they need.
func (c *Console) Routes() []access.Route {
	page := func(pattern string, need access.Need, fn http.HandlerFunc) access.Route {
		return access.Route{Pattern: pattern, Need: need, Handler: fn, Page: true}
	}
	home := func(w http.ResponseWriter, _ *http.Request) { to(w, "/") }
	return []access.Route{
		page("GET /{$}", access.NeedRead, c.start),
		page("POST /lead", access.NeedRead, c.lead),
		page("GET /lead", access.NeedRead, home), // what was looked up is in no address, so there is nothing to come back to
		page("POST /attention", access.NeedOperate, c.settle),
		page("GET /attention", access.NeedRead, home),
		page("GET /login", access.NeedPassword, c.loginPage),
		page("POST /login", access.NeedPassword, c.login),
		page("POST /logout", access.NeedRead, c.logout),
		page("GET /logout", access.NeedRead, home),
	}
}

//go:embed style.css
var style string

//go:embed pages.html
var pages string

var (
	templates = template.Must(template.New("").Funcs(template.FuncMap{
		"words": api.Words,
		"utc":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") },
		"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"todo":  todo,
		"prose": prose,
		"shell": func(s lodestone.Email) string {
			if word, ok := quoted(string(s)); ok {
				return word
			}
			return "EMAIL"
		},
		"because": func(r lodestone.Reason, state any) string {
			if r == "" || r == lodestone.ReasonPlanned || string(r) == fmt.Sprint(state) {
				return ""
			}
			return " (" + api.Words(r) + ")"
		},
		// A box stands for the item that was looked at: its id alone may be that of another's as well.
		"itemValue": func(i api.Item) string { return i.Item + " " + i.ID },
		"css":       func() template.CSS { return template.CSS(style) },
	}).Parse(pages))

	// policy lets a page show its own style and post to us, and nothing else.
	policy = func() string {
		sum := sha256.Sum256([]byte(style))
		return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	}()
)

// prose shows what stands between `these` as a command.
func prose(s string) template.HTML {
	parts := strings.Split(s, "`")
	if len(parts)%2 == 0 {
		return template.HTML(template.HTMLEscapeString(s))
	}
	var b strings.Builder
	for i, part := range parts {
		if part = template.HTMLEscapeString(part); i%2 == 1 {
			part = "<code>" + part + "</code>"
		}
		b.WriteString(part)
	}
	return template.HTML(b.String())
}

// view is what every page is given.
type view struct {
	Title  string
	Who    access.Who // zero: nobody is signed in
	Data   any
	Notice string // what went wrong
}

func (c *Console) show(w http.ResponseWriter, r *http.Request, status int, name string, v view) {
	if v.Who == (access.Who{}) {
		v.Who = access.From(r.Context())
	}
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, v); err != nil {
		c.Log.ErrorContext(r.Context(), "a page cannot be shown", "page", name, "error", err)
		http.Error(w, "this page cannot be shown; the worker's log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", policy)
	w.WriteHeader(status)
	_, _ = b.WriteTo(w) // the reader is gone; there is nobody to tell
}

// to sends a browser to one of our own pages.
func to(w http.ResponseWriter, path string) {
	w.Header().Set("Location", path)
	w.WriteHeader(http.StatusSeeOther)
}

// Refused shows why somebody was not let in. Who may sign in is asked to.
func (c *Console) Refused(w http.ResponseWriter, r *http.Request, no *access.Refusal) {
	if no.SignIn {
		to(w, "/login")
		return
	}
	c.show(w, r, no.Status, "refused", view{Title: "Not from here", Data: no})
}

func (c *Console) loginPage(w http.ResponseWriter, r *http.Request) {
	c.show(w, r, http.StatusOK, "login", view{Title: "Sign in"})
}

func (c *Console) login(w http.ResponseWriter, r *http.Request) {
	name := strings.ToLower(strings.TrimSpace(r.PostFormValue("name")))
	if no := c.Door.Login(w, r, name, r.PostFormValue("password")); no != nil {
		access.WriteWait(w.Header(), no.Wait)
		c.show(w, r, no.Status, "login", view{Title: "Sign in", Notice: no.Detail})
		return
	}
	to(w, "/")
}

func (c *Console) logout(w http.ResponseWriter, r *http.Request) {
	c.Door.Logout(w, r)
	to(w, "/login")
}

// shown is how many items and touchpoints the start page lists.
const (
	shownItems = "50"
	shownDue   = "10"
)

// start is what the first page shows.
type start struct {
	Reasons, Warnings []string
	States            []state
	Queue             api.Queue
	Attention         api.Attention
	Now               time.Time
}

// state is how many touchpoints are in one.
type state struct {
	Name lodestone.TouchpointState
	N    uint64
	Says string
}

var says = map[lodestone.TouchpointState]string{
	lodestone.TouchpointScheduled: "wait for their time",
	lodestone.TouchpointIntended:  "are being sent",
	lodestone.TouchpointUnknown:   "may have arrived; the provider is asked",
	lodestone.TouchpointHeld:      "may have arrived; a person decides",
	lodestone.TouchpointSent:      "arrived",
	lodestone.TouchpointFailed:    "were refused by the provider",
	lodestone.TouchpointSkipped:   "were not to be sent",
	lodestone.TouchpointCancelled: "ended before their time",
}

func (c *Console) start(w http.ResponseWriter, r *http.Request) {
	c.startWith(w, r, http.StatusOK, "")
}

func (c *Console) startWith(w http.ResponseWriter, r *http.Request, status int, notice string) {
	data := start{Now: time.Now().UTC()}
	data.Reasons, data.Warnings = c.Ready()
	err := c.get(r.Context(), "/api/v1/queue", url.Values{"limit": {shownDue}}, &data.Queue)
	if err == nil {
		err = c.get(r.Context(), "/api/v1/attention", url.Values{"limit": {shownItems}}, &data.Attention)
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	for _, name := range lodestone.TouchpointStates {
		data.States = append(data.States, state{name, data.Queue.Counts[name], says[name]})
	}
	c.show(w, r, status, "start", view{Title: "Lodestone", Data: data, Notice: notice})
}

func (c *Console) get(ctx context.Context, path string, query url.Values, into any) error {
	return c.Client.Call(ctx, http.MethodGet, path, query, nil, into)
}

// fail says that the store does not answer.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, err error) {
	c.Log.ErrorContext(r.Context(), "the console cannot read the store", "error", err)
	c.show(w, r, http.StatusServiceUnavailable, "refused", view{Title: "Just now this does not work",
		Data: &access.Refusal{Detail: "the store does not answer; `lodestone doctor` looks for the cause"}})
}

// lead looks up one. What is asked for is posted, so that it stands in no log of a proxy.
func (c *Console) lead(w http.ResponseWriter, r *http.Request) {
	typed := strings.TrimSpace(r.PostFormValue("email"))
	email, err := lodestone.ParseEmail(typed)
	if err != nil {
		c.startWith(w, r, http.StatusBadRequest, "This is no address that a lead can have.")
		return
	}
	x, err := c.Client.Lead(r.Context(), string(email), 0)
	var p *api.Problem
	switch {
	case errors.As(err, &p) && p.Status == http.StatusNotFound:
		c.startWith(w, r, http.StatusNotFound, "This address is not known: no submission with it was accepted. Look at its spelling.")
	case err != nil:
		c.fail(w, r, err)
	default:
		c.show(w, r, http.StatusOK, "lead", view{Title: "A lead", Data: x})
	}
}

// settle releases or drops submissions that could not be used, those that were ticked or all that were shown.
func (c *Console) settle(w http.ResponseWriter, r *http.Request) {
	ctx := api.WithActor(r.Context(), access.From(r.Context()).String())
	do, reason := r.PostFormValue("do"), strings.TrimSpace(r.PostFormValue("reason"))
	given := r.PostForm["item"]
	if r.PostFormValue("all") != "" {
		given = r.PostForm["shown"]
	}
	var chosen []api.Chosen
	for _, s := range given { // as itemValue writes it
		if item, id, ok := strings.Cut(s, " "); ok && item != "" && id != "" {
			chosen = append(chosen, api.Chosen{ID: id, Item: item})
		}
	}
	if do != "release" && do != "drop" || len(chosen) == 0 || len(chosen) < len(given) {
		c.startWith(w, r, http.StatusBadRequest, "Nothing was chosen, and nothing was done.")
		return
	}
	var done, faulty, over, failed int
	for _, one := range chosen {
		var p *api.Problem
		var err error
		if do == "drop" {
			var d api.Dropped
			err = c.Client.Call(ctx, http.MethodPost, "/api/v1/drop", nil, api.Drop{Chosen: one, Reason: reason}, &d)
			done += len(d.Dropped)
		} else {
			var d api.Released
			err = c.Client.Call(ctx, http.MethodPost, "/api/v1/release", nil, api.Release{Chosen: one}, &d)
			done, faulty = done+len(d.Released), faulty+len(d.Faulty)
		}
		switch {
		case errors.As(err, &p) && p.Status == http.StatusNotFound:
			over++
		case err != nil:
			c.Log.WarnContext(ctx, "an item could not be settled from the console", "do", do, "error", err)
			failed++
		}
	}
	says := fmt.Sprintf("Released: %d.", done)
	if do == "drop" {
		says = fmt.Sprintf("Dropped: %d.", done)
	}
	for _, n := range []struct {
		n    int
		says string
	}{{faulty, " Still not usable: %d."}, {over, " Settled by somebody else before: %d."}, {failed, " Not done: %d; the command says why."}} {
		if n.n > 0 {
			says += fmt.Sprintf(n.says, n.n)
		}
	}
	c.startWith(w, r, http.StatusOK, says)
}

// todo are the commands that settle an item, each with what it does.
func todo(i api.Item) (list []command) {
	id, ok := quoted(i.ID)
	if !ok {
		return []command{{"lodestone queue --attention --json", "shows its id, which holds characters that cannot be typed"}}
	}
	switch i.Kind {
	case lodestone.AttentionSubmission:
		does := "takes it in, once the cause is mended"
		if i.Reason == lodestone.ReasonQuarantined {
			does = "takes it in: it is honest"
		}
		return []command{{"lodestone release " + id, does}, {"lodestone release " + id + " --drop", "closes it and does nothing else"}}
	case lodestone.AttentionTouchpoint:
		return []command{{"lodestone retry " + id, "tries it again; look at the provider first"}, {"lodestone cancel " + id, "ends it"}}
	case lodestone.AttentionConnector:
		if i.Reason == lodestone.ReasonErased { // it stands for a person, not for the connector
			return []command{{"lodestone forget EMAIL --providers", "asks the provider again, with the address of the person"}}
		}
		return []command{{"lodestone resume connector " + id, "asks the provider again, once its settings are mended"}}
	case lodestone.AttentionEnrollment:
		return []command{{"lodestone release --brake " + id, "lets go on what the brake holds"}, {"lodestone undo " + id, "takes it back"}}
	case lodestone.AttentionRule:
		return []command{{"lodestone check", "says what is wrong in the rule files"}}
	}
	return nil
}

// command is a line for a terminal.
type command struct{ Line, Does string }

// quoted writes a word so that a shell takes it as it is: ids come from outside, and these lines are copied. ok is
// false when it cannot be typed.
func quoted(s string) (word string, ok bool) {
	plain := true
	for _, r := range s {
		switch {
		case r < ' ' || r == 0x7f || r >= 0x80 && !unicode.IsPrint(r):
			return "", false
		case (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._/:@%+,", r):
			plain = false
		}
	}
	if s == "" || strings.HasPrefix(s, "-") {
		return "", false
	}
	if plain {
		return s, true
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'", true
}
