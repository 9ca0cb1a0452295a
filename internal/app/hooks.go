package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralfactory"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/saasquatch"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/gateway"
)

// HookKinds are the webhooks of the connectors that have some, by kind. A new one is wired in here.
func HookKinds() map[string]connectors.Hook {
	return map[string]connectors.Hook{
		"referralrock":    referralrock.Hook(),
		"saasquatch":      saasquatch.Hook(),
		"referralfactory": referralfactory.Hook(),
	}
}

// hooks takes in the webhooks of the accounts there are.
func (w *Worker) hooks() http.Handler {
	o := gateway.HookOptions{Registerer: w.metrics.registry, Log: w.log}
	if w.broker != nil { // without one the data directory is an unclaimed copy
		o.Publisher = syncedPublisher{w.broker}
	}
	kinds := HookKinds()
	for name, a := range w.accounts {
		if hook, ok := kinds[a.Kind().Name]; ok {
			o.Accounts = append(o.Accounts, gateway.HookAccount{Settings: a.Settings(), Hook: hook, Secrets: w.opts.HookSecrets[name]})
		}
	}
	return gateway.Hooks(o)
}

// syncedPublisher stores messages as long as what is stored is on disk.
type syncedPublisher struct{ broker *broker.Broker }

var errBrokerAway = errors.New("the broker takes nothing at the moment")

// PublishBatch implements [gateway.Publisher].
func (p syncedPublisher) PublishBatch(ctx context.Context, msgs []*nats.Msg) error {
	if s := p.broker.Status(); !s.Ready() {
		return fmt.Errorf("%w: %s", errBrokerAway, s.Detail)
	}
	return p.broker.PublishBatch(ctx, msgs)
}
