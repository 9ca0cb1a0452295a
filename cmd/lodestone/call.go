package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/config"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

func (c *cli) callCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "call CONNECTOR OPERATION [--ARGUMENT VALUE …]",
		Short: "Have a provider do one operation",
		Long: `Call has a provider do one operation of its catalogue; ` + "`lodestone operations CONNECTOR OPERATION`" + ` says what it
takes. Each argument is a flag; lists and objects are given as JSON. --json '{…}' gives all of them at once. What
the provider answers is printed as JSON.

What changes something passes the same gate as the worker's own acts: pauses, the suppression list and the
unsubscribe status at the provider. Every call is put on record. While a worker runs, the call goes through
it and shares its rate.`,
		Example: `  lodestone call referralrock listMembers --query ada@example.com
  lodestone call referralrock createReferral --referralCode ADA2026 --email eve@example.com --dry-run
  lodestone call referralrock listReferrals --all | jq length`,
		DisableFlagParsing: true,
		RunE:               func(cmd *cobra.Command, raw []string) error { return c.call(cmd, raw) },
	}
	// For the help alone: what is a flag depends on the operation, so call reads them itself.
	cmd.Flags().String("json", "", "the arguments as one JSON object: '{…}', @file, or - for standard input")
	cmd.Flags().Bool("dry-run", false, "show the request, and send nothing")
	cmd.Flags().Bool("all", false, "walk every page of a list")
	cmd.Flags().Bool("yes", false, "do not ask before something is destroyed or paid")
	return cmd
}

// callFlags are what `call` takes beside the operation's own arguments.
type callFlags struct {
	dry, all, yes bool
}

func (c *cli) call(cmd *cobra.Command, raw []string) error {
	raw, given, asJSON := jsonFlag(raw)
	c.flags.json = asJSON
	name, operation, err := positions(cmd, raw)
	if err != nil {
		return err
	}
	if slices.Contains(raw, "--help") || slices.Contains(raw, "-h") {
		if name == "" || operation == "" {
			return cmd.Help()
		}
		return c.operationsCmd().RunE(cmd, []string{name, operation})
	}
	if operation == "" {
		return usagef("say which operation of which connector\nusage: %s", cmd.UseLine())
	}
	// The configuration may name accounts, so the global flags are read before anything else.
	var f callFlags
	flags := c.callFlagSet(cmd, &f)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	if err := flags.Parse(globalsOnly(flags, raw)); err != nil {
		return usageError{err}
	}
	cfg, err := c.load()
	if err != nil {
		return err
	}
	account, ok := cfg.account(name)
	if !ok {
		known := make([]string, 0, len(kinds))
		for _, k := range kinds {
			known = append(known, k.Name)
		}
		return usagef("there is no connector %q; there are %s", name, strings.Join(known, ", "))
	}
	kind, _ := kindOf(account.Kind)
	i := slices.IndexFunc(kind.Endpoints, func(e connectors.Endpoint) bool { return e.Name == operation })
	if i < 0 {
		return usagef("%s has no operation %q; `lodestone operations %s` lists them", kind.Name, operation, kind.Name)
	}
	e := &kind.Endpoints[i]
	f = callFlags{}
	arguments, err := c.arguments(cmd, e, raw, given, &f)
	if err != nil {
		return err
	}
	if e.Deprecated != "" {
		fmt.Fprintf(c.err, "%s.%s: %s\n", name, operation, e.Deprecated)
	}
	if f.dry {
		return c.dryRun(cmd.Context(), account, e, arguments)
	}
	if pays(e.Effect) {
		what := map[bool]string{true: "may pay money out", false: "destroys something at the provider"}[e.Effect == "pay"]
		if err := c.confirm(f.yes, fmt.Sprintf("%s.%s %s. Go on?", name, operation, what)); err != nil {
			return err
		}
	}
	caller, err := c.caller(cmd.Context(), cfg, account)
	if err != nil {
		return err
	}
	defer caller.Close()
	if f.all {
		return c.callAll(cmd.Context(), caller, name, e, arguments)
	}
	done, err := ask(cmd.Context(), caller.Client, name, e, arguments)
	if err != nil {
		return err
	}
	return c.printAnswer(&done)
}

// jsonFlag takes --json out of a command line. Before what can be arguments ('{…}', @file or -) it gives
// them; alone it is the global flag of every command.
func jsonFlag(raw []string) (rest []string, arguments string, asJSON bool) {
	for i := 0; i < len(raw); i++ {
		value, has := strings.CutPrefix(raw[i], "--json=")
		switch {
		case raw[i] == "--":
			return append(rest, raw[i:]...), arguments, asJSON
		case raw[i] == "--json" && i+1 < len(raw) && (raw[i+1] == "-" || strings.HasPrefix(raw[i+1], "{") || strings.HasPrefix(raw[i+1], "@")):
			i++
			arguments = raw[i]
		case raw[i] == "--json", value == "true":
			asJSON = true
		case value == "false":
			asJSON = false
		case has:
			arguments = value
		default:
			rest = append(rest, raw[i])
		}
	}
	return rest, arguments, asJSON
}

