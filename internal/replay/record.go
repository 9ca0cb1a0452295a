// Package replay runs what was submitted so far through two versions of the rules side by side, and says
// what the second would change. Both worlds are simulated with the worker's own functions (package
// simulate). Nothing goes outward and nothing is written but temporary files of its own.
//
// The past comes as [Record]s in the order in which the worker heard of it: from the streams, which keep
// messages for 90 days, or, where these hold none, from the journal, which keeps what was decided and not
// what was submitted. It is taken from the running worker over its socket, or read here when none runs.
//
// In both worlds providers accept everything, and no brake holds anything: brakes count the enrollments of all
// leads, and here each lead goes its way by itself. Both begin with the first record, with nobody known.
//
// Memory stays bounded however many leads there are: records are first dealt out to temporary files by the
// hash of the lead's address, and then each file is replayed by itself, with its own leads in memory.
package replay

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// Where the past comes from.
const (
	FromStream  = "stream"
	FromJournal = "journal"
)

// Head says what a store knows beside its past.
type Head struct {
	Source      string       `json:"source"` // FromStream or FromJournal
	Submissions uint64       `json:"submissions"`
	Signals     uint64       `json:"signals"`
	Version     string       `json:"version"` // of the rules in force; empty: there are none
	Files       []rules.File `json:"files"`   // theirs
	Active      []Active     `json:"active"`
}

// Active counts the active enrollments on one version of one sequence.
type Active struct {
	Sequence    string            `json:"sequence"`
	Version     string            `json:"version"`
	Enrollments int               `json:"enrollments"`
	Some        []lodestone.Email `json:"some,omitempty"`
}

// The kinds of records.
const (
	kindEnd = iota
	kindFault
	kindSubmission
	kindSignal
	kindSuppression
)

// Record is one thing of the past: a message of a stream as it came, or an address that was suppressed
// other than by a signal.
type Record struct {
	Stream     string                 // sequencer.FormsStream or SignalsStream; empty for a suppression
	Message    event.Message          // Time alone for a suppression
	Suppressed *lodestone.Suppression // nil for a message
}

func (r *Record) kind() byte {
	switch {
	case r.Suppressed != nil:
		return kindSuppression
	case r.Stream == sequencer.SignalsStream:
		return kindSignal
	}
	return kindSubmission
}

// Source gives records in the order of their time. A function that fails ends it with its error.
type Source func(ctx context.Context, each func(*Record) error) error

// appendRecord encodes a record: its length, its kind, then its parts, each text with its length.
func appendRecord(b []byte, r *Record) ([]byte, error) {
	body := make([]byte, 0, 64+len(r.Message.Subject)+len(r.Message.Data))
	body = append(body, r.kind())
	body = binary.AppendVarint(body, r.Message.Time.UnixNano())
	if r.Suppressed != nil {
		data, err := json.Marshal(r.Suppressed)
		if err != nil {
			return b, err
		}
		body = appendText(body, data)
	} else {
		body = binary.AppendUvarint(body, r.Message.Seq)
		body = appendText(body, r.Message.Subject)
		n := 0
		for _, values := range r.Message.Header {
			n += len(values)
		}
		body = binary.AppendUvarint(body, uint64(n))
		for name, values := range r.Message.Header {
			for _, v := range values {
				body = appendText(appendText(body, name), v)
			}
		}
		body = appendText(body, r.Message.Data)
	}
	b = binary.AppendUvarint(b, uint64(len(body)))
	return append(b, body...), nil
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// maxRecord bounds one record: a message at its largest and its headers.
const maxRecord = 8 << 20

var errBroken = errors.New("replay: a record is broken")

// readRecord reads one record; io.EOF at a clean end of r. The record shares no memory with the reader.
func readRecord(r *bufio.Reader) (*Record, byte, []byte, error) {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, 0, nil, err
	}
	if size == 0 || size > maxRecord {
		return nil, 0, nil, errBroken
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, 0, nil, errors.Join(errBroken, err)
	}
	kind := body[0]
	if kind == kindEnd || kind == kindFault {
		return nil, kind, body[1:], nil
	}
	p := parser{b: body[1:]}
	out := &Record{Message: event.Message{Time: time.Unix(0, p.varint()).UTC()}}
	switch kind {
	case kindSuppression:
		out.Suppressed = new(lodestone.Suppression)
		if err := json.Unmarshal(p.bytes(), out.Suppressed); err != nil {
			return nil, 0, nil, errors.Join(errBroken, err)
		}
	case kindSubmission, kindSignal:
		out.Stream = sequencer.FormsStream
		if kind == kindSignal {
			out.Stream = sequencer.SignalsStream
		}
		m := &out.Message
		m.Seq, m.Subject = p.uvarint(), string(p.bytes())
		if n := p.uvarint(); n > 0 {
			m.Header = map[string][]string{}
			for ; n > 0 && !p.bad; n-- {
				name := string(p.bytes())
				m.Header[name] = append(m.Header[name], string(p.bytes()))
			}
		}
		m.Data = p.bytes()
	default:
		return nil, 0, nil, errBroken
	}
	if p.bad {
		return nil, 0, nil, errBroken
	}
	return out, kind, nil, nil
}

// parser takes the parts of a record.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) varint() int64 {
	v, n := binary.Varint(p.b)
	return take(p, v, n)
}

func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	return take(p, v, n)
}

func take[T any](p *parser, v T, n int) T {
	if n <= 0 {
		var none T
		p.bad, p.b = true, nil
		return none
	}
	p.b = p.b[n:]
	return v
}

func (p *parser) bytes() []byte {
	n := p.uvarint()
	if n > uint64(len(p.b)) {
		p.bad, p.b = true, nil
		return nil
	}
	out := p.b[:n:n]
	p.b = p.b[n:]
	return out
}

// Write sends a past to a reader elsewhere. What fails after the head is told in the stream, so that the
// reader never takes a part for the whole.
func Write(ctx context.Context, w io.Writer, head Head, src Source) error {
	out := bufio.NewWriterSize(w, 1<<16)
	if err := json.NewEncoder(out).Encode(head); err != nil {
		return err
	}
	var buf []byte
	err := src(ctx, func(r *Record) (err error) {
		if buf, err = appendRecord(buf[:0], r); err != nil {
			return err
		}
		_, err = out.Write(buf)
		return err
	})
	last := []byte{1, kindEnd}
	if err != nil {
		text := err.Error()
		text = text[:min(len(text), 1000)]
		last = append(append(binary.AppendUvarint(nil, uint64(1+len(text))), kindFault), text...)
	}
	_, werr := out.Write(last)
	return errors.Join(err, werr, out.Flush())
}

// Read reads what Write sent. The source can be used once.
func Read(r io.Reader) (Head, Source, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	var head Head
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &head)
	}
	if err != nil {
		return Head{}, nil, fmt.Errorf("replay: the answer has no head: %w", err)
	}
	return head, func(ctx context.Context, each func(*Record) error) error {
		for {
			rec, kind, rest, err := readRecord(in)
			switch {
			case err != nil:
				return fmt.Errorf("replay: the past broke off: %w", err)
			case kind == kindEnd:
				return nil
			case kind == kindFault:
				return fmt.Errorf("replay: the worker cannot read on: %s", rest)
			case ctx.Err() != nil:
				return ctx.Err()
			}
			if err := each(rec); err != nil {
				return err
			}
		}
	}, nil
}
