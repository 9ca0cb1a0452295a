package gateway

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/internal/links"
	"github.com/lodestonehq/lodestone/rules"
)

// assetLink is the link to what the form promises, "" when it promises nothing. It is good for seven
// days from when the submission was first asked for, so that a repeat gets the same one, and says
// which submission it was given for.
func (f *forms) assetLink(r *http.Request, form *rules.Form, done taken) string {
	if form == nil || form.Asset == "" || f.Links == nil {
		return ""
	}
	expires := done.first.Truncate(time.Second).Add(assetLife)
	return f.base(r) + AssetsPath + f.Links.Seal(links.Asset, []byte(form.Name+" "+done.id), expires)
}

// asset sends whoever has a good link to where the asset is according to the rules in force.
func (f *forms) asset(w http.ResponseWriter, r *http.Request, token string) {
	h := w.Header()
	h.Set("X-Robots-Tag", "noindex")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		no := refuse(http.StatusMethodNotAllowed, resultBadMethod, "links are opened with GET")
		no.allow = "GET, HEAD"
		no.write(w)
		return
	}
	content, err := f.Links.Open(links.Asset, token, f.now())
	name, _, _ := strings.Cut(string(content), " ")
	set := f.Rules()
	var form *rules.Form
	if set != nil {
		form = set.Forms[name]
	}
	switch {
	case errors.Is(err, links.ErrExpired):
		writePage(w, http.StatusGone, page{Title: "This link has expired", Text: "Please ask for it again with the form; the new link will work at once."})
	case err != nil:
		writePage(w, http.StatusNotFound, page{Title: "This link does not work", Text: "It is not complete, or not one of ours. Please ask for it again with the form."})
	case set == nil:
		h.Set("Retry-After", "30")
		writePage(w, http.StatusServiceUnavailable, page{Title: "Just a moment", Text: "This is not available just now. Please try again in a minute."})
	case form == nil || form.Asset == "":
		writePage(w, http.StatusGone, page{Title: "This is no longer available", Text: "What this link led to has been taken down."})
	default:
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Location", form.Asset)
		w.WriteHeader(http.StatusFound)
	}
}