// positions finds CONNECTOR and OPERATION: the first two words that are neither flags nor the values
// of global flags.
func positions(cmd *cobra.Command, raw []string) (connector, operation string, err error) {
	var words []string
	for i := 0; i < len(raw) && len(words) < 2; i++ {
		w := raw[i]
		switch {
		case w == "--":
			return "", "", usagef("give CONNECTOR and OPERATION before --")
		case !strings.HasPrefix(w, "-"):
			words = append(words, w)
		case !strings.Contains(w, "="):
			if fl := cmd.Root().PersistentFlags().Lookup(strings.TrimLeft(w, "-")); fl != nil && fl.NoOptDefVal == "" {
				i++
			}
		}
	}
	words = append(words, "", "")
	return words[0], words[1], nil
}

func (c *cli) callFlagSet(cmd *cobra.Command, f *callFlags) *pflag.FlagSet {
	flags := pflag.NewFlagSet("call", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.SortFlags = false
	flags.BoolVar(&f.dry, "dry-run", false, "")
	flags.BoolVar(&f.all, "all", false, "")
	flags.BoolVar(&f.yes, "yes", false, "")
	cmd.Root().PersistentFlags().VisitAll(func(g *pflag.Flag) {
		if g.Name != "json" {
			flags.AddFlag(g)
		}
	})
	return flags
}

// globalsOnly leaves what the set knows, with its values: the rest is for later.
func globalsOnly(flags *pflag.FlagSet, raw []string) (out []string) {
	for i := 0; i < len(raw); i++ {
		name, _, has := strings.Cut(strings.TrimLeft(raw[i], "-"), "=")
		fl := flags.Lookup(name)
		if !strings.HasPrefix(raw[i], "--") || fl == nil {
			continue
		}
		out = append(out, raw[i])
		if !has && fl.NoOptDefVal == "" && i+1 < len(raw) {
			i++
			out = append(out, raw[i])
		}
	}
	return out
}

// arguments reads the operation's arguments from flags and from what --json gave.
func (c *cli) arguments(cmd *cobra.Command, e *connectors.Endpoint, raw []string, given string, f *callFlags) (map[string]any, error) {
	flags := c.callFlagSet(cmd, f)
	texts := map[string]*[]string{}
	for _, a := range e.Arguments {
		if flags.Lookup(a.Name) != nil {
			continue // a global flag of that name; --json gives it
		}
		texts[a.Name] = flags.StringArray(a.Name, nil, "")
	}
	names := make([]string, 0, len(texts))
	for n := range texts {
		names = append(names, "--"+n)
	}
	sort.Strings(names)
	if err := flags.Parse(raw); err != nil {
		return nil, usagef("%w; %s takes %s", err, e.Name, strings.Join(names, " "))
	}
	if more := flags.Args(); len(more) > 2 {
		return nil, usagef("%q is one word too many; give each argument as a flag: %s takes %s", more[2], e.Name, strings.Join(names, " "))
	}
	arguments := map[string]any{}
	if given != "" {
		data := []byte(given)
		var err error
		if path, ok := strings.CutPrefix(given, "@"); ok {
			data, err = os.ReadFile(path)
		} else if given == "-" {
			data, err = io.ReadAll(io.LimitReader(c.in, 16<<20))
		}
		if err != nil {
			return nil, usageError{err}
		}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		if err := dec.Decode(&arguments); err != nil {
			return nil, usagef("--json is not an object of arguments: %w", err)
		}
		if arguments == nil {
			return nil, usagef("--json is null; give an object of arguments")
		}
	}
	for _, a := range e.Arguments {
		if texts[a.Name] == nil || !flags.Changed(a.Name) {
			continue
		}
		v, err := argument(a, *texts[a.Name])
		if err != nil {
			return nil, usagef("--%s: %w", a.Name, err)
		}
		arguments[a.Name] = v
	}
	return arguments, nil
}

var wholeNumber = regexp.MustCompile(`^-?[0-9]{1,30}$`)

// argument gives a flag's text the type that the operation takes.
func argument(a connectors.Argument, texts []string) (any, error) {
	text := texts[len(texts)-1]
	switch a.Type {
	case "integer":
		if !wholeNumber.MatchString(text) {
			return nil, fmt.Errorf("%q is not a whole number", text)
		}
		return json.Number(text), nil // as it was given: an id may have more digits than a float keeps
	case "number":
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsInf(n, 0) || math.IsNaN(n) {
			return nil, fmt.Errorf("%q is not a number", text)
		}
		return n, nil
	case "boolean":
		b, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not true or false", text)
		}
		return b, nil
	case "array", "object":
		if path, ok := strings.CutPrefix(text, "@"); ok {
			data, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			text = string(data)
		}
		var v any
		if err := json.Unmarshal([]byte(text), &v); err == nil {
			return v, nil
		} else if a.Type == "object" {
			return nil, fmt.Errorf("give an object as JSON: %w", err)
		}
		list := make([]any, 0, len(texts))
		for _, t := range texts {
			list = append(list, t)
		}
		return list, nil
	}
	return text, nil
}

