package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

func (c *cli) submitCmd() *cobra.Command {
	var fields []string
	var file, id string
	var backfill bool
	cmd := &cobra.Command{
		Use:   "submit FORM",
		Short: "Publish submissions: one from --field, or many from a JSON, NDJSON or CSV file",
		Long: `Submit publishes submissions the way a form does. It says so only after the broker has stored and
synced them; the worker then takes them in.

A JSON file holds one object or an array of them, an NDJSON file one on each line, a CSV file a head line
with the names of the fields. An object is the fields themselves, or holds "fields", "context", "id" and
"at". A row without an id gets one from the file's content and its place in it, so that submitting a file
again after a broken run publishes nothing twice.`,
		Example: `  lodestone submit pricing-guide --field email=ada@example.com --field company_size=240
  lodestone submit newsletter --file subscribers.csv --backfill`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if (file == "") == (len(fields) == 0) {
				return usagef("give the submission with --field name=value, or a file of them with --file")
			}
			subject, err := event.SubmissionSubject(a[0])
			if err != nil {
				return usageError{err}
			}
			s := &submitter{cli: c, form: a[0], subject: subject, backfill: backfill}
			var rows rowReader
			if file == "" {
				f, ctx, err := parseFields(fields)
				if err != nil {
					return err
				}
				if id == "" {
					id = nuid.Next()
				}
				rows = oneRow(row{ID: id, Fields: f, Context: ctx})
			} else {
				var closer io.Closer
				if rows, closer, err = c.openRows(file); err != nil {
					return err
				}
				defer closer.Close()
			}
			cfg, err := c.load()
			if err != nil {
				return err
			}
			// A worker with an embedded broker is spoken to where it listens.
			b := cfg.broker()
			if b.URL == "" {
				if b.Listen == "none" || b.Listen == "" {
					return usagef("the worker's broker does not listen (nats.listen is none); name another one with --nats-url")
				}
				b.URL = "nats://" + b.Listen
			}
			b.AcceptUnsynced = true // the worker sees to that
			ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
			s.broker, err = broker.Open(ctx, b)
			cancel()
			if err != nil {
				return fmt.Errorf("no broker answers at %s: %w; start `lodestone run`, or name the server with --nats-url", b.URL, err)
			}
			defer s.broker.Close()
			return s.all(cmd.Context(), rows)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&fields, "field", "f", nil, `a field of the form, name=value; "context.…" fills the context; again for each`)
	f.StringVar(&file, "file", "", "a .json, .ndjson or .csv file, - for NDJSON on standard input")
	f.StringVar(&id, "id", "", "the submission's id: the same one again is the same submission")
	f.BoolVar(&backfill, "backfill", false, "fill profiles and scores, enroll nobody")
	return cmd
}

// row is one submission to publish.
type row struct {
	ID      string             `json:"id"`
	At      time.Time          `json:"at"`
	Fields  map[string]any     `json:"fields"`
	Context *lodestone.Context `json:"context"`
}

// rowReader gives the next row, io.EOF at the end. place says where the row stands.
type rowReader func() (r row, place string, err error)

func oneRow(r row) rowReader {
	done := false
	return func() (row, string, error) {
		if done {
			return row{}, "", io.EOF
		}
		done = true
		return r, "", nil
	}
}

// submitter publishes rows in batches.
type submitter struct {
	cli      *cli
	form     string
	subject  string
	backfill bool
	broker   *broker.Broker
	sent     int
	told     time.Time
}

// publishBatch is how many submissions are acknowledged together: one atomic batch, one sync.
const publishBatch = 500

