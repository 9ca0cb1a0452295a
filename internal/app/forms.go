package app

import (
	"net/http"

	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/rules"
)

// formsHandler takes in forms. Those that come together share a sync of the disk.
func (w *Worker) formsHandler() http.Handler {
	o := gateway.FormOptions{
		Rules: w.currentRules, Keys: w.keys, Links: w.links, Seal: w.seal, Origins: w.opts.Origins, PublicURL: w.opts.PublicURL,
		Secrets:    w.opts.FormSecrets,
		Registerer: w.metrics.registry, Log: w.log,
	}
	if w.broker != nil { // without one the data directory is an unclaimed copy
		o.Publish = broker.NewGroup(syncedPublisher{w.broker}.PublishBatch).Publish
	}
	return gateway.Forms(o)
}

// currentRules are the rules in force, nil while there are none.
func (w *Worker) currentRules() *rules.Set {
	if book := w.book.Load(); book != nil {
		return book.Current()
	}
	return nil
}
