package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/app"
	"github.com/lodestonehq/lodestone/internal/config"
	"github.com/lodestonehq/lodestone/internal/gateway"
)

func (c *cli) hooksCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hooks",
		Short: "Have providers tell what happens there: subscribe this gateway to their webhooks",
		Example: `  lodestone hooks install referralrock --url https://hooks.example.com
  lodestone hooks ls`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.hooksInstallCmd(), c.hooksLsCmd())
	return cmd
}

// hookSubscription is one subscription as the commands show it.
type hookSubscription struct {
	Connector string `json:"connector"`
	Event     string `json:"event"` // empty: all that matter, at one address
	URL       string `json:"url"`
	ID        string `json:"id"`
	State     string `json:"state"` // installed, present, unknown, failed, by_hand
	Detail    string `json:"detail"`
}

// The states of a subscription.
const (
	hookInstalled = "installed" // just now
	hookPresent   = "present"   // it was there
	hookUnknown   = "unknown"   // the provider was asked, and its answer is not known
	hookFailed    = "failed"
	hookByHand    = "by_hand" // the provider has no API for it
)

func (c *cli) hooksInstallCmd() *cobra.Command {
	var base string
	var dry, again bool
	cmd := &cobra.Command{
		Use:   "install CONNECTOR --url https://…",
		Short: "Subscribe this gateway to a provider's webhooks",
		Long: `Install subscribes this gateway to the events of a provider that are signals here. --url is where the
provider reaches the gateway from outside; the paths below it are made by this command.

It can be repeated: what is subscribed already stays as it is. A provider that lists its subscriptions is
asked; for one that cannot (Referral Rock) those made from this data directory are remembered in its
hooks.json, and the provider's history of deliveries is looked at as well. A subscription whose making has
an unknown outcome is not made again unless --again says so: look at the provider's pages first. Should one
be made twice all the same, its second deliveries are recognised as repeats.

Webhooks are taken only when it is proved who sent them, so give the provider's keys in the configuration.
Referral Rock signs a body and not its event: with webhook_key, one key for all, the addresses end in a token
that binds each event to the key, so set the key before you install; with webhook_keys, where each event has
its own (Event=key), they do not need one.`,
		Example: `  lodestone hooks install referralrock --url https://hooks.example.com --dry-run
  lodestone hooks install saasquatch --url https://hooks.example.com`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.installHooks(cmd.Context(), a[0], base, dry, again)
		},
	}
	cmd.Flags().StringVar(&base, "url", "", "where the provider reaches this gateway, as in https://hooks.example.com")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "show the requests, and send nothing")
	cmd.Flags().BoolVar(&again, "again", false, "subscribe also what seems to be subscribed, or may be")
	return cmd
}

func (c *cli) hooksLsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "ls [CONNECTOR]",
		Short: "Subscriptions at the providers: as they list them, or as they were made from here",
		Example: `  lodestone hooks ls
  lodestone hooks ls saasquatch --json`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error { return c.listHooks(cmd.Context(), a) },
	}
}

// hookOf finds an account and its kind's webhooks.
func (c *cli) hookOf(cfg settings, name string) (config.Connector, connectors.Kind, connectors.Hook, error) {
	account, ok := cfg.account(name)
	if !ok {
		known := make([]string, 0, len(kinds))
		for _, k := range kinds {
			known = append(known, k.Name)
		}
		return account, connectors.Kind{}, connectors.Hook{}, usagef("there is no connector %q; there are %s", name, strings.Join(known, ", "))
	}
	kind, _ := kindOf(account.Kind)
	hook, ok := app.HookKinds()[kind.Name]
	if !ok {
		return account, kind, hook, usagef("%s has no webhooks", kind.Name)
	}
	return account, kind, hook, nil
}

func (c *cli) installHooks(ctx context.Context, name, base string, dry, again bool) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	account, kind, hook, err := c.hookOf(cfg, name)
	if err != nil {
		return err
	}
	root, err := hookBase(base)
	if err != nil {
		return err
	}
	if hook.Install == nil {
		return c.hooksByHand(name, root, hook)
	}
	secrets, err := cfg.hookSecrets()
	if err != nil {
		return err
	}
	plan := hookPlan(name, root, hook, secrets[name])
	if dry {
		for _, p := range plan {
			operation, arguments := hook.Install.Create(p.Event, p.URL)
			e, err := hookEndpoint(kind, operation)
			if err != nil {
				return err
			}
			if err := c.dryRun(ctx, account, e, arguments); err != nil {
				return err
			}
		}
		return nil
	}
	made, err := gateway.OpenInstalled(cfg.Data)
	if err != nil {
		return err
	}
	conn, err := c.caller(ctx, cfg, account)
	if err != nil {
		return err
	}
	defer conn.Close()
	in := &hookInstaller{client: conn.Client, kind: kind, hook: hook, made: made, again: again}
	var open int
	for i := range plan {
		if err := in.install(ctx, &plan[i]); err != nil {
			return err
		}
		if s := plan[i].State; s == hookUnknown || s == hookFailed {
			open++
		}
	}
	if err := c.printHooks(plan); err != nil {
		return err
	}
	if len(hook.Secrets) > 0 {
		var keys []string
		for _, s := range hook.Secrets {
			keys = append(keys, "connectors."+name+"."+s)
		}
		fmt.Fprintf(c.err, "webhooks are answered with 403 until what proves them stands in %s\n", strings.Join(keys, " or "))
	}
	if open > 0 {
		return fmt.Errorf("%d of %d subscriptions are not known to stand", open, len(plan))
	}
	return nil
}

