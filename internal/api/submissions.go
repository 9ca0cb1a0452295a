package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone/sequencer/event"
)

// Submissions asks the worker to store messages in the stream of submissions, for commands on its
// machine.
type Submissions struct {
	Messages []Message `json:"messages"`
}

// Message is one message to store.
type Message struct {
	Subject string              `json:"subject"`
	Header  map[string][]string `json:"header,omitempty"`
	Data    []byte              `json:"data"`
}

// Publisher stores messages, all of them synced when it returns nil.
type Publisher interface {
	PublishBatch(context.Context, []*nats.Msg) error
}

// maxSubmissions bounds one request: a batch of the command, each message as large as it may be.
const maxSubmissions = 256 << 20

func (s *Server) submissions(r *http.Request) (any, error) {
	if s.Publish == nil {
		return nil, problem(http.StatusConflict, "nobody takes submissions here: the data directory is a copy, or no worker runs")
	}
	var q Submissions
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxSubmissions)).Decode(&q); err != nil {
		return nil, problem(http.StatusBadRequest, "the body is not what this takes: %v", err)
	}
	msgs := make([]*nats.Msg, 0, len(q.Messages))
	for _, m := range q.Messages {
		if !strings.HasPrefix(m.Subject, event.FormsPrefix) {
			return nil, problem(http.StatusBadRequest, "%q is no subject of submissions", m.Subject)
		}
		msgs = append(msgs, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data})
	}
	if err := s.Publish.PublishBatch(r.Context(), msgs); err != nil {
		return nil, problem(http.StatusServiceUnavailable, "%v", err)
	}
	return map[string]int{"stored": len(msgs)}, nil
}
