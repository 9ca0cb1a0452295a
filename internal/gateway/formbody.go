package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/lodestonehq/lodestone/sequencer/event"
)

// contextPrefix begins the names of inputs that are no fields but what the page knows.
const contextPrefix = "context."

const (
	maxInputs  = 1000    // names and values of one form
	maxHeaders = 64      // ce- headers of one event
	maxBrowser = 512     // bytes of a User-Agent that are kept
	maxReferer = 2 << 10 // bytes of a Referer that are kept
	jsonType   = "application/json"
	urlType    = "application/x-www-form-urlencoded"
	multiType  = "multipart/form-data"
	cloudType  = event.ContentType
	cloudStart = "Ce-"
)

// media is the media type of a request and how its body is to be read.
type media struct {
	name     string
	boundary string // multipart's
	binary   bool   // a CloudEvent whose attributes are headers
}

// page reports whether a browser sends this type without a script.
func (m media) page() bool { return m.name == urlType || m.name == multiType }

// mediaOf reads what a request says of its body before the body is read.
func mediaOf(h http.Header) (media, *refusal) {
	bad := func(detail string) (media, *refusal) {
		return media{}, refuse(http.StatusUnsupportedMediaType, resultBadMedia, detail)
	}
	const known = "send " + jsonType + ", " + urlType + ", " + multiType + " or " + cloudType
	name, params := h.Get("Content-Type"), map[string]string(nil)
	if name != jsonType && name != urlType { // as most write it
		var err error
		if name, params, err = mime.ParseMediaType(name); err != nil {
			return bad(known)
		}
	}
	m := media{name: name, boundary: params["boundary"]}
	for header := range h {
		m.binary = m.binary || strings.HasPrefix(header, cloudStart)
	}
	switch {
	case name != jsonType && name != cloudType && !m.page(), m.binary && m.page():
		return bad(known)
	case params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8"):
		return bad("send UTF-8")
	}
	if enc := h.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return bad("send the body as it is, without a Content-Encoding")
	}
	return m, nil
}

// inbox is a body in the form in which it is stored.
type inbox struct {
	header map[string][]string // of the message
	data   []byte
	same   []byte // what two requests have in common when their bodies are the same
	seen   event.Observed
	once   bool   // the same body is never another submission
	thanks string // the page that was asked for; "" none
}

func badBody(detail string) *refusal {
	return refuse(http.StatusBadRequest, resultBadBody, detail)
}

// read turns a body into a message. JSON and CloudEvents stay as they were sent.
func (m media) read(h http.Header, body []byte) (inbox, *refusal) {
	in := inbox{header: map[string][]string{"Content-Type": {m.name}}, data: body, same: body}
	switch {
	case m.name == urlType:
		inputs, no := urlInputs(body)
		if no != nil {
			return in, no
		}
		return in, in.form(inputs)
	case m.name == multiType:
		inputs, no := multipartInputs(body, m.boundary)
		if no != nil {
			return in, no
		}
		return in, in.form(inputs)
	case m.binary && m.name != cloudType:
		return in, in.attributes(h)
	}
	return in, nil
}

// attributes copies the attributes of a binary event, whose values are percent-encoded in HTTP
// (CloudEvents HTTP binding 1.0.2, section 3.1.3.2).
func (in *inbox) attributes(h http.Header) *refusal {
	n := 0
	for name, values := range h {
		if !strings.HasPrefix(name, cloudStart) {
			continue
		}
		if n++; n > maxHeaders {
			return badBody("the event has too many ce- headers")
		}
		plain := make([]string, len(values))
		for i, v := range values {
			decoded, err := url.PathUnescape(v)
			if err != nil || !utf8.ValidString(decoded) || strings.ContainsFunc(decoded, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				return badBody("a ce- header is not percent-encoded UTF-8 without control characters")
			}
			plain[i] = decoded
		}
		in.header[strings.ToLower(name)] = plain
	}
	attributes, err := json.Marshal(in.header)
	if err != nil {
		return badBody("the event's headers cannot be written down")
	}
	in.same = slices.Concat(attributes, in.data)
	return nil
}

