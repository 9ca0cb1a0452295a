// Package profile lets an operator look into a running process, with the profiles that `go tool pprof`
// reads, and sees to it that collecting garbage does not cost more than it needs to.
//
// A profile of memory may hold addresses and secrets, so it is served on this machine alone.
package profile

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"
)

// Serve serves the profiles at an address of this machine, as in 127.0.0.1:6060, until stop is called; a
// port of 0 takes a free one. at is where they are.
func Serve(address string) (at string, stop func() error, err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "", nil, fmt.Errorf("want host:port as in 127.0.0.1:6060, not %q", address)
	}
	if !loopback(host) {
		return "", nil, fmt.Errorf("%q is not an address of this machine alone, and profiles hold what the process has in memory; use 127.0.0.1", host)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: handler(), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }() // until stop
	return l.Addr().String(), func() error {
		err := s.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}, nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// handler answers requests that name this machine: a page elsewhere whose name was made to lead here does not.
func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if !loopback(host) || r.Header.Get("Sec-Fetch-Site") == "cross-site" {
			http.Error(w, "profiles are for this machine alone", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}
