package connectors

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/lodestonehq/lodestone"
)

// Cataloguer is a connector whose whole catalogue can be called.
type Cataloguer interface {
	// Sign adds the credentials to a request that was built from an endpoint.
	Sign(*http.Request)
	// Given returns the arguments that the settings give, such as the tenant in a path. They need not
	// be given again and cannot be changed by a call.
	Given() map[string]any
}

// Metered is a connector whose provider sets a limit that the account's rate does not keep by itself.
type Metered interface {
	// Room waits until there is room for what people and agents ask for, beside the worker's own acts, or
	// ctx is done.
	Room(ctx context.Context)
	// Reserve waits for one request's worth of the limit, which the first act with the context takes.
	// release gives it back when none did. The error is that of a wait that was given up.
	Reserve(ctx context.Context) (held context.Context, release func(), err error)
	// Metered gives a context under which each request of a call of the catalogue is counted; act says that
	// it changes something. done must be called when the call has ended.
	Metered(ctx context.Context, act bool) (counted context.Context, done func())
}

// Judge is a connector that knows when a success by its status was none: the provider's words refuse
// what was asked, made with [Refusal].
type Judge interface {
	Judge(e *Endpoint, a Answer) error
}

// ErrNoOperation is returned for an operation that the catalogue does not have.
var ErrNoOperation = errors.New("no such operation")

// ArgumentError says what is wrong with the arguments of a call, all at once. Nothing was sent.
type ArgumentError struct {
	Operation string
	Faults    []string // each names its argument
}

func (e *ArgumentError) Error() string {
	return e.Operation + ": " + strings.Join(e.Faults, "; ")
}

// Endpoint finds an operation of the account's catalogue.
func (a *Account) Endpoint(name string) (*Endpoint, error) {
	i := slices.IndexFunc(a.kind.Endpoints, func(e Endpoint) bool { return e.Name == name })
	if _, ok := a.connector.(Cataloguer); !ok || i < 0 {
		return nil, fmt.Errorf("%s.%s: %w", a.settings.Name, name, ErrNoOperation)
	}
	return &a.kind.Endpoints[i], nil
}

// Request builds the request of an operation, without credentials: what a dry run shows. The error is
// [ErrNoOperation] or an [*ArgumentError].
func (a *Account) Request(ctx context.Context, operation string, arguments map[string]any) (*http.Request, *Endpoint, error) {
	e, err := a.Endpoint(operation)
	if err != nil {
		return nil, nil, err
	}
	given := a.connector.(Cataloguer).Given()
	if faults := e.faults(arguments, given); len(faults) > 0 {
		return nil, nil, &ArgumentError{a.settings.Name + "." + e.Name, faults}
	}
	all := maps.Clone(arguments)
	if all == nil {
		all = map[string]any{}
	}
	for name, v := range given {
		if _, takes := e.Argument(name); takes {
			all[name] = v
		}
	}
	req, err := e.request(ctx, a.t.BaseURL(), all)
	return req, e, err
}

// Call calls an operation of the catalogue: one that reads is repeated when that helps, one that
// changes something is sent at most once. Arguments are strings, numbers, booleans, lists and objects
// as JSON has them. The answer is filled in as far as one came, also beside an error. The error is
// [ErrNoOperation], an [*ArgumentError] or a [*Fault].
func (a *Account) Call(ctx context.Context, operation string, arguments map[string]any) (Answer, error) {
	req, e, err := a.Request(ctx, operation, arguments)
	if err != nil {
		return Answer{}, err
	}
	a.connector.(Cataloguer).Sign(req)
	ctx = hide(ctx, "", arguments)
	if m, ok := a.connector.(Metered); ok {
		if !a.t.holds(ctx) { // else it waited before
			m.Room(ctx)
		}
		var done func()
		ctx, done = m.Metered(ctx, e.Effect != lodestone.EffectRead)
		defer done()
	}
	c := Call{Operation: e.Name, Request: req, Decode: func(answer Answer) error {
		if err := readable(answer); err != nil {
			return err
		}
		if j, ok := a.connector.(Judge); ok {
			return j.Judge(e, answer)
		}
		return nil
	}}
	if e.Effect == lodestone.EffectRead {
		return a.t.Read(ctx, c)
	}
	return a.t.Act(ctx, c)
}

// readable accepts an empty body and JSON. Anything else after a success, a page of HTML say, leaves
// open who answered and what was done.
func readable(a Answer) error {
	if b := bytes.TrimSpace(a.Body); len(b) > 0 && !json.Valid(b) {
		return errors.New("it is not JSON")
	}
	return nil
}

// perform is [Account.Do] for an operation that is no verb of the connector.
func (a *Account) perform(ctx context.Context, act Act) (Receipt, error) {
	e, err := a.Endpoint(act.Operation)
	if err != nil {
		return Receipt{}, a.t.Reject(act.Operation, err.Error())
	}
	arguments := maps.Clone(act.Parameters)
	if arguments == nil {
		arguments = map[string]any{}
	}
	if not := e.barred(); not != "" {
		return Receipt{}, a.t.Reject(act.Operation, not)
	}
	// Where several arguments can name what it is about and only one may, the rule says which.
	if arg, takes := e.Argument("email"); takes && arguments["email"] == nil && (arg.Required || !strings.Contains(e.Schema, `"oneOf"`)) {
		arguments["email"] = string(act.Email)
	}
	answer, err := a.Call(ctx, act.Operation, arguments)
	var wrong *ArgumentError
	if errors.As(err, &wrong) {
		return Receipt{}, a.t.Reject(act.Operation, wrong.Error())
	}
	if err != nil {
		return Receipt{}, err
	}
	return Receipt{Status: answer.Status, Detail: a.t.mask.text(Words(answer.Body))}, nil
}

