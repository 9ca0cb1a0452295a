package access

import (
	"maps"
	"net/http"
)

// Nothing is the policy of an answer that is no page: it loads, sends and shows nothing, nowhere.
const nothing = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// strict is how long browsers keep to TLS after they saw it: half a year.
const strict = "max-age=15768000"

// headers says with every answer what browsers are to make of it. A handler that shows a page says more.
func (g *Guard) headers(next http.Handler) http.Handler {
	always := http.Header{ // made once for all answers; whoever adds to one of them gets a copy
		"X-Content-Type-Options":  {"nosniff"},
		"X-Frame-Options":         {"DENY"},
		"Referrer-Policy":         {"no-referrer"},
		"Content-Security-Policy": {nothing},
		"Permissions-Policy":      {"camera=(), geolocation=(), microphone=(), payment=(), usb=()"},
	}
	if g.o.TLS {
		always["Strict-Transport-Security"] = []string{strict}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), always)
		next.ServeHTTP(w, r)
	})
}

// private is said of what is guarded: nobody keeps it, and no other site has it among its own. Browsers say
// where a form was posted from only where the referrer policy lets them.
func private(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("X-Robots-Tag", "noindex")
	h.Add("Vary", "Cookie, Authorization")
}
