package bench

import (
	"time"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone/rules"
)

// What the peers (folder peers, a module of its own) share with the benches, so that they do the same
// job: the rules, the submissions, the provider, and how time and memory are told.

// Workers is how many calls are out at a time.
const Workers = workers

// PerSecond is how many submissions a second latency is measured at.
const PerSecond = perSecond

// Ruleset compiles the rules that every bench decides by.
func Ruleset() (*rules.Set, error) {
	book, err := rulebook("0s")
	if err != nil {
		return nil, err
	}
	return book.Current(), nil
}

// Form is the n-th message, about the lead of that number.
func Form(lead, n int) *nats.Msg { return form(lead, n) }

// Address is the lead's.
func Address(lead int) string { return address(lead) }

// Provider starts a provider that answers after delay and tells acted of each act. It is at url until
// it is closed.
func Provider(delay time.Duration, acted func(body []byte, at time.Time)) (url string, closed func(), err error) {
	p, err := newProvider(delay, acted)
	if err != nil {
		return "", nil, err
	}
	return p.url, p.Close, nil
}

// ProcessorTime is what this process has used so far.
func ProcessorTime() time.Duration { return processorTime() }

// OwnMemory is this process's own memory in bytes, mapped files not counted.
func OwnMemory() int64 { return ownMemory() }

// Median is the median of several rounds, with the lowest and the highest.
func Median(rounds []float64) Figure { return figure(rounds) }

// Quantile returns the q-quantile of sorted times, in milliseconds.
func Quantile(sorted []time.Duration, q float64) float64 { return ms(quantile(sorted, q)) }
