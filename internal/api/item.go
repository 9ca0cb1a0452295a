package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Senders choose the ids of submissions, so several items may have one id, of different people, forms and kinds.
// A person's word is about exactly one of them.

// Chosen names the attention item that a request is about.
type Chosen struct {
	ID   string `json:"id,omitempty"`
	Item string `json:"item,omitempty"` // as [Item] has it, of those with the id; empty: the only one
}

func handle(a *lodestone.Attention) string {
	kind := string(a.Kind)
	if sequencer.KeyOf(a).Signal {
		kind = signal
	}
	return kind + "/" + strconv.FormatUint(a.Seq, 10)
}

// signal is what handles call the signals among submissions, which have a stream of their own.
const signal = "signal"

// chosen returns the item that a request is about. Of several with its id that may be meant it takes none, and lists
// them in its problem. only narrows what may be meant to one kind, "" to none.
func (s *Server) chosen(ctx context.Context, c Chosen, only lodestone.AttentionKind) (*lodestone.Attention, error) {
	if c.ID == "" {
		return nil, problem(http.StatusBadRequest, "say which: id is empty; `lodestone queue --attention` shows the ids")
	}
	if c.Item != "" {
		kind, text, _ := strings.Cut(c.Item, "/")
		seq, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, problem(http.StatusBadRequest, "%q names no item; give it as `lodestone queue --attention --json` shows it, as in submission/4711", c.Item)
		}
		key := sequencer.ItemKey{AttentionKey: sequencer.AttentionKey{Kind: lodestone.AttentionKind(kind), ID: c.ID}, Seq: seq}
		if kind == signal {
			key.Kind, key.Signal = lodestone.AttentionSubmission, true
		}
		a, err := s.Store.Item(ctx, key)
		switch {
		case err != nil:
			return nil, err
		case a == nil:
			return nil, problem(http.StatusNotFound, "no item %s of id %q needs a human; `lodestone queue --attention --json` lists what does", c.Item, c.ID)
		case only != "" && a.Kind != only:
			return nil, otherMatter(a)
		}
		return a, nil
	}
	all, err := s.Store.ItemsOf(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	var meant []lodestone.Attention
	for i := range all {
		if only == "" || all[i].Kind == only {
			meant = append(meant, all[i])
		}
	}
	switch {
	case len(meant) == 1:
		return &meant[0], nil
	case len(meant) > 1:
		p := problem(http.StatusConflict, "several have the id %q, which their senders chose, and nothing was done; say which with --item, as in --item %s", c.ID, handle(&meant[0]))
		p.Items = items(meant)
		return nil, p
	case len(all) > 0:
		return nil, otherMatter(&all[0])
	}
	return nil, problem(http.StatusNotFound, "nothing of id %q needs a human; `lodestone queue --attention` lists what does", c.ID)
}

func otherMatter(a *lodestone.Attention) error {
	return problem(http.StatusConflict, "%s is no submission but a matter of a %s: %s. `lodestone retry` and `lodestone cancel` act on touchpoints; `lodestone release --drop` closes what needs nothing done", a.ID, a.Kind, a.Detail)
}