// hookBase reads --url.
func hookBase(text string) (*url.URL, error) {
	if text == "" {
		return nil, usagef("say with --url where the provider reaches this gateway, as in --url https://hooks.example.com")
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, usagef("--url is not an address such as https://hooks.example.com")
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && !(u.Scheme == "http" && local) {
		return nil, usagef("--url must begin with https://: webhooks hold addresses of people")
	}
	return u, nil
}

// hookPlan lists the subscriptions that are wanted.
func hookPlan(account string, root *url.URL, hook connectors.Hook, secrets map[string]connectors.Secret) (plan []hookSubscription) {
	if !hook.NeedsEvent {
		return []hookSubscription{{Connector: account, URL: root.JoinPath(gateway.HooksPath, account).String()}}
	}
	for _, event := range hook.Install.Events {
		address := root.JoinPath(gateway.HooksPath, account, event)
		if hook.EventToken != nil {
			address = address.JoinPath(hook.EventToken(secrets, event))
		}
		plan = append(plan, hookSubscription{Connector: account, Event: event, URL: address.String()})
	}
	return plan
}

// hooksByHand says which addresses are to be entered on the provider's pages. The secret at their end
// stays where it is configured.
func (c *cli) hooksByHand(name string, root *url.URL, hook connectors.Hook) error {
	var list []hookSubscription
	for _, event := range hook.Events {
		address := root.JoinPath(gateway.HooksPath, name)
		if hook.NeedsEvent {
			address = address.JoinPath(event)
		}
		text := address.String()
		if hook.Token {
			text += "/<" + strings.Join(hook.Secrets, " or ") + ">"
		}
		list = append(list, hookSubscription{Connector: name, Event: event, URL: text, State: hookByHand, Detail: "enter it on the provider's pages"})
	}
	fmt.Fprintf(c.err, "the provider has no API for webhooks: enter these addresses on its pages\n")
	return c.printHooks(list)
}

func (c *cli) printHooks(list []hookSubscription) error {
	if c.flags.json {
		return c.printJSON(list)
	}
	rows := [][]string{{"CONNECTOR", "EVENT", "STATE", "ADDRESS", ""}}
	for _, s := range list {
		event := s.Event
		if event == "" {
			event = "all"
		}
		rows = append(rows, []string{s.Connector, event, s.State, s.URL, s.Detail})
	}
	table(c.out, "", rows)
	return nil
}

func hookEndpoint(kind connectors.Kind, operation string) (*connectors.Endpoint, error) {
	i := slices.IndexFunc(kind.Endpoints, func(e connectors.Endpoint) bool { return e.Name == operation })
	if i < 0 {
		return nil, fmt.Errorf("%s has no operation %s", kind.Name, operation)
	}
	return &kind.Endpoints[i], nil
}

// hookInstaller makes the subscriptions of one account that are missing.
type hookInstaller struct {
	client *api.Client
	kind   connectors.Kind
	hook   connectors.Hook
	made   *gateway.Installed
	again  bool
}

// install makes one subscription unless it stands, and says in it what became of it. The error is for
// what keeps all of them from being made.
func (in *hookInstaller) install(ctx context.Context, s *hookSubscription) error {
	known, remembered := in.made.Find(s.Connector, s.Event, s.URL)
	if !in.again || in.hook.Install.Complete {
		found, err := in.find(ctx, s)
		switch {
		case err != nil && in.hook.Install.Complete:
			return fmt.Errorf("ask %s for its subscriptions: %w; nothing was subscribed", s.Connector, err)
		case found != nil:
			s.State, s.ID = hookPresent, found.ID
			if remembered && !known.Made {
				known.Made, known.ID = true, found.ID
				if err := in.made.Put(known); err != nil {
					return err
				}
			}
			if missing := in.missing(found); in.hook.Install.Complete && len(missing) > 0 {
				s.State, s.Detail = hookFailed, "it is subscribed, but not to "+strings.Join(missing, ", ")+"; remove it at the provider and install again"
			}
			return nil
		case remembered && known.Made && !in.again:
			s.State, s.ID, s.Detail = hookPresent, known.ID, "made from this data directory on "+known.Asked.Format(time.DateOnly)
			return nil
		case remembered && !in.again:
			s.State = hookUnknown
			s.Detail = "the provider was asked at " + known.Asked.Format(time.RFC3339) + " and its answer is not known; look at its pages, then repeat with --again if it is not there"
			return nil
		}
	}
	return in.create(ctx, s, known)
}

// find asks the provider for the subscription; nil when its answer does not show it.
func (in *hookInstaller) find(ctx context.Context, s *hookSubscription) (*connectors.HookSubscription, error) {
	list, err := hookSubscriptions(ctx, in.client, in.kind, in.hook, s.Connector, s.Event)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(l connectors.HookSubscription) bool { return l.URL == s.URL })
	if i < 0 {
		return nil, nil
	}
	return &list[i], nil
}

