package sandbox

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

func (r *rock) getEmailUnsubscribed(req *request) reply {
	found := []string{}
	if email := strings.ToLower(req.URL.Query().Get("email")); email == "" {
		found = slices.AppendSeq(found, maps.Keys(r.unsubscribed))
		slices.Sort(found)
	} else if r.unsubscribed[email] {
		found = append(found, email)
	}
	return reply{status: http.StatusOK, body: found}
}

func (r *rock) unsubscribeEmail(req *request) reply {
	email, ok := decode[string](req)
	if !ok {
		return r.unreadable(req)
	}
	r.quietly(req, email, "")
	if !r.unsubscribed[strings.ToLower(email)] {
		r.unsubscribed[strings.ToLower(email)] = true
		r.hooks.tell(string(api.EmailUnsubscribed), api.WebhookEmailUnsubscribed{Email: email, Timestamp: ptr(time.Now().Unix())})
	}
	return reply{status: http.StatusOK, body: map[string]any{"message": nil}}
}

// removeEmailUnsubscribe takes the address from the body. The DELETE form may have it in the query
// instead, because some proxies drop the body of a DELETE.
func (r *rock) removeEmailUnsubscribe(req *request) reply {
	var email string
	if len(req.body) > 0 {
		var ok bool
		if email, ok = decode[string](req); !ok {
			return r.unreadable(req)
		}
	}
	if email = cmp.Or(email, req.URL.Query().Get("email")); email == "" {
		return r.wrong(req, "there is no address in the body or the query")
	}
	r.quietly(req, email, "")
	delete(r.unsubscribed, strings.ToLower(email))
	return reply{status: http.StatusOK, body: map[string]any{"message": nil}}
}
