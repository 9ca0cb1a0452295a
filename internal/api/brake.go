package api

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/lodestonehq/lodestone/sequencer"
)

// Brake says what the brake of a sequence holds, or what became of it.
type Brake struct {
	Sequence string `json:"sequence"`
	Held     int    `json:"held"`    // enrollments that wait for a person's word
	Changed  int    `json:"changed"` // let go or taken back
}

// LetGo asks to let the held enrollments of a sequence go on, or to take them back.
type LetGo struct {
	Undo bool   `json:"undo,omitempty"`
	By   string `json:"by"`
}

func (s *Server) heldByBrake(r *http.Request) (any, error) {
	name := r.PathValue("sequence")
	n, err := s.Store.Held(r.Context(), name)
	if err == nil && n == 0 {
		if book := s.Rulebook(); book != nil && book.Current().Sequence(name) == nil {
			return nil, problem(http.StatusNotFound, "there is no sequence %s, and no brake of that name holds anything", name)
		}
	}
	return Brake{Sequence: name, Held: n}, err
}

// releaseBatch is how many enrollments change in one transaction, so that a large batch does not keep
// intake and sending waiting.
const releaseBatch = 500

// letGo works through everything that is held at this moment. When it is interrupted what is done is done,
// and asking again goes on with the rest.
func (s *Server) letGo(r *http.Request) (any, error) {
	var q LetGo
	if err := read(r, &q); err != nil {
		return nil, err
	}
	if err := byWhom(r, &q.By); err != nil {
		return nil, err
	}
	book := s.Rulebook()
	if book == nil {
		return nil, problem(http.StatusConflict, "there are no usable rule files, so nothing can be decided; mend them first, `lodestone check` says what is wrong")
	}
	out := Brake{Sequence: r.PathValue("sequence")}
	list, err := s.Store.Braked(r.Context(), out.Sequence)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	command := "release --brake"
	if q.Undo {
		command = "undo"
	}
	// Before it is done, so that it is on record also when it is interrupted.
	if err := s.Store.Record(r.Context(), word(q.By, command, out.Sequence, "", fmt.Sprintf("held: %d", len(list)), now)); err != nil {
		return nil, err
	}
	for begin := 0; begin < len(list); begin += releaseBatch {
		var b sequencer.Batch
		for i, item := range list[begin:min(begin+releaseBatch, len(list))] {
			// They fall due in the order in which they began, and go out at the provider's rate.
			at := now.Add(time.Duration(begin+i) * time.Microsecond)
			b.Writes = append(b.Writes, sequencer.Write{Email: item.Email, Plan: func(st sequencer.State) (sequencer.Change, error) {
				return sequencer.Plan(st.Lead, sequencer.Braked{Touchpoint: item.Touchpoint, Undo: q.Undo}, book, at)
			}})
		}
		results, err := s.Store.Commit(r.Context(), b)
		if err != nil {
			return nil, err
		}
		for _, res := range results {
			switch {
			case errors.Is(res.Err, sequencer.ErrMoved): // it ended meanwhile
			case res.Err != nil:
				return nil, res.Err
			default:
				out.Changed++
				if s.Committed != nil {
					s.Committed(&res.Change)
				}
			}
		}
	}
	out.Held, err = s.Store.Held(r.Context(), out.Sequence)
	return out, err
}
