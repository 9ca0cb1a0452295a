package connectors

import (
	"net/http"
	"strings"
	"time"
)

// maxRetryAfter bounds how long a provider can ask us to wait. Beyond a day it is more likely a
// mistake than a plan.
const maxRetryAfter = 24 * time.Hour

// RetryAfter reads a Retry-After header value, which is whole seconds or an HTTP date (RFC 9110,
// section 10.2.3). The wait is counted from now, never negative and at most 24 h; ok is false when
// the value is absent or malformed.
func RetryAfter(value string, now time.Time) (wait time.Duration, ok bool) {
	value = strings.Trim(value, " \t")
	if value == "" {
		return 0, false
	}
	if strings.Trim(value, "0123456789") == "" {
		var seconds time.Duration
		for _, c := range []byte(value) {
			seconds = seconds*10 + time.Duration(c-'0')
			if seconds*time.Second >= maxRetryAfter {
				return maxRetryAfter, true
			}
		}
		return seconds * time.Second, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return min(max(0, at.Sub(now)), maxRetryAfter), true
}
