package api

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/lodestonehq/lodestone/internal/replay"
)

// Past finds what was submitted so far; see [replay.Open].
type Past func(context.Context) (replay.Head, replay.Source, error)

// past sends what was submitted so far, for a command that replays it.
func (s *Server) past(w http.ResponseWriter, r *http.Request) {
	if s.Past == nil {
		writeProblem(w, problem(http.StatusConflict, "there is no past to replay here"))
		return
	}
	head, src, err := s.Past(r.Context())
	if err != nil {
		writeProblem(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_ = replay.Write(r.Context(), w, head, src) // a fault is told in what is written; the client may be gone
}

// Past asks for what was submitted so far. The caller closes it.
func (c *Client) Past(ctx context.Context) (replay.Head, replay.Source, io.Closer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lodestone/api/v1/past", nil)
	if err != nil {
		return replay.Head{}, nil, nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return replay.Head{}, nil, nil, errors.Unwrap(err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		return replay.Head{}, nil, nil, errors.Join(problemIn(body, res), err)
	}
	head, src, err := replay.Read(res.Body)
	if err != nil {
		return replay.Head{}, nil, nil, errors.Join(err, res.Body.Close())
	}
	return head, src, res.Body, nil
}
