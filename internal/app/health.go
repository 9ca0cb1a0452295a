package app

import (
	"encoding/json"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lodestonehq/lodestone/internal/gateway"
)

// Notice is one thing that /readyz tells.
type Notice struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// readiness answers /readyz: ready unless submissions cannot be accepted or all acts are refused.
type readiness struct {
	mu    sync.Mutex // guards phase
	phase string     // "starting", "" while running, "stopping"

	// reasons and warnings look at the parts when they are asked.
	reasons, warnings func() []Notice
}

func (r *readiness) set(phase string) {
	r.mu.Lock()
	r.phase = phase
	r.mu.Unlock()
}

// state returns why the worker is not ready, and what is amiss although it is.
func (r *readiness) state() (reasons, warnings []Notice) {
	r.mu.Lock()
	phase := r.phase
	r.mu.Unlock()
	reasons, warnings = []Notice{}, []Notice{}
	switch phase {
	case "starting":
		return append(reasons, Notice{phase, "the worker is starting"}), warnings
	case "stopping":
		return append(reasons, Notice{phase, "the worker is stopping"}), warnings
	}
	return append(reasons, r.reasons()...), append(warnings, r.warnings()...)
}

// healthHandler serves liveness, readiness and metrics, and hands webhooks and forms on.
func healthHandler(ready *readiness, registry *prometheus.Registry, hooks, forms, people http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(gateway.HooksPath, hooks)
	mux.Handle(gateway.FormsPath, forms)
	mux.Handle(gateway.AssetsPath, forms)
	mux.Handle(gateway.TokensPath, forms)
	mux.Handle(gateway.UnsubscribePath, people)
	mux.Handle(gateway.ConfirmPath, people)
	mux.Handle(gateway.ScriptPath, gateway.Script())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		reasons, warnings := ready.state()
		w.Header().Set("Content-Type", "application/json")
		if len(reasons) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(struct {
			Ready    bool     `json:"ready"`
			Reasons  []Notice `json:"reasons"`
			Warnings []Notice `json:"warnings"`
		}{len(reasons) == 0, reasons, warnings})
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}
