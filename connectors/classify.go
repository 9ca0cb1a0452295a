package connectors

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"time"

	"github.com/lodestonehq/lodestone"
)

// call is a request that was tried, on its way to being judged.
type call struct {
	t *Transport
	Call
	act    bool
	answer Answer
	names  *concealed // what must not be repeated of the request, beside its credentials
}

// hidden are the texts that no error about the request may repeat.
func (k *call) hidden() []hidden { return append(credentials(k.Request.Header), k.names.forms()...) }

// fault makes a fault in the class of an act; a read's is turned into what it means there.
func (k *call) fault(class Class, reason lodestone.Reason, detail string, cause error) *Fault {
	hidden := k.hidden()
	f := &Fault{
		Connector: k.t.settings.Name, Operation: k.Operation, Class: class, Reason: reason,
		Status: k.answer.Status, Detail: k.t.mask.text(detail, hidden...), CountsAttempt: k.act,
	}
	if cause != nil {
		f.Err = &masked{text: k.t.mask.text(cause.Error(), hidden...), cause: cause}
	}
	switch class {
	case LockedOut, RateLimited:
		f.CountsAttempt = false
	default:
		if !k.act {
			f.Class, f.Reason = Failed, lodestone.ReasonCheckFailed
		}
	}
	return f
}

// unanswered judges a request that got no status line. gaveUp: it was the caller who ended it.
func (k *call) unanswered(err error, written, gaveUp bool, took time.Duration) outcome {
	o := outcome{blame: provider, repeatable: !k.act}
	timeout := errors.Is(err, context.DeadlineExceeded) || isTimeout(err)
	if timeout || gaveUp {
		o.repeatable = false // it had all the time there was
	}
	if gaveUp && (!timeout || took < k.t.settings.Timeout/2) {
		o.blame = nobody // it had little time, or the caller lost interest
	}
	detail := k.describe(err, written, timeout, gaveUp)
	if written {
		o.fault = k.fault(Unknown, lodestone.ReasonNoAnswer, detail, err)
		return o
	}
	o.fault = k.fault(NotDone, lodestone.ReasonNotDone, detail, err)
	if refusedConnection(err) || gaveUp && !timeout {
		o.fault.CountsAttempt = false
	}
	return o
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// describe says in words how a request came to nothing.
func (k *call) describe(err error, written, timeout, gaveUp bool) string {
	var (
		name  *net.DNSError
		shake *handshakeError
	)
	switch {
	case gaveUp && !timeout && written:
		return "given up before the answer came"
	case gaveUp && !timeout:
		return "given up before it was sent"
	case timeout && written:
		return fmt.Sprintf("no answer within %v", k.t.settings.Timeout)
	case errors.As(err, &name):
		return "the provider's name cannot be resolved: " + err.Error()
	case errors.As(err, &shake):
		return err.Error()
	case timeout:
		return "no connection in time"
	case refusedConnection(err):
		return "connection refused: " + err.Error()
	case written:
		return "the connection broke after the request was written: " + err.Error()
	}
	return "no connection: " + err.Error()
}

// answered judges a request that got a status line; broken is why its body could not be read.
func (k *call) answered(broken error) outcome {
	status := k.answer.Status
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		f := k.fault(LockedOut, lodestone.ReasonProviderUnavailable, k.words("the provider does not accept the credentials"), nil)
		return outcome{fault: f, blame: keys}
	case status == http.StatusTooManyRequests:
		f := k.fault(RateLimited, lodestone.ReasonRateLimited, k.words("the provider's rate limit is reached"), nil)
		if wait, ok := k.retryAfter(); ok {
			f.RetryAfter = wait
			k.t.silenceFor(wait)
		}
		return outcome{fault: f, blame: nobody}
	case status >= 500:
		return k.serverError()
	case status >= 400:
		return outcome{fault: k.fault(Refused, lodestone.ReasonRefused, k.words(http.StatusText(status)), nil), blame: works}
	case status >= 300:
		to := origin(k.answer.Header.Get("Location"))
		f := k.fault(Refused, lodestone.ReasonRedirected, "redirected to "+to+", which is not followed; correct base_url", nil)
		return outcome{fault: f, blame: works}
	case status < 200:
		return k.unreadable(fmt.Errorf("unexpected status %d", status))
	case broken != nil:
		return k.unreadable(broken)
	case k.Decode == nil:
		return outcome{blame: works}
	}
	err := k.Decode(k.answer)
	var no *refusal
	switch {
	case err == nil:
		return outcome{blame: works}
	case errors.As(err, &no):
		return outcome{fault: k.fault(Refused, lodestone.ReasonRefused, no.words, nil), blame: works}
	}
	return k.unreadable(err)
}

// serverError judges a 5xx. A 503 that says when to come back was not acted on; any other may have
// been.
func (k *call) serverError() outcome {
	class, reason := Unknown, lodestone.ReasonServerError
	wait, named := k.retryAfter()
	if k.answer.Status == http.StatusServiceUnavailable && named {
		class, reason = NotDone, lodestone.ReasonNotDone
	}
	f := k.fault(class, reason, k.words(http.StatusText(k.answer.Status)), nil)
	f.RetryAfter = wait
	return outcome{fault: f, blame: provider, repeatable: !k.act && !named}
}

// unreadable judges a 2xx that does not say what it should. Several in a row open the breaker: a
// provider that answers with a page for people is in maintenance, and each act sent into that is one
// more unknown outcome.
func (k *call) unreadable(err error) outcome {
	detail := "the answer cannot be read: " + err.Error()
	if kind, _, e := mime.ParseMediaType(k.answer.Header.Get("Content-Type")); e == nil && kind != "application/json" {
		detail = "the answer cannot be read, it is " + kind + ": " + err.Error()
	}
	return outcome{fault: k.fault(Unknown, lodestone.ReasonUnreadable, detail, err), blame: provider}
}

func (k *call) retryAfter() (time.Duration, bool) {
	return RetryAfter(k.answer.Header.Get("Retry-After"), time.Now())
}

// words are the provider's, or ours when it said nothing.
func (k *call) words(otherwise string) string {
	if w := Words(k.answer.Body); w != "" {
		return w
	}
	if otherwise == "" {
		return fmt.Sprintf("status %d without a word", k.answer.Status)
	}
	return otherwise
}
