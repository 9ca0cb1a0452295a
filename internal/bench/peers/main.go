// Command peers does Lodestone's job as a competent user would write it with River on Postgres and
// with Asynq on Redis, and measures both in turns with Lodestone itself: submissions read from a synced
// JetStream in bulk, scored by the same rules, the lead stored and its first touchpoint scheduled; then
// the check and the act at the same provider, 64 at a time.
//
// What the peers leave out is what Lodestone keeps beside: the journal with the reason for everything,
// the gate's verdicts, suppressions, and the intent that keeps a touchpoint from being acted on twice.
// A job of theirs that was under way when the process died is run again.
//
// The script run beside starts the servers. Each system runs in a process of its own, and what its
// server uses counts as its own.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"text/tabwriter"

	"github.com/lodestonehq/lodestone/internal/bench"
)

type settings struct {
	rounds, items, backlog, dispatched, timed int
	dir                                       string
	postgres, redis                           string // how to reach them
	postgresPID, redisPID                     int
	json                                      bool
	system                                    string
}

func main() {
	var s settings
	flag.IntVar(&s.rounds, "rounds", 3, "how often each system does each job")
	flag.IntVar(&s.items, "items", 30_000, "submissions of an intake")
	flag.IntVar(&s.backlog, "backlog", 200_000, "leads, each with a waiting touchpoint, for the second intake")
	flag.IntVar(&s.dispatched, "dispatched", 10_000, "touchpoints of a dispatch")
	flag.IntVar(&s.timed, "timed", 1_000, "submissions of a look at the latency")
	flag.StringVar(&s.dir, "dir", "", "where to put files")
	flag.StringVar(&s.postgres, "postgres", "", "connection string of PostgreSQL")
	flag.StringVar(&s.redis, "redis", "", "path of Redis' socket")
	flag.IntVar(&s.postgresPID, "postgres-pid", 0, "PostgreSQL's first process")
	flag.IntVar(&s.redisPID, "redis-pid", 0, "Redis' process")
	flag.BoolVar(&s.json, "json", false, "print one JSON document")
	flag.StringVar(&s.system, "system", "", "be this system and do what standard input asks; the program starts itself so")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if s.system == "" {
		err = orchestrate(ctx, &s)
	} else {
		err = serve(ctx, &s, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// job is one line that a system's process reads; it answers with one outcome.
type job struct {
	Do    string `json:"do"` // "intake", "fill", "dispatch" or "latency"
	Items int    `json:"items"`
	Leads int    `json:"leads"` // in the store before; the intake of a peer resets it when 0
}

type outcome struct {
	Rate   float64 `json:"rate,omitempty"` // items a second
	P50    float64 `json:"p50_ms,omitempty"`
	P99    float64 `json:"p99_ms,omitempty"`
	CPU    float64 `json:"cpu_s_per_1000,omitempty"`
	Memory float64 `json:"peak_memory_mb,omitempty"`
	Fault  string  `json:"fault,omitempty"`
}

// table is what is printed in the end, by system and job.
type table map[string]map[string]row

type row struct {
	Rate   bench.Figure `json:"rate,omitzero"`
	P50    bench.Figure `json:"p50_ms,omitzero"`
	P99    bench.Figure `json:"p99_ms,omitzero"`
	CPU    bench.Figure `json:"cpu_s_per_1000,omitzero"`
	Memory bench.Figure `json:"peak_memory_mb,omitzero"`
}

var systems = []string{"lodestone", "river", "asynq"}

// orchestrate has every system do each job in turns.
func orchestrate(ctx context.Context, s *settings) error {
	children := map[string]*child{}
	for _, name := range systems {
		c, err := start(ctx, name)
		if err != nil {
			return err
		}
		defer c.stop()
		children[name] = c
	}
	out := table{}
	for _, name := range systems {
		out[name] = map[string]row{}
	}
	jobs := []struct {
		name string
		job
	}{
		{"intake, empty", job{"intake", s.items, 0}},
		{"intake, backlog", job{"intake", s.items, s.backlog}},
		{"dispatch", job{"dispatch", s.dispatched, 0}},
		{"latency", job{"latency", s.timed, 0}},
	}
	for _, j := range jobs {
		all := map[string][]outcome{}
		if j.Leads > 0 {
			for _, name := range systems[1:] { // Lodestone's bench fills a store of its own each time
				fmt.Fprintf(os.Stderr, "%s: filling with %d leads\n", name, j.Leads)
				if _, err := children[name].do(job{"fill", 0, j.Leads}); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
		}
		for round := range s.rounds {
			for _, name := range systems {
				o, err := children[name].do(j.job)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", name, j.name, err)
				}
				fmt.Fprintf(os.Stderr, "%s: %s, round %d of %d: %.0f/s, p50 %.1f ms, p99 %.1f ms, %.3f CPU s per 1,000, %.0f MB\n", name, j.name, round+1, s.rounds, o.Rate, o.P50, o.P99, o.CPU, o.Memory)
				all[name] = append(all[name], o)
			}
		}
		for name, list := range all {
			out[name][j.name] = summed(list)
		}
	}
	if s.json {
		return json.NewEncoder(os.Stdout).Encode(map[string]any{
			"systems": out, "rounds": s.rounds, "items": s.items, "backlog": s.backlog, "dispatched": s.dispatched, "timed": s.timed,
		})
	}
	return out.print(os.Stdout)
}

func summed(list []outcome) row {
	of := func(get func(outcome) float64) bench.Figure {
		var v []float64
		for _, o := range list {
			v = append(v, get(o))
		}
		return bench.Median(v)
	}
	return row{
		of(func(o outcome) float64 { return o.Rate }), of(func(o outcome) float64 { return o.P50 }), of(func(o outcome) float64 { return o.P99 }),
		of(func(o outcome) float64 { return o.CPU }), of(func(o outcome) float64 { return o.Memory }),
	}
}

func (t table) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "\tLodestone\tRiver + Postgres\tAsynq + Redis")
	line := func(title string, format func(map[string]row) string) {
		fmt.Fprint(tw, title)
		for _, name := range systems {
			fmt.Fprint(tw, "\t", format(t[name]))
		}
		fmt.Fprintln(tw)
	}
	spread := func(f bench.Figure, digits int) string {
		return fmt.Sprintf("%.*f (%.*f to %.*f)", digits, f.Median, digits, f.Low, digits, f.High)
	}
	for _, name := range []string{"intake, empty", "intake, backlog", "dispatch"} {
		line(name+", /s", func(r map[string]row) string { return spread(r[name].Rate, 0) })
		line(name+", CPU s per 1,000", func(r map[string]row) string { return spread(r[name].CPU, 3) })
		line(name+", peak MB", func(r map[string]row) string { return spread(r[name].Memory, 0) })
	}
	line("latency p50, ms", func(r map[string]row) string { return spread(r["latency"].P50, 1) })
	line("latency p99, ms", func(r map[string]row) string { return spread(r["latency"].P99, 1) })
	return tw.Flush()
}

// child is a process that is one system.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func start(ctx context.Context, system string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, append(os.Args[1:], "-system="+system)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &child{cmd, in, json.NewDecoder(out)}, cmd.Start()
}

