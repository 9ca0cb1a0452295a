package connectors

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
)

// Rehearsal is the request that an act makes first, with <secret> in place of every secret. An act that asks
// the provider before it does anything shows the question.
type Rehearsal struct {
	Method string      `json:"method"`
	URL    string      `json:"url"`
	Header http.Header `json:"headers"`
	Body   string      `json:"body"`
}

// Rehearse does an act on an account of its own that has no way out: everything happens as in [Account.Do]
// up to the moment when the first request would be sent. It needs no secrets; those in settings are not used.
// The error is a [*Fault] of an act that would not be sent at all, or says what the settings lack.
func Rehearse(ctx context.Context, kind Kind, settings Settings, act Act) (Rehearsal, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	settings.Secrets = map[string]Secret{}
	for _, name := range kind.Secrets {
		settings.Secrets[name] = Secret("rehearsal-" + name + "-rehearsal") // long enough to be found again
	}
	stage := &stage{leave: cancel}
	a, err := Open(kind, settings, func(o *options) { o.rt = stage })
	if err != nil {
		return Rehearsal{}, err
	}
	_, err = a.Do(ctx, act)
	if stage.taken == nil {
		if err == nil {
			err = errors.New("it makes no request")
		}
		return Rehearsal{}, err
	}
	hide := func(s string) string {
		for _, form := range newMask(settings.Secrets).secrets {
			s = strings.ReplaceAll(s, form, secretText)
		}
		return s
	}
	r := stage.taken
	out := Rehearsal{Method: r.Method, URL: hide(r.URL.String()), Header: http.Header{}, Body: hide(stage.body)}
	for name, values := range r.Header {
		for _, v := range values {
			out.Header.Add(name, hide(v))
		}
	}
	return out, nil
}

// stage keeps the first request that it is given and sends nothing.
type stage struct {
	leave func() // ends the act, so that nothing is tried again

	mu    sync.Mutex // guards what follows
	taken *http.Request
	body  string
}

var errStaged = errors.New("a rehearsal sends nothing")

// RoundTrip implements [http.RoundTripper].
func (s *stage) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Body != nil {
		defer r.Body.Close()
	}
	if s.taken == nil {
		if r.Body != nil {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			s.body = string(b)
		}
		s.taken = r
	}
	s.leave()
	return nil, errStaged
}
