package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Release asks to try submissions and signals again that could not be used: one, or a part of all of them.
type Release struct {
	Chosen
	All   bool   `json:"all,omitempty"`   // instead of one
	After []byte `json:"after,omitempty"` // where the part before ended
	By    string `json:"by"`
}

// Released is what became of a [Release].
type Released struct {
	Released []ReleasedItem `json:"released"` // usable now, each planned like one that just came
	Faulty   []ReleasedItem `json:"faulty"`   // still not usable; they stay under attention
	After    []byte         `json:"after,omitempty"`
}

// ReleasedItem is one submission or signal that was tried again.
type ReleasedItem struct {
	ID     string           `json:"id"`
	Form   string           `json:"form"`
	Email  lodestone.Email  `json:"email"`
	Reason lodestone.Reason `json:"reason"` // what was decided, or why it still can not be used
	Detail string           `json:"detail,omitempty"`
}

// rejectedBatch is how many items one transaction tries again.
const rejectedBatch = 500

// release plans again what could not be used, with the rules as they are. An item and what it leads to
// change places in one transaction, so whatever interrupts it, each is applied once.
func (s *Server) release(r *http.Request) (any, error) {
	var q Release
	if err := read(r, &q); err != nil {
		return nil, err
	}
	if err := byWhom(r, &q.By); err != nil {
		return nil, err
	}
	book := s.Rulebook()
	if book == nil {
		return nil, problem(http.StatusConflict, "there are no usable rule files to decide with; mend them first: `lodestone check`")
	}
	done := Released{Released: []ReleasedItem{}, Faulty: []ReleasedItem{}}
	var list []lodestone.Attention
	if q.All {
		if q.Chosen != (Chosen{}) {
			return nil, problem(http.StatusBadRequest, "give one id or all, not both")
		}
		var next string
		var err error
		if list, next, err = s.Store.Rejected(r.Context(), string(q.After), rejectedBatch); err != nil {
			return nil, err
		}
		done.After = []byte(next)
	} else {
		one, err := s.chosen(r.Context(), q.Chosen, lodestone.AttentionSubmission)
		if err != nil {
			return nil, err
		}
		list = append(list, *one)
	}
	// Within a part they go in the order in which they came.
	slices.SortFunc(list, func(a, b lodestone.Attention) int {
		return cmp.Or(a.Received.Compare(b.Received), cmp.Compare(a.Seq, b.Seq))
	})
	err := s.replay(r.Context(), list, q.By, book, &done)
	return done, err
}

func (s *Server) replay(ctx context.Context, list []lodestone.Attention, by string, book *sequencer.Rulebook, done *Released) error {
	now := time.Now().UTC()
	var b sequencer.Batch
	for i := range list {
		a := &list[i]
		op := lodestone.OperatorEntry{By: by, Command: "release", Subject: a.ID, Detail: string(a.Reason)}
		b.Writes = append(b.Writes, sequencer.Again(a, op, book, now))
	}
	if len(b.Writes) == 0 {
		return nil
	}
	if err := s.keepRules(ctx, book); err != nil {
		return err
	}
	results, err := s.Store.Commit(ctx, b)
	if err != nil {
		return err
	}
	for i := range results {
		c, a := &results[i].Change, &list[i]
		switch err := results[i].Err; {
		case errors.Is(err, sequencer.ErrSettled):
			continue // somebody else released it
		case err != nil:
			return err
		}
		item := ReleasedItem{ID: a.ID, Form: a.Form, Email: b.Writes[i].Email, Reason: lodestone.Reason("applied")}
		if len(c.Attention) > 0 && c.Attention[0].Kind == lodestone.AttentionSubmission {
			n := &c.Attention[0]
			item.Email, item.Reason, item.Detail = n.Email, n.Reason, n.Detail
			done.Faulty = append(done.Faulty, item)
			continue
		}
		if c.Entry != nil && c.Entry.Decision != nil {
			item.Reason = c.Entry.Decision.Reason
		}
		done.Released = append(done.Released, item)
		s.told(c)
	}
	return nil
}