func (c *child) do(j job) (o outcome, err error) {
	if err := json.NewEncoder(c.in).Encode(j); err != nil {
		return o, err
	}
	if err := c.out.Decode(&o); err != nil {
		return o, err
	}
	if o.Fault != "" {
		err = errors.New(o.Fault)
	}
	return o, err
}

func (c *child) stop() {
	_ = c.in.Close()
	_ = c.cmd.Wait() // what it had to say it said
}

// serve does the jobs that in asks for, until it ends.
func serve(ctx context.Context, s *settings, in io.Reader, out io.Writer) error {
	do, closed, err := open(ctx, s)
	if err != nil {
		return err
	}
	defer closed()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var j job
		if err := json.NewDecoder(strings.NewReader(lines.Text())).Decode(&j); err != nil {
			return err
		}
		o, err := do(ctx, j)
		if err != nil {
			o.Fault = err.Error()
		}
		if err := json.NewEncoder(out).Encode(o); err != nil {
			return err
		}
	}
	return lines.Err()
}

// open opens the system that this process is.
func open(ctx context.Context, s *settings) (do func(context.Context, job) (outcome, error), closed func(), err error) {
	switch s.system {
	case "lodestone":
		return product(s), func() {}, nil
	case "river":
		r, err := openRiver(ctx, s.postgres)
		if err != nil {
			return nil, nil, err
		}
		return peer(ctx, s, r, s.postgresPID)
	case "asynq":
		return peer(ctx, s, openAsynq(s.redis), s.redisPID)
	}
	return nil, nil, fmt.Errorf("there is no system %q", s.system)
}

// product runs the product's own benches, one round at a time.
func product(s *settings) func(context.Context, job) (outcome, error) {
	return func(ctx context.Context, j job) (o outcome, err error) {
		err = bench.Run(ctx, j.Do, bench.Options{Dir: s.dir, Rounds: 1, Items: j.Items, Leads: j.Leads}, func(r bench.Result) error {
			o = outcome{Rate: r.Ours.Median, P50: r.P50.Median, P99: r.P99.Median, CPU: r.CPU, Memory: r.Memory}
			if j.Do == "latency" {
				o.Rate = 0
			}
			return nil
		})
		return o, err
	}
}
