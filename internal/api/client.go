package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/lodestonehq/lodestone"
)

// Client speaks to an API. Make one with [Dial] or [Direct].
type Client struct {
	http http.Client
	// Worker reports whether a running worker answers.
	Worker bool
}

// Dial connects to the worker of a data directory. ok is false when none runs.
func Dial(dir string) (c *Client, ok bool) {
	path, _, err := SocketPath(dir)
	if err != nil || path == "" {
		return nil, false
	}
	var d net.Dialer
	conn, err := d.Dial("unix", path)
	if err != nil {
		return nil, false
	}
	_ = conn.Close() // it only shows that somebody listens
	return &Client{Worker: true, http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) },
	}}}, true
}

// Direct speaks to a handler in this process.
func Direct(h http.Handler) *Client {
	return &Client{http: http.Client{Transport: handlerTransport{h}}}
}

// handlerTransport lets a handler answer without a network.
type handlerTransport struct{ h http.Handler }

func (t handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &recorder{header: http.Header{}, status: http.StatusOK}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	t.h.ServeHTTP(w, r)
	return &http.Response{
		StatusCode: w.status, Status: http.StatusText(w.status), Header: w.header, Request: r,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()),
	}, nil
}

// recorder keeps an answer in memory.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(status int)      { w.status = status }
func (w *recorder) Write(b []byte) (int, error) { return w.body.Write(b) }

// Call makes one request and decodes its answer into out, which may be nil. The path is escaped
// already. A problem comes back as a [*Problem].
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	body, err := c.raw(ctx, method, path, query, in)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(body, out)
}

func (c *Client) raw(ctx context.Context, method, path string, query url.Values, in any) ([]byte, error) {
	u, err := url.Parse("http://lodestone" + path)
	if err != nil {
		return nil, err
	}
	u.RawQuery = query.Encode()
	var send io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), send)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the worker does not answer: %w", errors.Unwrap(err))
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("the worker's answer broke off: %w", err)
	}
	if res.StatusCode >= 300 {
		return nil, problemIn(body, res)
	}
	return body, nil
}

// problemIn is what an answer of a worker that says no holds.
func problemIn(body []byte, res *http.Response) *Problem {
	p := &Problem{}
	if json.Unmarshal(body, p) != nil || p.Title == "" {
		p = problem(res.StatusCode, "the worker answered %s", res.Status)
	}
	return p
}

// Lead explains one address, with the newest entries of its history; a limit of 0 leaves it to the API how
// many.
func (c *Client) Lead(ctx context.Context, email string, limit int) (x Explanation, err error) {
	query := url.Values{}
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	return x, c.Call(ctx, http.MethodGet, "/api/v1/leads/"+url.PathEscape(email), query, nil, &x)
}

// Record returns the stored record of a lead, nil when it is not known.
func (c *Client) Record(ctx context.Context, email lodestone.Email) (*lodestone.Lead, error) {
	b, err := c.raw(ctx, http.MethodGet, "/api/v1/leads/"+url.PathEscape(string(email))+"/record", nil, nil)
	var p *Problem
	if errors.As(err, &p) && p.Status == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l := new(lodestone.Lead)
	_, err = l.UnmarshalMsg(b)
	return l, err
}