// account is a configured account, or one that has nothing but its kind's name.
func (s settings) account(name string) (config.Connector, bool) {
	if i := slices.IndexFunc(s.Connectors, func(a config.Connector) bool { return a.Name == name }); i >= 0 {
		return s.Connectors[i], true
	}
	_, ok := kindOf(name)
	return config.Connector{Name: name, Kind: name}, ok
}

// dryRun shows the request. It needs no secrets, because it shows none.
func (c *cli) dryRun(ctx context.Context, a config.Connector, e *connectors.Endpoint, arguments map[string]any) error {
	kind, _ := kindOf(a.Kind)
	st := accountSettings(a, nil)
	for _, s := range kind.Secrets {
		st.Secrets[s] = "not-needed"
	}
	account, err := connectors.Open(kind, st)
	if err != nil {
		return err
	}
	req, _, err := account.Request(ctx, e.Name, arguments)
	var wrong *connectors.ArgumentError
	if errors.As(err, &wrong) {
		return usageError{wrong}
	}
	if err != nil {
		return err
	}
	var body json.RawMessage
	if req.Body != nil {
		if body, err = io.ReadAll(req.Body); err != nil {
			return err
		}
	}
	if c.flags.json {
		return c.printJSON(map[string]any{"method": req.Method, "url": req.URL.String(), "body": body})
	}
	fmt.Fprintf(c.out, "%s %s\nAuthorization: <secret>\n", req.Method, req.URL)
	for _, h := range []string{"Accept", "Content-Type"} {
		if v := req.Header.Get(h); v != "" {
			fmt.Fprintf(c.out, "%s: %s\n", h, v)
		}
	}
	if body != nil {
		fmt.Fprintf(c.out, "\n%s\n", body)
	}
	fmt.Fprintln(c.err, "nothing was sent")
	return nil
}

// caller finds the worker, or makes the accounts and opens the store in this process: every call is put
// on record there.
func (c *cli) caller(ctx context.Context, cfg settings, list ...config.Connector) (*connection, error) {
	if client, ok := api.Dial(cfg.Data); ok {
		return &connection{client, nil, nil, func() error { return nil }}, nil
	}
	// The store first: whoever holds it is the only one that uses what connectors keep.
	store, err := boltstore.Open(cfg.Data, boltstore.Options{})
	if err != nil {
		return nil, err
	}
	server := &api.Server{
		Store: store, Rulebook: func() *sequencer.Rulebook { return nil },
		Accounts: map[string]*connectors.Account{}, Operations: cfg.rulesOptions().Operations,
	}
	var paces []*pace
	for _, a := range list {
		requests := prometheus.NewRegistry()
		account, err := open(a, requests, c.logger(cfg), cfg.connectorState())
		if err != nil {
			return nil, errors.Join(err, store.Close())
		}
		pace := &pace{path: filepath.Join(cfg.Data, "pace."+a.Name), rate: account.Settings().Rate, requests: requests}
		if err := pace.wait(ctx); err != nil {
			return nil, errors.Join(err, store.Close())
		}
		server.Accounts[a.Name] = account
		paces = append(paces, pace)
	}
	return &connection{api.Direct(server.Handler()), nil, store, func() error {
		var errs []error
		for _, p := range paces {
			errs = append(errs, p.keep())
		}
		return errors.Join(append(errs, store.Close())...)
	}}, nil
}

// pace keeps an account's rate across commands that follow each other without a worker, each a process
// of its own: the next one waits until the rate allows for what the one before sent. The store's lock
// keeps two from running at once.
type pace struct {
	path     string
	rate     float64
	requests *prometheus.Registry
}

