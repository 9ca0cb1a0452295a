package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/links"
	"github.com/lodestonehq/lodestone/rules"
)

const (
	// UnsubscribePath is where links that unsubscribe begin.
	UnsubscribePath = "/unsubscribe/"
	// ConfirmPath is where links that confirm an address begin.
	ConfirmPath = "/confirm/"

	maxChoice = 4 << 10 // bytes of what is posted to a link; nothing in it matters
)

// Link is the link of a purpose for an address, under the public address of this gateway: one to
// unsubscribe works for ever, one to confirm for some 30 days from now, and says that it was asked now.
func Link(sealer *links.Sealer, publicURL string, purpose links.Purpose, email lodestone.Email, now time.Time) string {
	path, expires, content := UnsubscribePath, time.Time{}, string(email)
	if purpose == links.Confirm {
		path, expires = ConfirmPath, now.UTC().Truncate(24*time.Hour).Add(rules.ConfirmLinkLife)
		content += " " + strconv.FormatInt(now.UnixNano(), 10) // no address has a space
	}
	return strings.TrimSuffix(publicURL, "/") + path + sealer.Seal(purpose, []byte(content), expires)
}

// open reads a token of [Link]. One of an earlier version does not say when it was asked; then it was on the day that
// its end tells, and the end of that day is taken, so that whoever was asked on that day can still confirm.
func (p *people) open(purpose links.Purpose, token string, now time.Time) (email lodestone.Email, asked time.Time, err error) {
	content, expires, err := p.Links.OpenUntil(purpose, token, now)
	address, at, says := strings.Cut(string(content), " ")
	email, bad := lodestone.ParseEmail(address)
	if err == nil && bad != nil {
		err = bad
	}
	switch ns, no := strconv.ParseInt(at, 10, 64); {
	case says && no == nil:
		asked = time.Unix(0, ns).UTC()
	case !expires.IsZero():
		if asked = expires.Add(24*time.Hour - rules.ConfirmLinkLife - time.Nanosecond); asked.After(now) {
			asked = now
		}
	}
	return email, asked, err
}

// ErrOutdated says that what a link confirms was taken back, or changed, since the person was asked.
var ErrOutdated = errors.New("what this link confirms is out of date")

// ErrUnknownPerson says that nothing is known of the person any more whose link it is.
var ErrUnknownPerson = errors.New("nothing is known of this person")

// PeopleOptions of [People].
type PeopleOptions struct {
	Links *links.Sealer
	// Act carries out what a person chose, and returns when it is in force; nil: nothing can be chosen. Its
	// error may be ErrUnknownPerson or ErrOutdated. asked is when the link was made, zero for one to unsubscribe.
	Act        func(_ context.Context, _ links.Purpose, _ lodestone.Email, asked time.Time) error
	Registerer prometheus.Registerer // nil: nobody counts
	Log        *slog.Logger          // nil: silent
}

// People serves the links that people are given in messages; mount it at [UnsubscribePath] and
// [ConfirmPath]. A GET shows a page with the choice and changes nothing, because machines follow
// links; a POST acts: from the page's button, or with one click from a mail program (RFC 8058). Both may
// come as often as they like.
func People(o PeopleOptions) http.Handler {
	p := &people{o, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lodestone_link_requests_total",
		Help: "Requests of links in messages, by what they are for and what became of them.",
	}, []string{"purpose", "result"})}
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(p.total)
	}
	return p
}

type people struct {
	PeopleOptions
	total *prometheus.CounterVec
}

// words are what the pages of a purpose say.
var words = map[links.Purpose]struct{ ask, text, button, done, doneText string }{
	links.Unsubscribe: {
		"Unsubscribe", "Press the button and we will not write to you again. If you did not mean to unsubscribe, simply close this page.",
		"Unsubscribe", "You are unsubscribed", "We will not write to you again.",
	},
	links.Confirm: {
		"Please confirm", "Somebody entered your address in a form of ours. If that was you, confirm it here. If it was not, simply close this page: nothing will happen.",
		"Yes, that was me", "Thank you", "Your address is confirmed.",
	},
}

var expiredPage = page{Title: "This link has expired", Text: "Please fill in the form once more; you will get a new one."}

// ServeHTTP implements [http.Handler].
func (p *people) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	purpose, token := links.Unsubscribe, strings.TrimPrefix(r.URL.Path, UnsubscribePath)
	if rest, ok := strings.CutPrefix(r.URL.Path, ConfirmPath); ok {
		purpose, token = links.Confirm, rest
	}
	w.Header().Set("X-Robots-Tag", "noindex")
	said := words[purpose]
	result := func(name string) { p.total.WithLabelValues(string(purpose), name).Inc() }
	email, asked, err := p.open(purpose, token, time.Now())
	switch {
	case errors.Is(err, links.ErrExpired):
		result("expired")
		writePage(w, http.StatusGone, expiredPage)
		return
	case err != nil:
		result("forged")
		writePage(w, http.StatusNotFound, page{Title: "This link does not work", Text: "It is not complete, or not one of ours. Please open it again from the message, or copy all of it."})
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		result("shown")
		writePage(w, http.StatusOK, page{Title: said.ask, Heading: masked(email), Text: said.text, Action: &pageAction{Button: said.button}})
		return
	case http.MethodPost:
	default:
		no := refuse(http.StatusMethodNotAllowed, resultBadMethod, "links are opened with GET and acted on with POST")
		no.allow = "GET, HEAD, POST"
		no.write(w)
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxChoice)); err != nil {
		result(resultBadBody)
		no := badBody("too much was posted")
		no.hangUp = true
		no.write(w)
		return
	}
	// Acting outlives a mail program that hangs up early.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeTimeout)
	defer cancel()
	err = errNoPublisher
	if p.Act != nil {
		err = p.Act(ctx, purpose, email, asked)
	}
	if errors.Is(err, ErrUnknownPerson) {
		result("unknown")
		writePage(w, http.StatusGone, expiredPage)
		return
	}
	if errors.Is(err, ErrOutdated) {
		result("outdated")
		writePage(w, http.StatusGone, page{Title: "This link is out of date", Text: "Something changed after this message was sent to you: you may have unsubscribed, or filled in a form again. Nothing was changed now. Please use the link in the newest message, or fill in the form once more."})
		return
	}
	if err != nil {
		result("failed")
		p.Log.ErrorContext(ctx, "what a person chose could not be stored; they were asked to try again", "purpose", string(purpose), "error", err)
		w.Header().Set("Retry-After", "30")
		writePage(w, http.StatusServiceUnavailable, page{
			Title: "Just a moment", Text: "We could not store this just now. Please try again in a minute.", Action: &pageAction{Button: said.button},
		})
		return
	}
	result("done")
	writePage(w, http.StatusOK, page{Title: said.done, Heading: masked(email), Text: said.doneText})
}

// masked is an address that its owner knows and nobody else learns.
func masked(email lodestone.Email) string {
	local := []rune(email.Local())
	return string(local[:1]) + "…@" + email.Domain()
}
