package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/bench"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scoring"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// maxRead is how many submissions are stored together at the most.
const maxRead = 2000

// queue is what a peer does with its server.
type queue interface {
	reset(context.Context) error
	// load returns the leads that are known, by address.
	load(ctx context.Context, emails []string) (map[string]lead, error)
	// store stores leads and schedules touchpoints, durably when it returns.
	store(ctx context.Context, leads []lead, touchpoints []touchpoint, due time.Time) error
	// work has call made for each touchpoint that is due, 64 at a time, until stop, which waits for
	// those under way.
	work(ctx context.Context, call func(context.Context, touchpoint) error) (stop func() error, err error)
}

// lead is what is stored of a person.
type lead struct {
	Email       string           `json:"email"`
	Submissions int              `json:"submissions"`
	Score       int              `json:"score"`
	Band        string           `json:"band"`
	Sequence    string           `json:"sequence,omitempty"`
	Ledger      []line           `json:"ledger"`
	Profile     lodestone.Fields `json:"profile"`
	Last        string           `json:"last"` // id of the latest submission
	At          time.Time        `json:"at"`
}

type line struct {
	Rule   string  `json:"rule"`
	Points float64 `json:"points"`
}

type touchpoint struct {
	ID        string `json:"id"`
	Email     string `json:"email"`
	FirstName string `json:"first_name"`
}

// system is one peer with its stream and its provider.
type system struct {
	queue
	set    *rules.Set
	broker *broker.Broker
	client *http.Client
	server int // the process of its server
	n      int // submissions published
	reader jetstream.Consumer
}

// peer opens what every peer needs and returns what does its jobs.
func peer(ctx context.Context, s *settings, q queue, server int) (func(context.Context, job) (outcome, error), func(), error) {
	set, err := bench.Ruleset()
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(s.dir, "peer-")
	if err != nil {
		return nil, nil, err
	}
	b, err := broker.Open(ctx, broker.Options{Listen: "none", Dir: dir, MaxStore: 64 << 30})
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	closed := func() { b.Close(); _ = os.RemoveAll(dir) }
	err = b.EnsureStreams(ctx)
	y := &system{queue: q, set: set, broker: b, server: server, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: bench.Workers}}}
	if err == nil {
		y.reader, err = b.JetStream().CreateConsumer(ctx, broker.FormsStream, jetstream.ConsumerConfig{Durable: "peer", AckPolicy: jetstream.AckAllPolicy, MaxAckPending: 4 * maxRead})
	}
	if err != nil {
		closed()
		return nil, nil, err
	}
	return y.do, closed, nil
}

func (y *system) do(ctx context.Context, j job) (outcome, error) {
	switch j.Do {
	case "fill":
		return outcome{}, y.fill(ctx, j.Leads, time.Now().Add(30*24*time.Hour))
	case "intake":
		return y.intake(ctx, j)
	case "dispatch":
		return y.dispatch(ctx, j.Items)
	case "latency":
		return y.latency(ctx, j.Items)
	}
	return outcome{}, fmt.Errorf("there is no job %q", j.Do)
}

// fill forgets everything and stores leads with a touchpoint each.
func (y *system) fill(ctx context.Context, leads int, due time.Time) error {
	if err := y.reset(ctx); err != nil {
		return err
	}
	for first := 0; first < leads; first += maxRead {
		var subs []lodestone.Submission
		for n := first; n < min(leads, first+maxRead); n++ {
			m := bench.Form(n, n)
			sub, err := y.decode(m.Subject, m.Header, m.Data, uint64(n), time.Now())
			if err != nil {
				return err
			}
			subs = append(subs, sub)
		}
		if err := y.apply(ctx, subs, due); err != nil {
			return err
		}
	}
	return nil
}

// intake applies submissions that wait in the stream.
func (y *system) intake(ctx context.Context, j job) (outcome, error) {
	if j.Leads == 0 {
		if err := y.reset(ctx); err != nil {
			return outcome{}, err
		}
	}
	for done := 0; done < j.Items; { // publishing is not measured here
		var msgs []*nats.Msg
		for i := range min(1000, j.Items-done) {
			y.n++
			lead := j.Leads + y.n
			if j.Leads > 0 && i%2 == 0 {
				lead = (y.n * 7919) % j.Leads // half of them were here before
			}
			msgs = append(msgs, bench.Form(lead, y.n))
			done++
		}
		if err := y.broker.PublishBatch(ctx, msgs); err != nil {
			return outcome{}, err
		}
	}
	return y.measured(j.Items, func() error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		return y.read(ctx, time.Now().Add(3*24*time.Hour), func(n int) {
			if j.Items -= n; j.Items <= 0 {
				stop()
			}
		})
	})
}

