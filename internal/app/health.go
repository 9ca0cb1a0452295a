package app

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lodestonehq/lodestone/internal/access"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/console"
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

	// knows reports whether somebody is told the details; nil: nobody is.
	knows func(*http.Request) bool
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

// routes are everything that is served over the network, with what each needs. What is not here is not
// served, and what says nothing of its need is answered to nobody.
func (w *Worker) routes() []access.Route {
	forms, people := w.formsHandler(), w.people()
	list := []access.Route{
		{Pattern: gateway.HooksPath, Need: access.NeedAnybody, Handler: w.hooks()},
		{Pattern: gateway.FormsPath, Need: access.NeedAnybody, Handler: forms},
		{Pattern: gateway.AssetsPath, Need: access.NeedAnybody, Handler: forms},
		{Pattern: gateway.TokensPath, Need: access.NeedAnybody, Handler: forms},
		{Pattern: gateway.UnsubscribePath, Need: access.NeedAnybody, Handler: people},
		{Pattern: gateway.ConfirmPath, Need: access.NeedAnybody, Handler: people},
		{Pattern: gateway.ScriptPath, Need: access.NeedAnybody, Handler: gateway.Script()},
		{Pattern: "GET /healthz", Need: access.NeedAnybody, Handler: http.HandlerFunc(healthz)},
		{Pattern: "GET /readyz", Need: access.NeedAnybody, Handler: &w.ready},
		{Pattern: "GET /metrics", Need: access.NeedMetrics, Handler: promhttp.HandlerFor(w.metrics.registry, promhttp.HandlerOpts{})},
	}
	for _, route := range w.api().Routes() {
		need, ok := map[api.Right]access.Need{api.ToRead: access.NeedRead, api.ToOperate: access.NeedOperate}[route.Right]
		if ok {
			list = append(list, access.Route{Pattern: route.Pattern, Need: need, Handler: named(route.Handler)})
		}
	}
	// What is asked for on the socket alone looks from here like what there is not.
	list = append(list, access.Route{Pattern: api.Path, Need: access.NeedRead, Handler: api.Nothing()})
	return append(list, w.console.Routes()...)
}

// named has the API put on record who was let in.
func named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(api.WithActor(r.Context(), access.From(r.Context()).String())))
	})
}

// webHandler makes what the listener serves. It is called once.
func (w *Worker) webHandler() http.Handler {
	w.console = console.New(console.Options{
		Client: w.Client(), Log: w.log,
		Ready: func() (reasons, warnings []string) {
			r, n := w.ready.state()
			return details(r), details(n)
		},
	})
	o := access.Options{
		Book: access.OpenBook(w.opts.Data), Proxies: w.opts.Proxies, AcceptPlain: w.opts.AcceptPlain, TLS: w.certificate != nil,
		Outside: len(w.opts.Proxies.Trusted) > 0 || outside(w.opts.PublicURL),
		Page:    w.console.Refused, Registerer: w.metrics.registry, Log: w.log,
	}
	guard := access.NewGuard(o)
	w.console.Door = guard
	w.ready.knows = guard.Knows
	w.served = w.routes()
	return timely(guard.Handler(w.served))
}

// outside reports whether an address leads others than this machine here.
func outside(publicURL string) bool {
	u, err := url.Parse(publicURL)
	if err != nil || publicURL == "" {
		return false
	}
	a, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() != "localhost" && (err != nil || !a.IsLoopback())
}

func details(list []Notice) (texts []string) {
	for _, n := range list {
		texts = append(texts, n.Detail)
	}
	return texts
}

func healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}

// ServeHTTP implements [http.Handler].
func (r *readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	reasons, warnings := r.state()
	if r.knows == nil || !r.knows(req) {
		reasons, warnings = bare(reasons), bare(warnings)
	}
	w.Header().Set("Content-Type", "application/json")
	if len(reasons) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(struct {
		Ready    bool     `json:"ready"`
		Reasons  []Notice `json:"reasons"`
		Warnings []Notice `json:"warnings"`
	}{len(reasons) == 0, reasons, warnings})
}

// bare leaves of notices what strangers may read: neither names nor numbers, each code once.
func bare(list []Notice) []Notice {
	out := []Notice{}
	for _, n := range list {
		if !slices.ContainsFunc(out, func(o Notice) bool { return o.Code == n.Code }) {
			out = append(out, Notice{n.Code, strings.ReplaceAll(n.Code, "_", " ") + "; the worker's machine, and whoever shows a token, is told more"})
		}
	}
	return out
}