// faults checks arguments against the schema. What the settings give counts as given, and may not be
// given again.
func (e *Endpoint) faults(arguments, given map[string]any) []string {
	var faults []string
	all := map[string]any{}
	for name, v := range arguments {
		if _, set := given[name]; set {
			faults = append(faults, name+" is given by the settings and cannot be given again")
			continue
		}
		if _, takes := e.Argument(name); !takes {
			faults = append(faults, fmt.Sprintf("there is no argument %q; there are %s", name, e.names()))
			continue
		}
		all[name] = v
	}
	for name, v := range given {
		if _, takes := e.Argument(name); takes {
			all[name] = v
		}
	}
	for _, arg := range e.Arguments {
		if v, ok := all[arg.Name]; arg.Required && (!ok || v == nil || v == "") {
			faults = append(faults, arg.Name+" is required")
			delete(all, arg.Name)
		}
	}
	if len(faults) > 0 {
		slices.Sort(faults)
		return faults
	}
	s, err := e.compiled()
	if err != nil {
		return []string{"its schema cannot be used: " + err.Error()}
	}
	plain, err := viaJSON(all)
	if err != nil {
		return []string{err.Error()}
	}
	var invalid *jsonschema.ValidationError
	if err := s.Validate(plain); errors.As(err, &invalid) {
		collectFaults(invalid, &faults)
	} else if err != nil {
		faults = append(faults, err.Error())
	}
	slices.Sort(faults)
	return slices.Compact(faults)
}

func (e *Endpoint) names() string {
	names := make([]string, 0, len(e.Arguments))
	for _, a := range e.Arguments {
		names = append(names, a.Name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// viaJSON gives a value the types that JSON has, which is what a schema is about.
func viaJSON(v any) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(b))
}

// collectFaults puts the leaves of a validation error into words.
func collectFaults(v *jsonschema.ValidationError, faults *[]string) {
	if one, ok := v.ErrorKind.(*kind.OneOf); ok && len(v.InstanceLocation) == 0 {
		words := "exactly one of the arguments that name what it is about must be given"
		if len(one.Subschemas) > 0 {
			words += ", not several"
		}
		*faults = append(*faults, words)
		return
	}
	if len(v.Causes) > 0 {
		for _, c := range v.Causes {
			collectFaults(c, faults)
		}
		return
	}
	where := strings.Join(v.InstanceLocation, ".")
	if where == "" {
		where = "the arguments"
	}
	_, words, found := strings.Cut(v.Error(), ": ")
	if !found {
		words = v.Error()
	}
	*faults = append(*faults, where+": "+words)
}

var schemas sync.Map // schema text to *jsonschema.Schema

func (e *Endpoint) compiled() (*jsonschema.Schema, error) {
	if s, ok := schemas.Load(e.Schema); ok {
		return s.(*jsonschema.Schema), nil
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(e.Schema))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("arguments.json", doc); err != nil {
		return nil, err
	}
	s, err := c.Compile("arguments.json")
	if err != nil {
		return nil, err
	}
	schemas.Store(e.Schema, s)
	return s, nil
}

// request builds the request. Every path variable is among the arguments.
func (e *Endpoint) request(ctx context.Context, base string, arguments map[string]any) (*http.Request, error) {
	path, query, object := e.Path, url.Values{}, map[string]any{}
	var body any
	for _, a := range e.Arguments {
		v, ok := arguments[a.Name]
		if !ok || v == nil {
			continue
		}
		switch a.In {
		case InPath, InPathAndBody:
			text := scalar(v)
			if text == "." || text == ".." { // would be another path
				return nil, &ArgumentError{e.Name, []string{a.Name + " cannot be " + strconv.Quote(text)}}
			}
			path = strings.ReplaceAll(path, "{"+a.Name+"}", url.PathEscape(text))
			if a.In == InPathAndBody {
				object[a.Name] = v
			}
		case InQuery:
			if list, ok := v.([]any); ok {
				for _, item := range list {
					query.Add(a.Name, scalar(item))
				}
				continue
			}
			query.Set(a.Name, scalar(v))
		case InBody:
			if e.Body == ObjectBody {
				object[a.Name] = v
			} else {
				body = v
			}
		}
	}
	if e.Body == ObjectBody {
		body = object
	}
	if q := query.Encode(); q != "" {
		path += "?" + q
	}
	var reader io.Reader
	if e.Body != NoBody {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, &ArgumentError{e.Name, []string{err.Error()}}
		}
		reader = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, e.Method, base+path, reader)
	if err != nil {
		return nil, &ArgumentError{e.Name, []string{"no request can be made of these arguments"}}
	}
	if reader != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// scalar writes a value for a path or a query.
func scalar(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}