// input is one name and value of a form, in the order of the form.
type input struct{ name, value string }

// urlInputs reads application/x-www-form-urlencoded strictly: what cannot be decoded is no form.
func urlInputs(body []byte) (inputs []input, no *refusal) {
	for part := range strings.SplitSeq(string(body), "&") {
		if part == "" {
			continue
		}
		if len(inputs) == maxInputs {
			return nil, tooMany()
		}
		name, value, _ := strings.Cut(part, "=")
		n, err := url.QueryUnescape(name)
		v, err2 := url.QueryUnescape(value)
		if err != nil || err2 != nil {
			return nil, badBody("the form is not percent-encoded")
		}
		inputs = append(inputs, input{n, v})
	}
	return inputs, nil
}

func tooMany() *refusal { return badBody(fmt.Sprintf("the form has more than %d inputs", maxInputs)) }

// multipartInputs reads multipart/form-data. A file input that was left empty counts as absent, as
// browsers send one for every such input; a file is refused.
func multipartInputs(body []byte, boundary string) (inputs []input, no *refusal) {
	if boundary == "" {
		return nil, badBody("the Content-Type names no boundary")
	}
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) && bytes.Contains(body, []byte("--"+boundary+"--")) {
			return inputs, nil
		}
		if err != nil { // the reader takes a body that ends early for one that ended
			return nil, badBody("the form is not multipart/form-data, or was cut off")
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return nil, badBody("the form is not multipart/form-data, or was cut off")
		}
		disposition, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		name, named := params["name"]
		if err != nil || disposition != "form-data" || !named {
			return nil, badBody("a part of the form has no name")
		}
		if file, isFile := params["filename"]; isFile {
			if file == "" && len(value) == 0 {
				continue
			}
			return nil, refuse(http.StatusUnsupportedMediaType, resultBadMedia, "files are not taken; leave the file out of the form")
		}
		if len(inputs) == maxInputs {
			return nil, tooMany()
		}
		inputs = append(inputs, input{name, string(value)})
	}
}

// form makes the data of a submission of the inputs of a page's form. An input that is there several
// times, as boxes that can be ticked together are, holds its values separated by commas.
func (in *inbox) form(inputs []input) *refusal {
	fields, context := map[string]string{}, map[string]any{}
	for _, i := range inputs {
		if !utf8.ValidString(i.name) || !utf8.ValidString(i.value) {
			return badBody("the form is not UTF-8")
		}
		switch rest, ok := strings.CutPrefix(i.name, contextPrefix); {
		case ok && rest == "thanks":
			in.thanks = i.value
		case ok:
			nest(context, strings.Split(rest, "."), i.value)
		default:
			if before, again := fields[i.name]; again && before != "" && before != i.value && i.value != "" {
				fields[i.name] = before + ", " + i.value
			} else if i.value != "" || !again {
				fields[i.name] = i.value
			}
		}
	}
	data := map[string]any{"fields": fields}
	if len(context) > 0 {
		data["context"] = context
	}
	var b, same bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(data); err != nil {
		return badBody("the form cannot be written down")
	}
	// A multipart body has another boundary each time, so equal forms are told by what they hold.
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		fmt.Fprintf(&same, "%d:%s%d:%s", len(name), name, len(fields[name]), fields[name])
	}
	if c, err := json.Marshal(context); err == nil {
		same.Write(c)
	}
	in.header["Content-Type"] = []string{jsonType}
	in.data, in.same = bytes.TrimSuffix(b.Bytes(), []byte("\n")), same.Bytes()
	return nil
}

// nest puts a value where a dotted name says. Where a name is both a value and more than one, the
// first counts: what a page knows is never a reason to refuse a form.
func nest(into map[string]any, path []string, value string) {
	const deep = 4
	if len(path) > deep {
		return
	}
	for _, name := range path[:len(path)-1] {
		next, ok := into[name].(map[string]any)
		if !ok {
			if into[name] != nil {
				return
			}
			next = map[string]any{}
			into[name] = next
		}
		into = next
	}
	if last := path[len(path)-1]; into[last] == nil {
		into[last] = value
	}
}
