package app

import (
	"context"
	"net/http"
	"time"

	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// formsHandler takes in forms. Those that come together share a sync of the disk.
func (w *Worker) formsHandler() http.Handler {
	o := gateway.FormOptions{
		Rules: w.currentRules, Keys: w.keys, Links: w.links, Seal: w.seal, Origins: w.opts.Origins, PublicURL: w.opts.PublicURL,
		Secrets:    w.opts.FormSecrets,
		Registerer: w.metrics.registry, Log: w.log,
	}
	if w.broker != nil { // without one the data directory is an unclaimed copy
		o.Recent = w.recent
		if w.opts.MX {
			o.MX = gateway.NewMX(nil)
		}
		o.Publish = broker.NewGroup(syncedPublisher{w.broker}.PublishBatch).Publish
	}
	return gateway.Forms(o)
}

// recentFor is how long the start waits for what came before it to be counted; what is not read by then is not.
const recentFor = 2 * time.Second

// recent reads what the gateway counted before a restart.
func (w *Worker) recent(span time.Duration, each func(event.Message)) {
	ctx, cancel := context.WithTimeout(context.Background(), recentFor)
	defer cancel()
	if err := gateway.Recent(ctx, w.broker.JetStream(), span, each); err != nil {
		w.log.WarnContext(ctx, "not everything that came within the last hour is counted against floods of forms", "error", err)
	}
}

// currentRules are the rules in force, nil while there are none.
func (w *Worker) currentRules() *rules.Set {
	if book := w.book.Load(); book != nil {
		return book.Current()
	}
	return nil
}