// hookSubscriptions asks a provider for the subscriptions that it shows.
func hookSubscriptions(ctx context.Context, client *api.Client, kind connectors.Kind, hook connectors.Hook, account, event string) ([]connectors.HookSubscription, error) {
	operation, arguments := hook.Install.Ask(event)
	e, err := hookEndpoint(kind, operation)
	if err != nil {
		return nil, err
	}
	done, err := ask(ctx, client, account, e, arguments)
	if err != nil {
		return nil, err
	}
	if done.Class != "ok" {
		return nil, errors.New(done.Detail)
	}
	return hook.Install.Subscriptions(done.Answer)
}

// missing names the wanted events that a subscription does not have.
func (in *hookInstaller) missing(s *connectors.HookSubscription) (list []string) {
	if len(s.Events) == 0 || slices.Contains(s.Events, "*") {
		return nil
	}
	for _, e := range in.hook.Install.Events {
		if !slices.Contains(s.Events, e) {
			list = append(list, e)
		}
	}
	return list
}

// create subscribes. That it was asked for is remembered before the provider is asked, so that a crash
// in between does not make it twice. before is what was known of an earlier time, and stays known when
// nothing was done now.
func (in *hookInstaller) create(ctx context.Context, s *hookSubscription, before gateway.Subscription) error {
	operation, arguments := in.hook.Install.Create(s.Event, s.URL)
	e, err := hookEndpoint(in.kind, operation)
	if err != nil {
		return err
	}
	note := gateway.Subscription{Connector: s.Connector, Event: s.Event, URL: s.URL, Asked: time.Now().UTC().Truncate(time.Second)}
	if !in.hook.Install.Complete {
		if err := in.made.Put(note); err != nil {
			return err
		}
	}
	done, err := ask(ctx, in.client, s.Connector, e, arguments)
	switch {
	case err != nil:
		return fmt.Errorf("subscribe %s to %s: %w; whether it was done is not known", s.Connector, s.URL, err)
	case done.Class == "ok":
		s.State, s.ID = hookInstalled, in.hook.Install.Reference(done.Answer)
		note.Made, note.ID = true, s.ID
		if !in.hook.Install.Complete {
			return in.made.Put(note)
		}
		return nil
	case done.Class == string(connectors.Unknown):
		s.State = hookUnknown
		s.Detail = "it may or may not have been done: " + done.Detail
		return nil
	}
	s.State, s.Detail = hookFailed, "not done: "+done.Detail
	switch {
	case in.hook.Install.Complete:
		return nil
	case before.URL != "":
		return in.made.Put(before)
	}
	return in.made.Drop(note)
}

func (c *cli) listHooks(ctx context.Context, a []string) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	var names []string
	if len(a) > 0 {
		names = a
	} else {
		for _, x := range cfg.Connectors {
			if hook, ok := app.HookKinds()[x.Kind]; ok && hook.Install != nil {
				names = append(names, x.Name)
			}
		}
	}
	made, err := gateway.OpenInstalled(cfg.Data)
	if err != nil {
		return err
	}
	list := []hookSubscription{}
	var faults []error
	for _, name := range names {
		account, kind, hook, err := c.hookOf(cfg, name)
		switch {
		case err != nil:
			return err
		case hook.Install == nil:
			return usagef("%s has no API for webhooks; its own pages list them", kind.Name)
		case !hook.Install.Complete:
			for _, s := range made.Of(name) {
				row := hookSubscription{Connector: name, Event: s.Event, URL: s.URL, ID: s.ID, State: hookPresent, Detail: "made from this data directory on " + s.Asked.Format(time.DateOnly)}
				if !s.Made {
					row.State, row.Detail = hookUnknown, "asked for at "+s.Asked.Format(time.RFC3339)+", and the answer is not known"
				}
				list = append(list, row)
			}
			continue
		}
		conn, err := c.caller(ctx, cfg, account)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		there, err := hookSubscriptions(ctx, conn.Client, kind, hook, name, "")
		if err = errors.Join(err, conn.Close()); err != nil {
			faults = append(faults, fmt.Errorf("ask %s for its subscriptions: %w", name, err))
		}
		for _, s := range there {
			list = append(list, hookSubscription{Connector: name, Event: strings.Join(s.Events, ", "), URL: s.URL, ID: s.ID, State: hookPresent})
		}
	}
	return errors.Join(c.printHooks(list), errors.Join(faults...))
}
