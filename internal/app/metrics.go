package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// metrics counts what is committed and reads the rest when it is asked. Labels come from closed sets
// and from rule files, never from submissions.
type metrics struct {
	registry    *prometheus.Registry
	submissions *prometheus.CounterVec
	touchpoints *prometheus.CounterVec
	faults      *prometheus.CounterVec
	rules       prometheus.Gauge
	version     *prometheus.GaugeVec
	late        *late
}

// gauges is what is read at each scrape.
type gauges interface {
	OldestDue(context.Context) (time.Time, error)
	State(context.Context, lodestone.Email) (sequencer.State, error)
	AttentionCounts(context.Context) (map[lodestone.AttentionKind]int, error)
	Size() int64
}

func newMetrics(store gauges, lag func(context.Context) (uint64, error)) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		submissions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lodestone_submissions_total",
			Help: "Submissions applied, by form (empty for one that no rule file declares) and result.",
		}, []string{"form", "result"}),
		touchpoints: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lodestone_touchpoints_total",
			Help: "Changes of a touchpoint's state, by the state it came to and why.",
		}, []string{"sequence", "step", "state", "reason"}),
		faults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lodestone_rule_faults_total",
			Help: "Rules and conditions that failed at run time and counted for nothing.",
		}, []string{"rule"}),
		rules: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lodestone_rules_invalid",
			Help: "Faults in the rule files as they stand; above 0 an earlier version is in force, or none.",
		}),
	}
	m.version = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "lodestone_rules_info",
		Help: "1, with the version of the rule files that new decisions are made with.",
	}, []string{"version"})
	m.late = newLate(store.State)
	m.registry.MustRegister(m.submissions, m.touchpoints, m.faults, m.rules, m.version, &reader{store, m.late, lag},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// committed counts one change.
func (m *metrics) committed(c *sequencer.Change) {
	m.late.committed(c)
	e := c.Entry
	if e == nil {
		return
	}
	if d := e.Decision; d != nil {
		result := "accepted"
		switch d.Reason {
		case lodestone.ReasonDuplicate, lodestone.ReasonErased: // of somebody who was erased: from before that
			result = "duplicate"
		case lodestone.ReasonBackfill:
			result = "backfill"
		}
		m.submissions.WithLabelValues(d.Form, result).Inc()
		for _, f := range d.Faults {
			m.faults.WithLabelValues(f.Rule).Inc()
		}
	}
	for i := range e.Touchpoints {
		t := &e.Touchpoints[i]
		m.touchpoints.WithLabelValues(t.Sequence, t.Step, string(t.State), string(t.Reason)).Inc()
	}
}

// rejected counts a submission that was put under attention.
func (m *metrics) rejected(a lodestone.Attention, declared bool) {
	form := a.Form
	if !declared {
		form = "" // it comes from outside, and there is no end to what may stand there
	}
	m.submissions.WithLabelValues(form, "rejected").Inc()
}

// reader is a collector of what the store and the broker say when they are asked.
type reader struct {
	store gauges
	late  *late
	lag   func(context.Context) (uint64, error)
}

var (
	descDueLag = prometheus.NewDesc("lodestone_due_lag_seconds", "Age of the oldest touchpoint that is due and not done, one included that a provider's trouble puts off.", nil, nil)
	descLag    = prometheus.NewDesc("lodestone_intake_lag", "Submissions in the stream that are not applied yet.", nil, nil)
	descAttn   = prometheus.NewDesc("lodestone_attention", "Things that a human must look at.", []string{"kind"}, nil)
	descSize   = prometheus.NewDesc("lodestone_store_size_bytes", "Size of the store file.", nil, nil)
)

// Describe sends the descriptions of what Collect may send.
func (r *reader) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descDueLag, descLag, descAttn, descSize} {
		ch <- d
	}
}

// Collect leaves out what cannot be read at the moment: a missing value says so, a wrong one would
// not.
func (r *reader) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	due, err := r.store.OldestDue(ctx)
	putOff, lateErr := r.late.oldest(ctx)
	if err == nil && lateErr == nil {
		lag := 0.0
		for _, at := range []time.Time{due, putOff} {
			if !at.IsZero() {
				lag = max(lag, time.Since(at).Seconds())
			}
		}
		gauge(descDueLag, lag)
	}
	if n, err := r.lag(ctx); err == nil {
		gauge(descLag, float64(n))
	}
	if counts, err := r.store.AttentionCounts(ctx); err == nil {
		for _, k := range []lodestone.AttentionKind{
			lodestone.AttentionSubmission, lodestone.AttentionTouchpoint, lodestone.AttentionConnector,
			lodestone.AttentionRule, lodestone.AttentionEnrollment,
		} {
			gauge(descAttn, float64(counts[k]), string(k))
		}
	}
	gauge(descSize, float64(r.store.Size()))
}