// read applies what comes in, as many together as are waiting, until ctx is done.
func (y *system) read(ctx context.Context, due time.Time, applied func(int)) error {
	msgs := make(chan jetstream.Msg, 2*maxRead)
	consuming, err := y.reader.Consume(func(m jetstream.Msg) {
		select {
		case msgs <- m:
		case <-ctx.Done():
		}
	}, jetstream.PullMaxMessages(2*maxRead))
	if err != nil {
		return err
	}
	defer func() { consuming.Stop(); <-consuming.Closed() }()
	for {
		var batch []jetstream.Msg
		select {
		case <-ctx.Done():
			return nil
		case m := <-msgs:
			batch = append(batch, m)
		}
		for more := true; more && len(batch) < maxRead; {
			select {
			case m := <-msgs:
				batch = append(batch, m)
			default:
				more = false
			}
		}
		subs := make([]lodestone.Submission, len(batch))
		for i, m := range batch {
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			if subs[i], err = y.decode(m.Subject(), m.Headers(), m.Data(), meta.Sequence.Stream, meta.Timestamp); err != nil {
				return err
			}
		}
		if err := y.apply(ctx, subs, due); err != nil {
			return err
		}
		if err := batch[len(batch)-1].Ack(); err != nil {
			return err
		}
		applied(len(batch))
	}
}

func (y *system) decode(subject string, header nats.Header, data []byte, seq uint64, at time.Time) (lodestone.Submission, error) {
	sub, rejected := event.DecodeSubmission(event.Message{Subject: subject, Header: header, Data: data, Seq: seq, Time: at}, func(name string) *lodestone.Form {
		if f := y.set.Forms[name]; f != nil {
			return &f.Form
		}
		return nil
	})
	if rejected != nil {
		return sub, errors.New(rejected.Detail)
	}
	return sub, nil
}

// apply scores submissions and stores what comes of them.
func (y *system) apply(ctx context.Context, subs []lodestone.Submission, due time.Time) error {
	emails := make([]string, 0, len(subs))
	for i := range subs {
		emails = append(emails, string(subs[i].Email))
	}
	known, err := y.load(ctx, emails)
	if err != nil {
		return err
	}
	ev := y.set.Schema.Evaluator()
	defer ev.Release()
	var touchpoints []touchpoint
	changed := map[string]lead{}
	for i := range subs {
		email := string(subs[i].Email)
		l, again := changed[email]
		if !again {
			l = known[email]
		}
		if l.Last == subs[i].ID {
			continue // it was applied before
		}
		was := l.Sequence
		if l, err = y.decide(ev, l, &subs[i]); err != nil {
			return err
		}
		changed[email] = l
		if was == "" && l.Sequence != "" {
			name, _ := subs[i].Fields.Value("first_name").(string)
			touchpoints = append(touchpoints, touchpoint{email + ".invite", email, name})
		}
	}
	leads := make([]lead, 0, len(changed))
	for _, l := range changed {
		leads = append(leads, l)
	}
	return y.store(ctx, leads, touchpoints, due)
}

// decide scores one submission and assigns a sequence.
func (y *system) decide(ev *scoring.Evaluator, l lead, sub *lodestone.Submission) (lead, error) {
	l.Email, l.Last, l.At, l.Profile = string(sub.Email), sub.ID, sub.At, sub.Fields
	l.Submissions++
	ev.Bind(scoring.Facts{Form: sub.Form, Fields: sub.Fields, Context: &sub.Context, Lead: &lodestone.Lead{Email: sub.Email, Submissions: l.Submissions, FirstSeen: sub.At}, Now: sub.At})
	l.Ledger = nil
	sum := 0.0
	for _, r := range y.set.Rules {
		if r.When != nil {
			ok, err := ev.Bool(r.When)
			if err != nil {
				return l, err
			}
			if !ok {
				continue
			}
		}
		points := r.Points
		if r.PointsExpr != nil {
			var err error
			if points, err = ev.Number(r.PointsExpr); err != nil {
				return l, err
			}
		}
		l.Ledger = append(l.Ledger, line{r.Name, points})
		sum += points
	}
	before := l.Band
	l.Score = int(sum)
	l.Band = y.set.Band(l.Score)
	ev.SetScore(l.Score, l.Band, before)
	if l.Sequence != "" {
		return l, nil
	}
	for _, q := range y.set.Sequences {
		ok, err := ev.Bool(q.When)
		if err != nil {
			return l, err
		}
		if ok {
			l.Sequence = q.Name
			break
		}
	}
	return l, nil
}

