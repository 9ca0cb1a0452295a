package connectors

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts the requests of one account. Labels hold the account's name, the operation and the
// class, all from closed sets.
type metrics struct {
	connector string
	requests  *prometheus.CounterVec   // nil: nobody counts
	seconds   *prometheus.HistogramVec // nil: nobody counts
}

// newMetrics registers the metrics, or takes the ones that another account registered before.
func newMetrics(reg prometheus.Registerer, connector string) (metrics, error) {
	if reg == nil {
		return metrics{}, nil
	}
	requests, err := shared(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lodestone_provider_requests_total",
		Help: "Requests to providers by what their outcome means. A read that is repeated counts each time.",
	}, []string{"connector", "operation", "class"}))
	if err != nil {
		return metrics{}, err
	}
	seconds, err := shared(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "lodestone_provider_request_seconds",
		Help:    "Time from the first byte of a request to the end of its answer, waiting for the account's rate left out.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"connector", "operation"}))
	if err != nil {
		return metrics{}, err
	}
	return metrics{connector: connector, requests: requests, seconds: seconds}, nil
}

func shared[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	err := reg.Register(c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if old, ok := there.ExistingCollector.(C); ok {
			return old, nil
		}
	}
	return c, err
}

func (m metrics) observe(operation string, class Class, took time.Duration) {
	if m.requests == nil {
		return
	}
	m.requests.WithLabelValues(m.connector, operation, string(class)).Inc()
	m.seconds.WithLabelValues(m.connector, operation).Observe(took.Seconds())
}