func (s *submitter) all(ctx context.Context, rows rowReader) error {
	s.told = time.Now()
	var batch []*nats.Msg
	var ids []string
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := s.broker.PublishBatch(ctx, batch); err != nil {
			return fmt.Errorf("%w; %s before it were stored, and submitting the same file again publishes none of them twice", err, count(s.sent, "submission"))
		}
		s.sent += len(batch)
		batch = batch[:0]
		if time.Since(s.told) > 2*time.Second {
			fmt.Fprintf(s.cli.err, "%d submissions stored\n", s.sent)
			s.told = time.Now()
		}
		return nil
	}
	for {
		r, place, err := rows()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errors.Join(flush(), fmt.Errorf("%s%w; %s before it were stored", place, err, count(s.sent+len(batch), "submission")))
		}
		body, err := event.NewSubmission(r.ID, "lodestone-submit", s.form, r.At, r.Fields, r.Context, s.backfill)
		if err != nil {
			return errors.Join(flush(), fmt.Errorf("%s%w", place, err))
		}
		batch = append(batch, &nats.Msg{Subject: s.subject, Data: body, Header: nats.Header{
			"Content-Type": {event.ContentType}, nats.MsgIdHdr: {"lodestone-submit " + r.ID},
		}})
		ids = append(ids[:0], r.ID)
		if len(batch) == publishBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if s.cli.flags.json {
		out := map[string]any{"stored": s.sent}
		if s.sent == 1 {
			out["id"] = ids[0]
		}
		return s.cli.printJSON(out)
	}
	fmt.Fprintf(s.cli.out, "%s of %s stored\n", count(s.sent, "submission"), s.form)
	return nil
}

// openRows opens a file of submissions by its ending.
func (c *cli) openRows(path string) (rowReader, io.Closer, error) {
	if path == "-" {
		r, err := ndjsonRows("-", c.in)
		return r, io.NopCloser(nil), err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, usageError{err}
	}
	var r rowReader
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".json":
		r, err = jsonRows(path, f)
	case ".ndjson", ".jsonl":
		r, err = ndjsonRows(path, f)
	case ".csv":
		r, err = csvRows(path, f)
	default:
		err = usagef("%s ends in %q; submit reads .json, .ndjson and .csv", path, ext)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return r, f, nil
}

// rowOf makes a row of a JSON object: the fields themselves, or an object that holds them.
func rowOf(data []byte, fallback string) (row, error) {
	var fields map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&fields); err != nil {
		return row{}, fmt.Errorf("not a JSON object: %w", err)
	}
	r := row{Fields: fields}
	if _, ok := fields["fields"].(map[string]any); ok {
		r = row{}
		if err := json.Unmarshal(data, &r); err != nil {
			return row{}, err
		}
	}
	if r.ID == "" {
		r.ID = fallback
	}
	return r, nil
}

func jsonRows(path string, f io.Reader) (rowReader, error) {
	data, err := io.ReadAll(io.LimitReader(f, 256<<20))
	if err != nil {
		return nil, err
	}
	var list []json.RawMessage
	if t := bytes.TrimSpace(data); len(t) > 0 && t[0] != '[' {
		list = []json.RawMessage{t}
	} else if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	i := 0
	return func() (row, string, error) {
		if i == len(list) {
			return row{}, "", io.EOF
		}
		i++
		r, err := rowOf(list[i-1], contentID(list[i-1], i))
		return r, fmt.Sprintf("%s: item %d: ", path, i), err
	}, nil
}

func ndjsonRows(path string, f io.Reader) (rowReader, error) {
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	line := 0
	return func() (row, string, error) {
		for sc.Scan() {
			line++
			if data := bytes.TrimSpace(sc.Bytes()); len(data) > 0 {
				r, err := rowOf(data, contentID(data, line))
				return r, fmt.Sprintf("%s:%d: ", path, line), err
			}
		}
		if err := sc.Err(); err != nil {
			return row{}, fmt.Sprintf("%s:%d: ", path, line+1), err
		}
		return row{}, "", io.EOF
	}, nil
}

func csvRows(path string, f io.Reader) (rowReader, error) {
	r := csv.NewReader(bufio.NewReader(f))
	head, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s is empty; its first line must name the fields", path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for i := range head {
		head[i] = strings.TrimSpace(strings.TrimPrefix(head[i], "\ufeff"))
	}
	n := 0
	return func() (row, string, error) {
		rec, err := r.Read()
		if err != nil {
			return row{}, path + ": ", err
		}
		n++
		line, _ := r.FieldPos(0)
		pairs := make([]string, len(rec))
		for i, v := range rec {
			pairs[i] = head[i] + "=" + v
		}
		fields, ctx, err := parseFields(pairs)
		return row{ID: contentID([]byte(strings.Join(rec, "\x00")), n), Fields: fields, Context: ctx}, fmt.Sprintf("%s:%d: ", path, line), err
	}, nil
}
