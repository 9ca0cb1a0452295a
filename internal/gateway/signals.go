package gateway

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// maxAddress is the longest text that is passed on as an address, in bytes; a usable one is shorter.
const maxAddress = 1 << 10

var errNoPublisher = errors.New("this worker takes nothing in; /readyz says why")

// store puts the signals of a webhook into the stream. The error is a [*refusal].
func (h *hooks) store(ctx context.Context, a *hookAccount, req connectors.HookRequest, news connectors.HookNews) (result string, err error) {
	if len(news.Signals) == 0 {
		if !a.hook.Knows(news.Event) {
			h.log.DebugContext(ctx, "webhook of an event that is not known", "connector", a.name)
			return resultUnknownEvent, nil
		}
		return resultIgnored, nil
	}
	var msgs []*nats.Msg
	for _, s := range news.Signals {
		if !addressed(s) {
			continue
		}
		m, err := a.message(req, news, s)
		if err != nil {
			h.log.ErrorContext(ctx, "a signal cannot be written down", "connector", a.name, "kind", string(s.Kind), "error", err)
			return "", refuse(http.StatusBadRequest, resultBadBody, connectors.ErrHookBody.Error())
		}
		msgs = append(msgs, m)
	}
	if len(msgs) == 0 {
		return resultNoAddress, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err = errNoPublisher
	if h.publisher != nil {
		err = h.publisher.PublishBatch(ctx, msgs)
	}
	if err != nil {
		h.log.WarnContext(ctx, "a webhook was not stored; the provider was asked to send it again", "connector", a.name, "event", a.event(news.Event), "error", err)
		no := refuse(http.StatusServiceUnavailable, resultBrokerAway, "it cannot be stored at the moment; send it again")
		no.wait = retryAfter
		return "", no
	}
	h.log.DebugContext(ctx, "webhook stored", "connector", a.name, "event", a.event(news.Event), "signals", len(msgs))
	return resultAccepted, nil
}

// addressed reports whether a signal goes into the stream. One about nobody who can be written to is
// left out, because there is nobody to remember it of: ids of customers stand where others have an
// address. An opt-out whose address cannot be used is passed on all the same, so that it is put under
// attention and a human finds out whose it is.
func addressed(s connectors.HookSignal) bool {
	if _, err := lodestone.ParseEmail(s.Email); err == nil {
		return true
	}
	return strings.TrimSpace(s.Email) != "" && len(s.Email) <= maxAddress && lodestone.Signal{Kind: s.Kind}.Suppresses()
}

// message is one signal as a CloudEvent.
func (a *hookAccount) message(req connectors.HookRequest, news connectors.HookNews, s connectors.HookSignal) (*nats.Msg, error) {
	subject, err := event.SignalSubject(s.Kind)
	if err != nil {
		return nil, err
	}
	id := news.ID
	if id == "" {
		id = digest(a.name, req.Event, string(req.Body))
	}
	source := HooksPath + a.name
	id += "/" + string(s.Kind)
	detail := map[string]any{"connector": a.name, "event": a.event(news.Event)}
	for k, v := range s.Detail {
		detail[k] = v
	}
	type data struct {
		Email  string         `json:"email"`
		At     time.Time      `json:"at,omitzero"`
		Detail map[string]any `json:"detail"`
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err = enc.Encode(struct {
		SpecVersion string `json:"specversion"`
		Type        string `json:"type"`
		Source      string `json:"source"`
		ID          string `json:"id"`
		ContentType string `json:"datacontenttype"`
		Data        data   `json:"data"`
	}{"1.0", event.TypeSignal, source, id, "application/json", data{s.Email, s.At.UTC(), detail}})
	if err != nil {
		return nil, fmt.Errorf("build signal: %w", err)
	}
	return &nats.Msg{
		Subject: subject,
		Header: nats.Header{
			"Content-Type": {event.ContentType},
			// The stream knows ids alone, the lead knows them as its own: here the address is part of it.
			"Nats-Msg-Id": {digest(source, id, s.Email)},
		},
		Data: bytes.TrimSuffix(b.Bytes(), []byte("\n")),
	}, nil
}

// digest is 128 bits of the SHA-256 of texts, none of which runs into the next.
func digest(parts ...string) string {
	s := hashed(parts...)
	return hex.EncodeToString(s[:])
}

// hashed is [digest] as bytes.
func hashed(parts ...string) sum {
	var room [256]byte // for what is hashed of most forms
	b := room[:0]
	for _, p := range parts {
		b = append(strconv.AppendInt(b, int64(len(p)), 10), ':')
		b = append(b, p...)
	}
	return hash(b)
}
