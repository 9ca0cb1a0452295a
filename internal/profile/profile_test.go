package profile

import (
	"io"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func TestServeIsForThisMachine(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "example.com:0", "6060"} {
		if at, _, err := Serve(address); err == nil {
			t.Errorf("Serve(%q) serves at %s", address, at)
		}
	}
	at, stop, err := Serve("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		host, site string
		status     int
	}{{at, "", 200}, {"localhost", "", 200}, {"rebound.example", "", 403}, {at, "cross-site", 403}} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at+"/debug/pprof/goroutine?debug=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		if c.site != "" {
			req.Header.Set("Sec-Fetch-Site", c.site)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil || resp.StatusCode != c.status || (c.status == 200) != strings.Contains(string(body), "goroutine profile") {
			t.Errorf("host %q, site %q: %d %v %.40q, want %d", c.host, c.site, resp.StatusCode, err, body, c.status)
		}
	}
}

var keep []byte // what a test holds on to

func TestKeepRoom(t *testing.T) {
	t.Setenv("GOGC", "") // restored by the test; the package reads it once
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	KeepRoom()
	percent := func(ok func(int) bool) {
		t.Helper()
		for { // the test's own timeout ends it
			runtime.GC()
			is := debug.SetGCPercent(100)
			debug.SetGCPercent(is)
			if ok(is) {
				return
			}
			time.Sleep(time.Millisecond) // finalizers run after a collection, when they come to it
		}
	}
	percent(func(p int) bool { return p > 200 })
	keep = make([]byte, 256<<20)
	percent(func(p int) bool { return p == 100 })
	keep = nil
	percent(func(p int) bool { return p > 200 })
}
