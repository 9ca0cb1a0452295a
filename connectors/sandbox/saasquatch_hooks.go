package sandbox

import (
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/lodestonehq/lodestone/connectors/saasquatch/api"
)

// squatchKey signs every webhook, whatever sandbox of this process sends it: making a key takes tens of
// milliseconds. The real provider publishes RSA keys as well (client).
var squatchKey = sync.OnceValue(func() jose.JSONWebKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil { // never fails
		panic("sandbox: " + err.Error())
	}
	return jose.JSONWebKey{Key: key, KeyID: "sandbox-" + strings.ToLower(rand.Text()[:8]), Algorithm: string(jose.RS256), Use: "sig"}
})

// newSquatchHooks signs the raw body with a detached JWS, and takes nothing but a 200 for an answer
// (documented).
func newSquatchHooks(most int) *hooks {
	h := newHooks(most)
	h.taken = func(status int) bool { return status == http.StatusOK }
	h.body = func(s *hook, event string, element any) any {
		e := element.(squatchEvent)
		e.Tenant = s.tenant
		return e
	}
	h.seal = func(_ *hook, req *http.Request, body []byte) {
		key := squatchKey()
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, nil)
		if err != nil {
			panic("sandbox: " + err.Error())
		}
		sig, err := signer.Sign(body)
		if err != nil {
			panic("sandbox: " + err.Error())
		}
		detached, err := sig.DetachedCompactSerialize()
		if err != nil {
			panic("sandbox: " + err.Error())
		}
		req.Header.Set("X-Hook-JWS-RFC-7797", detached)
	}
	return h
}

// serveKeys answers with the public half of the keys, where the provider publishes them.
func serveKeys(w http.ResponseWriter, _ *http.Request) {
	key := squatchKey()
	send(w, reply{status: http.StatusOK, body: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}}})
}

// squatchEvent is the envelope of a webhook.
type squatchEvent struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Tenant  string `json:"tenantAlias"`
	Live    bool   `json:"live"`
	Created int64  `json:"created"`
	Data    any    `json:"data"`
}

// tell sends an event to who subscribed to it; target is the only address that gets it when it is given.
func (q *squatch) tell(event string, data any, target ...string) {
	q.hooks.tell(event, squatchEvent{
		ID: strings.ReplaceAll(newID(), "-", "")[:24], Type: event, Created: time.Now().UnixMilli(), Data: data,
	}, target...)
}

// wireHookReferral is a referral in a webhook.
type wireHookReferral struct {
	ID        string    `json:"id"`
	Program   string    `json:"programId"`
	Referrer  wireParty `json:"referrer"`
	Referred  wireParty `json:"referred"`
	Code      string    `json:"referralCodeUsed"`
	Link      *string   `json:"shareLinkUsed"`
	Started   int64     `json:"dateReferralStarted"`
	Converted *int64    `json:"dateConverted"`
}

type wireParty struct {
	ID      string `json:"id"`
	Account string `json:"accountId"`
}

func (r *squatchReferral) wireHook() wireHookReferral {
	return wireHookReferral{
		ID: r.id, Program: squatchProgram, Code: r.code, Started: r.started.UnixMilli(), Converted: millis(r.converted),
		Referrer: wireParty{r.referrer.user, r.referrer.account}, Referred: wireParty{r.referred.user, r.referred.account},
	}
}

// squatchWebhook is a subscribed URL. The same URL again is the same subscription (documented).
type squatchWebhook struct {
	EndpointURL  string   `json:"endpointUrl"`
	Name         string   `json:"name"`
	Source       string   `json:"source"`
	WebhookTypes []string `json:"webhookTypes"`
}

func (q *squatch) createWebhook(r *squatchRequest) reply {
	in, ok := decode[api.WebhookEndpoint](r.request)
	if !ok {
		return q.unreadable(r)
	}
	w := squatchWebhook{EndpointURL: value(in.EndpointUrl), Name: value(in.Name), Source: "MANUAL", WebhookTypes: []string{"*"}}
	if u, err := url.Parse(w.EndpointURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return q.bad(r, "endpointUrl is no http or https URL")
	}
	if in.WebhookTypes != nil {
		w.WebhookTypes = *in.WebhookTypes
	}
	q.hooks.remove(w.EndpointURL)
	if q.hooks.add(r.vars["tenant_alias"], w.EndpointURL, w.WebhookTypes...) == "" {
		return squatchFailure(http.StatusBadRequest, "There are too many webhooks.", "TOO_MANY_WEBHOOKS", "")
	}
	if i := q.webhook(w.EndpointURL); i >= 0 {
		q.webhooks[i] = w
	} else {
		q.webhooks = append(q.webhooks, w)
	}
	q.effect(r, "", "")
	return bodiless(http.StatusCreated)
}

func (q *squatch) webhook(url string) int {
	return slices.IndexFunc(q.webhooks, func(w squatchWebhook) bool { return w.EndpointURL == url })
}

func (q *squatch) listWebhooks(*squatchRequest) reply {
	return reply{status: http.StatusOK, body: append([]squatchWebhook{}, q.webhooks...)}
}

func (q *squatch) noWebhook() reply {
	return squatchFailure(http.StatusNotFound, "Webhook not found.", "WEBHOOK_NOT_FOUND", "")
}

func (q *squatch) deleteWebhook(r *squatchRequest) reply {
	i := q.webhook(r.vars["endpointUrl"])
	if i < 0 {
		return q.noWebhook()
	}
	q.hooks.remove(r.vars["endpointUrl"])
	q.webhooks = slices.Delete(q.webhooks, i, i+1)
	q.effect(r, "", "")
	return bodiless(http.StatusNoContent)
}

// testWebhook sends a test event to one address, whatever it subscribed to.
func (q *squatch) testWebhook(r *squatchRequest) reply {
	if q.webhook(r.vars["endpointUrl"]) < 0 {
		return q.noWebhook()
	}
	q.tell("test", map[string]any{}, r.vars["endpointUrl"])
	q.effect(r, "", "")
	return bodiless(http.StatusNoContent)
}
