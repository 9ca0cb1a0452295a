package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/internal/doctor"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

// Upkeep is what backup, compaction and the doctor need of a store.
type Upkeep interface {
	Backup(ctx context.Context, w io.Writer) (int64, error)
	Compact(ctx context.Context, atMost time.Duration) (boltstore.Compacted, error)
	Usage() (boltstore.Usage, error)
	Dump(ctx context.Context, name, after string, limit int) ([]boltstore.Record, error)
}

func (s *Server) upkeepRoutes() []Route {
	return []Route{
		{"GET /api/v1/backup", SocketAlone, http.HandlerFunc(s.backup)},
		{"GET /api/v1/usage", ToRead, answer(func(*http.Request) (any, error) { return s.Store.Usage() })},
		{"POST /api/v1/compact", SocketAlone, answer(s.compact)},
		{"GET /api/v1/doctor", SocketAlone, answer(func(r *http.Request) (any, error) { // it reads the whole store
			if s.Doctor == nil {
				return nil, problem(http.StatusNotImplemented, "the doctor is not at hand here")
			}
			return s.Doctor(r.Context()), nil
		})},
		{"GET /api/v1/dump", SocketAlone, answer(s.dump)},
		{"POST /api/v1/keys/{form}/dropped", SocketAlone, answer(s.dropForm)},
	}
}

// backup sends the whole store. What breaks off on the way breaks the connection off, so that half a
// store is never taken for a whole one.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	if _, err := s.Store.Backup(r.Context(), w); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// Compact asks for a compaction.
type Compact struct {
	// AtMost is how long commits may wait, in nanoseconds.
	AtMost time.Duration `json:"at_most_ns"`
}

func (s *Server) compact(r *http.Request) (any, error) {
	var q Compact
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody)).Decode(&q); err != nil || q.AtMost <= 0 {
		return nil, problem(http.StatusBadRequest, "say how long commits may wait")
	}
	c, err := s.Store.Compact(r.Context(), q.AtMost)
	if errors.Is(err, boltstore.ErrTooLong) {
		return nil, problem(http.StatusConflict, "commits would have waited for longer than %v; nothing was changed. Allow more with --max-pause, or stop the worker and compact then", q.AtMost)
	}
	return c, err
}

// Dump is the answer of `doctor dump`.
type Dump struct {
	Records []boltstore.Record `json:"records"`
}

func (s *Server) dump(r *http.Request) (any, error) {
	n, err := limit(r, 100)
	if err != nil {
		return nil, err
	}
	name := r.FormValue("of")
	if known := boltstore.DumpNames(); !slices.Contains(known, name) {
		return nil, problem(http.StatusBadRequest, "there is no %q in the store; there are %s", name, strings.Join(known, ", "))
	}
	records, err := s.Store.Dump(r.Context(), name, r.FormValue("after"), n)
	return Dump{append([]boltstore.Record{}, records...)}, err
}

// Backup has the worker write its store to w.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lodestone/api/v1/backup", nil)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return errors.Join(errors.New("the worker does not answer"), errors.Unwrap(err))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return problem(res.StatusCode, "the worker answered %s", res.Status)
	}
	if _, err := io.Copy(w, res.Body); err != nil {
		return errors.Join(errors.New("the worker's answer broke off"), err)
	}
	return nil
}

// Doctor asks a worker what is wrong.
func (c *Client) Doctor(ctx context.Context) (r doctor.Report, err error) {
	return r, c.Call(ctx, http.MethodGet, "/api/v1/doctor", nil, nil, &r)
}

// Dump reads stored records.
func (c *Client) Dump(ctx context.Context, of, after string, limit int) (d Dump, err error) {
	return d, c.Call(ctx, http.MethodGet, "/api/v1/dump", url.Values{"of": {of}, "after": {after}, "limit": {itoa(int64(limit))}}, nil, &d)
}

// Closed says how many connections ended with the key that had opened them.
type Closed struct {
	Closed int `json:"closed"`
}

func (s *Server) dropForm(r *http.Request) (any, error) {
	if s.DropForm == nil {
		return Closed{}, nil
	}
	n, err := s.DropForm(r.PathValue("form"))
	return Closed{n}, err
}

// DropForm has the connections end that the key of a form opened, and says how many there were.
func (c *Client) DropForm(ctx context.Context, form string) (closed int, err error) {
	var d Closed
	err = c.Call(ctx, http.MethodPost, "/api/v1/keys/"+url.PathEscape(form)+"/dropped", nil, nil, &d)
	return d.Closed, err
}
