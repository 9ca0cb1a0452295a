package access

import "net/http"

// Nothing is the policy of an answer that is no page: it loads, sends and shows nothing, nowhere.
const nothing = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// strict is how long browsers keep to TLS after they saw it: half a year.
const strict = "max-age=15768000"

// headers says with every answer what browsers are to make of it. A handler that shows a page says more.
func (g *Guard) headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", nothing)
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		if g.o.TLS {
			h.Set("Strict-Transport-Security", strict)
		}
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