func (p *pace) wait(ctx context.Context) error {
	b, err := os.ReadFile(p.path)
	if err != nil {
		return nil // the first one
	}
	next, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(string(b)))
	if err != nil {
		return nil
	}
	t := time.NewTimer(min(time.Until(next), time.Minute))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pace) keep() error {
	families, err := p.requests.Gather()
	if err != nil {
		return err
	}
	n := 0.0
	for _, f := range families {
		if f.GetName() != "lodestone_provider_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			n += m.GetCounter().GetValue()
		}
	}
	next := time.Now().Add(time.Duration(n / p.rate * float64(time.Second)))
	return os.WriteFile(p.path, []byte(next.UTC().Format(time.RFC3339Nano)+"\n"), 0o600)
}

// ask makes one call.
func ask(ctx context.Context, client *api.Client, connector string, e *connectors.Endpoint, arguments map[string]any) (done api.Called, err error) {
	err = client.Call(ctx, http.MethodPost, "/api/v1/calls", nil, api.Call{Connector: connector, Operation: e.Name, Arguments: arguments, By: api.ByCommand}, &done)
	var p *api.Problem
	if errors.As(err, &p) && p.Status == http.StatusUnprocessableEntity {
		return done, usageError{p}
	}
	return done, err
}

// printAnswer prints the provider's answer. A call that did not succeed is an error that says what it
// means.
func (c *cli) printAnswer(d *api.Called) error {
	if d.Class == "ok" {
		if len(d.Answer) == 0 {
			fmt.Fprintf(c.err, "done, HTTP %d, without an answer\n", d.Status)
			return nil
		}
		return c.printJSON(d.Answer)
	}
	if d.Class == api.ClassBlocked {
		v := d.Verdicts[len(d.Verdicts)-1]
		return fmt.Errorf("not sent: %s (%s)", v.Evidence, v.Reason)
	}
	status := ""
	if d.Status != 0 {
		status = fmt.Sprintf(", HTTP %d", d.Status)
	}
	switch connectors.Class(d.Class) {
	case connectors.Unknown:
		return fmt.Errorf("it may or may not have happened%s: %s; look it up at the provider before you do it again", status, d.Detail)
	case connectors.Refused:
		return fmt.Errorf("the provider refused%s: %s", status, d.Detail)
	case connectors.LockedOut:
		return fmt.Errorf("the provider does not accept the credentials%s: %s", status, d.Detail)
	}
	return fmt.Errorf("not done%s: %s; try again later", status, d.Detail)
}

// callAll walks a list to its end and prints its elements as one array.
func (c *cli) callAll(ctx context.Context, conn *connection, connector string, e *connectors.Endpoint, arguments map[string]any) error {
	if !e.Paging.Pages() {
		return usagef("%s gives everything at once; leave out --all", e.Name)
	}
	all := []json.RawMessage{}
	offset, page := 0, 1
	var before json.RawMessage
	for {
		if e.Paging.Offset != "" {
			arguments[e.Paging.Offset] = float64(offset)
		} else {
			arguments[e.Paging.Page] = float64(page)
		}
		done, err := ask(ctx, conn.Client, connector, e, arguments)
		if err != nil {
			return err
		}
		if done.Class != "ok" {
			return c.printAnswer(&done)
		}
		elements, total := pageOf(done.Answer)
		if len(elements) > 0 && bytes.Equal(done.Answer, before) {
			return fmt.Errorf("page %d is the same as the one before: the provider does not walk this list; %s so far", page, count(len(all), "element"))
		}
		before = done.Answer
		all = append(all, elements...)
		offset += len(elements)
		page++
		fmt.Fprintf(c.err, "%d of %s\n", len(all), totalWords(total))
		if len(elements) == 0 || total >= 0 && len(all) >= total {
			return c.printJSON(all)
		}
	}
}

func totalWords(total int) string {
	if total < 0 {
		return "an unknown number"
	}
	return strconv.Itoa(total)
}

// pageOf finds the elements of a page and the number of all elements, -1 when the answer does not say
// it: an array, or an object with one.
func pageOf(answer json.RawMessage) (elements []json.RawMessage, total int) {
	total = -1
	if json.Unmarshal(answer, &elements) == nil {
		return elements, -1
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(answer, &object) != nil {
		return nil, total
	}
	if json.Unmarshal(object["data"], &elements) != nil || object["data"] == nil {
		elements = nil
		for _, v := range object {
			var list []json.RawMessage
			if json.Unmarshal(v, &list) == nil && list != nil && len(list) >= len(elements) {
				elements = list
			}
		}
	}
	number := func(m map[string]json.RawMessage) {
		for _, key := range []string{"total", "totalCount", "totalRecords", "total_records"} {
			n, err := strconv.Atoi(strings.Trim(string(m[key]), `"`))
			if err == nil && (n > 0 || len(elements) == 0) {
				total = n
			}
		}
	}
	number(object)
	var meta map[string]json.RawMessage
	if json.Unmarshal(object["meta"], &meta) == nil {
		number(meta)
	}
	return elements, total
}