// caller makes the check and the act at a provider.
func (y *system) caller(provider string) func(context.Context, touchpoint) error {
	ask := func(ctx context.Context, method, path string, body []byte) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, method, provider+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := y.client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
		return b, err
	}
	return func(ctx context.Context, t touchpoint) error {
		b, err := ask(ctx, http.MethodGet, "/unsubscribed?email="+url.QueryEscape(t.Email), nil)
		if err != nil {
			return err
		}
		var found []json.RawMessage
		if err := json.Unmarshal(b, &found); err != nil || len(found) > 0 {
			return err
		}
		body, err := json.Marshal(map[string]string{"email": t.Email, "firstName": t.FirstName})
		if err != nil {
			return err
		}
		_, err = ask(ctx, http.MethodPost, "/invites", body)
		return err
	}
}

// dispatch sends touchpoints that are due.
func (y *system) dispatch(ctx context.Context, items int) (outcome, error) {
	if err := y.fill(ctx, items, time.Time{}); err != nil {
		return outcome{}, err
	}
	var acted atomic.Int64
	all := make(chan struct{})
	provider, closed, err := bench.Provider(time.Millisecond, func([]byte, time.Time) {
		if acted.Add(1) == int64(items) {
			close(all)
		}
	})
	if err != nil {
		return outcome{}, err
	}
	defer closed()
	return y.measured(items, func() error {
		stop, err := y.work(ctx, y.caller(provider))
		if err != nil {
			return err
		}
		select {
		case <-all:
		case <-time.After(2 * time.Minute):
			err = fmt.Errorf("%d of %d touchpoints were sent within two minutes", acted.Load(), items)
		}
		return errors.Join(err, stop())
	})
}

// latency publishes at an even pace and looks how long each takes to arrive at the provider.
func (y *system) latency(ctx context.Context, items int) (o outcome, err error) {
	if err := y.reset(ctx); err != nil {
		return o, err
	}
	var mu sync.Mutex
	published := map[string]time.Time{}
	var took []time.Duration
	arrived := make(chan struct{}, 2*items+2*bench.PerSecond)
	provider, closed, err := bench.Provider(0, func(b []byte, at time.Time) {
		var contact struct{ Email string }
		if json.Unmarshal(b, &contact) != nil {
			return
		}
		mu.Lock()
		took = append(took, at.Sub(published[contact.Email]))
		mu.Unlock()
		arrived <- struct{}{}
	})
	if err != nil {
		return o, err
	}
	defer closed()
	stop, err := y.work(ctx, y.caller(provider))
	if err != nil {
		return o, err
	}
	reading, cancel := context.WithCancel(ctx)
	read := make(chan error, 1)
	go func() { read <- y.read(reading, time.Time{}, func(int) {}) }()
	defer func() { cancel(); err = errors.Join(err, <-read, stop()) }()
	publish := func(count int) error {
		tick := time.NewTicker(time.Second / bench.PerSecond)
		defer tick.Stop()
		errs := make(chan error, count)
		for range count {
			<-tick.C
			y.n++
			n := y.n
			go func() {
				m := bench.Form(n, n)
				mu.Lock()
				published[bench.Address(n)] = time.Now()
				mu.Unlock()
				_, err := y.broker.JetStream().PublishMsg(ctx, m)
				errs <- err
			}()
		}
		for range count {
			if err := <-errs; err != nil {
				return err
			}
		}
		for range count {
			select {
			case <-arrived:
			case <-time.After(30 * time.Second):
				return errors.New("an act did not arrive within 30 s")
			}
		}
		return nil
	}
	if err := publish(bench.PerSecond); err != nil { // the first second makes connections and is not counted
		return o, err
	}
	mu.Lock()
	took = took[:0]
	mu.Unlock()
	got, err := y.measured(items, func() error { return publish(items) })
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(took)
	return outcome{P50: bench.Quantile(took, 0.5), P99: bench.Quantile(took, 0.99), CPU: got.CPU, Memory: got.Memory}, err
}

// measured measures fn, which does items things; the server's share counts.
func (y *system) measured(items int, fn func() error) (o outcome, err error) {
	cpu, begin := bench.ProcessorTime()+serverTime(y.server), time.Now()
	stop, most := make(chan struct{}), make(chan int64)
	go func() {
		peak := int64(0)
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			peak = max(peak, bench.OwnMemory()+serverMemory(y.server))
			select {
			case <-tick.C:
			case <-stop:
				tick.Stop()
				most <- max(peak, bench.OwnMemory()+serverMemory(y.server))
				return
			}
		}
	}()
	err = fn()
	took := time.Since(begin)
	cpu = bench.ProcessorTime() + serverTime(y.server) - cpu
	close(stop)
	return outcome{
		Rate: float64(items) / took.Seconds(), CPU: cpu.Seconds() * 1000 / float64(items), Memory: float64(<-most) / 1e6,
	}, err
}
