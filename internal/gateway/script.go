package gateway

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"strings"
	"time"
)

// ScriptPath is where the snippet is served.
const ScriptPath = "/lodestone.js"

//go:embed lodestone.js
var script []byte

var (
	scriptTag  = func() string { s := sha256.Sum256(script); return hex.EncodeToString(s[:8]) }()
	scriptGzip = func() []byte {
		var b bytes.Buffer
		w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level is one there is
		_, _ = w.Write(script)                                // into memory
		_ = w.Close()
		return b.Bytes()
	}()
)

// Script serves the snippet that pages embed; mount it at [ScriptPath].
func Script() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			no := refuse(http.StatusMethodNotAllowed, resultBadMethod, "the script is fetched with GET")
			no.allow = "GET, HEAD"
			no.write(w)
			return
		}
		h.Set("Content-Type", "text/javascript; charset=utf-8")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "public, max-age=300")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		h.Set("Access-Control-Allow-Origin", "*") // so that a page may check its integrity
		h.Set("Vary", "Accept-Encoding")
		body, tag := script, scriptTag
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			h.Set("Content-Encoding", "gzip")
			body, tag = scriptGzip, scriptTag+"-gzip"
		}
		h.Set("ETag", `"`+tag+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
}
