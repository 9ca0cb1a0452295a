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
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
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
with the names of the fields. An object is the fields themselves, or holds "fields", "context", "backfill", "id"
and "at". A row without an id gets one from its content and its place in the file, so that submitting a file
again after a broken run publishes nothing twice. Standard input (-) is NDJSON, or a JSON array.`,
		Example: `  lodestone submit pricing-guide --field email=ada@example.com --field company_size=240
  lodestone submit newsletter --file subscribers.csv --backfill
  jq -c '.rows[]' export.json | lodestone submit webinar --file -`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if (file == "") == (len(fields) == 0) {
				return usagef("give one submission with --field name=value, or a file of them with --file; not both")
			}
			if file != "" && id != "" {
				return usagef("--id names one submission, and --file may hold many; write \"id\" into its objects instead")
			}
			subject, err := event.SubmissionSubject(a[0])
			if err != nil {
				return usageError{err}
			}
			cfg, err := c.load()
			if err != nil {
				return err
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
			if s.publish, err = c.publisher(cmd.Context(), cfg); err != nil {
				return err
			}
			defer s.publish.Close()
			s.cli.undeclared(cfg, s.form)
			return s.all(cmd.Context(), rows)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&fields, "field", "f", nil, `a field of the form, name=value; "context.…" fills the context; again for each`)
	f.StringVar(&file, "file", "", "a .json, .ndjson or .csv file; - reads standard input")
	f.StringVar(&id, "id", "", "the submission's id: the same one again is the same submission")
	f.BoolVar(&backfill, "backfill", false, "fill profiles and scores, enroll nobody")
	return cmd
}

// publisher stores submissions and syncs them before it returns.
type publisher interface {
	PublishBatch(context.Context, []*nats.Msg) error
	Close()
}

// publisher finds the way into the stream: the server outside; the worker of the data directory, over
// its socket; a worker that listens where this one would; and when none runs, the streams of the data
// directory themselves, which the next start takes in.
//
// A worker that was started a moment ago may not listen yet, so that is waited for.
func (c *cli) publisher(ctx context.Context, cfg settings) (publisher, error) {
	for begin := time.Now(); ; {
		p, err := c.tryPublisher(ctx, cfg)
		if !errors.Is(err, errNobodyListens) || time.Since(begin) > 3*time.Second || !wait(ctx, 100*time.Millisecond) {
			return p, err
		}
	}
}

// errNobodyListens is worth another try for a moment.
var errNobodyListens = errors.New("no worker listens for submissions")

func (c *cli) tryPublisher(ctx context.Context, cfg settings) (publisher, error) {
	if cfg.NATS.URL == "" {
		if client, ok := api.Dial(cfg.Data); ok {
			return socketPublisher{client}, nil
		}
		if _, err := os.Stat(filepath.Join(cfg.Data, boltstore.FileName)); err == nil {
			return openStreams(ctx, c, cfg)
		}
	}
	return dialBroker(ctx, cfg)
}

// socketPublisher publishes through the worker.
type socketPublisher struct{ client *api.Client }

func (p socketPublisher) PublishBatch(ctx context.Context, msgs []*nats.Msg) error {
	var q api.Submissions
	for _, m := range msgs {
		q.Messages = append(q.Messages, api.Message{Subject: m.Subject, Header: m.Header, Data: m.Data})
	}
	return p.client.Call(ctx, http.MethodPost, "/api/v1/submissions", nil, q, nil)
}

func (socketPublisher) Close() {}

// streams are those of a data directory in which no worker runs.
type streams struct {
	*broker.Broker
	store *boltstore.Store
}

func (s streams) Close() {
	s.Broker.Close()
	_ = s.store.Close() // nothing was written to it
}

func openStreams(ctx context.Context, c *cli, cfg settings) (publisher, error) {
	store, err := boltstore.Open(cfg.Data, boltstore.Options{})
	if err != nil {
		return nil, err
	}
	if store.Copied() {
		return nil, errors.Join(errors.New("this data directory is a copy and leaves its streams alone; nothing was submitted. `lodestone claim` makes it the one that acts"), store.Close())
	}
	b := cfg.broker()
	b.Listen, b.Dir = "none", filepath.Join(cfg.Data, "jetstream")
	opened, err := broker.Open(ctx, b)
	if err == nil {
		err = opened.EnsureStreams(ctx)
	}
	if err != nil {
		if opened != nil {
			opened.Close()
		}
		return nil, errors.Join(err, store.Close())
	}
	fmt.Fprintf(c.err, "no worker runs in %s: what is stored is taken in when one starts\n", cfg.Data)
	return streams{opened, store}, nil
}

// dialBroker connects to the server outside, or to the one inside a worker where it listens.
func dialBroker(ctx context.Context, cfg settings) (*broker.Broker, error) {
	const patience = 5 * time.Second
	b := cfg.broker()
	b.AcceptUnsynced = true // the worker sees to that
	if b.URL == "" {
		if b.Listen == "none" || b.Listen == "" {
			return nil, usagef("the worker's broker does not listen (nats.listen is none); name another one with --nats-url")
		}
		conn, err := net.DialTimeout("tcp", b.Listen, patience)
		if err != nil {
			return nil, fmt.Errorf("%w at %s, nothing was submitted. Start `lodestone run`, or name a server with --nats-url", errNobodyListens, b.Listen)
		}
		_ = conn.Close() // it only shows that somebody listens
		b.URL = "nats://" + b.Listen
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	opened, err := broker.Open(ctx, b)
	switch {
	case err == nil:
		return opened, nil
	case errors.Is(err, nats.ErrNoServers) || errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("no broker answers at %s, nothing was submitted. Start that server, or name another with --nats-url", b.URL)
	}
	return nil, fmt.Errorf("the broker at %s: %w; nothing was submitted", b.URL, err)
}

// undeclared says so when the rule files at hand do not know the form. It is no error: the worker may
// have others.
func (c *cli) undeclared(cfg settings, form string) {
	set, err := rules.Load(cfg.Rules, cfg.rulesOptions())
	if err != nil || set.Forms[form] != nil {
		return
	}
	names := slices.Collect(maps.Keys(set.Forms))
	fmt.Fprintf(c.err, "note: no rule file in %s declares the form %s%s\n", cfg.Rules, form,
		instead(form, names, "until one does, its submissions wait under `lodestone queue --attention`"))
}

// row is one submission to publish.
type row struct {
	ID      string             `json:"id"`
	At      time.Time          `json:"at"`
	Fields  map[string]any     `json:"fields"`
	Context *lodestone.Context `json:"context"`

	Backfill bool `json:"backfill"`
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
	publish  publisher
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
		if err := s.publish.PublishBatch(ctx, batch); err != nil {
			return fmt.Errorf("%w; %s", err, s.before(s.sent))
		}
		s.sent += len(batch)
		batch = batch[:0]
		if time.Since(s.told) > 2*time.Second {
			fmt.Fprintf(s.cli.err, "%d submissions stored so far\n", s.sent)
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
			return s.broken(flush(), place, err)
		}
		body, err := event.NewSubmission(r.ID, "lodestone-submit", s.form, r.At, r.Fields, r.Context, s.backfill || r.Backfill)
		if err != nil {
			return s.broken(flush(), place, err)
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

// broken is the error of a row that cannot be read, after the rows before it were stored; stored is
// what went wrong with that.
func (s *submitter) broken(stored error, place string, err error) error {
	if place == "" {
		return errors.Join(stored, err)
	}
	return errors.Join(stored, fmt.Errorf("%s%w; %s", place, err, s.before(s.sent)))
}

// before says what was stored before a file broke off.
func (s *submitter) before(n int) string {
	if n == 0 {
		return "nothing was stored"
	}
	return count(n, "submission") + " before it stored; mend the file and submit it again, none of them is taken twice"
}

// openRows opens a file of submissions by its ending.
func (c *cli) openRows(path string) (rowReader, io.Closer, error) {
	if path == "-" {
		const name = "standard input"
		in := bufio.NewReader(c.in)
		read := ndjsonRows
		if b, _ := in.Peek(64); bytes.HasPrefix(bytes.TrimSpace(b), []byte("[")) {
			read = jsonRows
		}
		r, err := read(name, in)
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
	if err := decodeOne(data, &fields); err != nil {
		return row{}, err
	}
	if fields == nil {
		return row{}, errors.New("not a JSON object but null")
	}
	r := row{Fields: fields}
	if _, ok := fields["fields"].(map[string]any); ok {
		r = row{}
		if err := decodeOne(data, &r); err != nil {
			return row{}, err
		}
	}
	if r.ID == "" {
		r.ID = fallback
	}
	return r, nil
}

// decodeOne reads one JSON value that must be all there is; numbers keep their digits.
func decodeOne(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("not a JSON object: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON object on a line")
	}
	return nil
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
		var wrong *csv.ParseError
		switch {
		case errors.As(err, &wrong) && errors.Is(err, csv.ErrFieldCount):
			return row{}, fmt.Sprintf("%s:%d: ", path, wrong.Line), fmt.Errorf("%d values, and the first line names %d fields", len(rec), len(head))
		case errors.As(err, &wrong):
			return row{}, fmt.Sprintf("%s:%d:%d: ", path, wrong.Line, wrong.Column), wrong.Err
		case err != nil:
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
