package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

func (c *cli) operationsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "operations [CONNECTOR [OPERATION]]",
		Short: "Every operation of the providers, what it does and what it takes",
		Example: `  lodestone operations referralrock
  lodestone operations referralrock createReferral
  lodestone operations referralrock invite
  lodestone operations --json | jq '.[] | select(.effect == "pay") | .operation'`,
		Args: args(cobra.MaximumNArgs(2)),
		RunE: func(_ *cobra.Command, a []string) error {
			list, err := c.operations(a)
			if err != nil {
				return err
			}
			if c.flags.json {
				return c.printJSON(list)
			}
			if len(a) == 2 {
				list[0].describe(c)
				return nil
			}
			rows := [][]string{{"OPERATION", "EFFECT", "REPEAT", "WHAT IT DOES"}}
			for _, o := range list {
				what := o.Summary
				if o.Deprecated != "" {
					what += " (" + o.Deprecated + ")"
				}
				rows = append(rows, []string{o.Operation, o.Effect, map[bool]string{true: "safe", false: "not safe"}[o.Repeatable], what})
			}
			table(c.out, "", rows)
			return nil
		},
	}
}

// listed is one operation as `operations` shows it.
type listed struct {
	Operation   string                `json:"operation"` // connector.operation
	Title       string                `json:"title,omitempty"`
	Summary     string                `json:"summary"`
	Description string                `json:"description,omitempty"`
	Effect      string                `json:"effect"`     // read, write, destroy or pay
	Repeatable  bool                  `json:"repeatable"` // doing it again changes nothing more
	Deprecated  string                `json:"deprecated,omitempty"`
	HumanOnly   bool                  `json:"human_only,omitempty"` // never from a rule or an agent
	Rules       bool                  `json:"rules"`                // whether a step's `do` may name it
	NoStep      string                `json:"no_step,omitempty"`    // why it may not
	Verb        bool                  `json:"verb,omitempty"`       // the connector's own: for steps, and not for `call`
	Arguments   []connectors.Argument `json:"-"`
	Schema      json.RawMessage       `json:"schema,omitempty"` // of the arguments; a verb has none
}

// listedVerb is an operation that the connector makes of others, for rules: what stands in `with`.
func listedVerb(connector string, op lodestone.Operation) listed {
	l := listed{
		Operation: connector + "." + op.Name, Summary: op.Summary, Effect: string(op.Effect), Repeatable: op.Again,
		Rules: op.NoStep == "", NoStep: op.NoStep, Verb: true,
	}
	for _, p := range op.Parameters {
		kind := string(p.Type)
		if p.Type == lodestone.FieldAny {
			kind = "any"
		}
		l.Arguments = append(l.Arguments, connectors.Argument{Name: p.Name, Type: kind, Required: p.Required, Description: p.Description, Values: p.Values})
	}
	return l
}

// operations lists the catalogue: of all connectors, of one, or one operation.
func (c *cli) operations(a []string) ([]listed, error) {
	var list []listed
	known := make([]string, 0, len(kinds))
	for _, k := range kinds {
		known = append(known, k.Name)
		if len(a) > 0 && a[0] != k.Name {
			continue
		}
		catalogue := map[string]bool{}
		for i := range k.Endpoints {
			catalogue[k.Endpoints[i].Name] = true
		}
		for _, op := range k.RuleOperations() {
			if len(a) > 1 && a[1] != op.Name || catalogue[op.Name] {
				continue
			}
			list = append(list, listedVerb(k.Name, op))
		}
		for i := range k.Endpoints {
			e := &k.Endpoints[i]
			if len(a) > 1 && a[1] != e.Name {
				continue
			}
			not := e.Operation().NoStep
			if own, ok := k.Operation(e.Name); ok {
				not = own.NoStep
			}
			list = append(list, listed{
				Operation: k.Name + "." + e.Name, Title: e.Title, Summary: e.Summary, Description: e.Description, Effect: string(e.Effect),
				Repeatable: e.Repeatable, Deprecated: e.Deprecated, HumanOnly: e.HumanOnly, Rules: not == "", NoStep: not, Arguments: e.Arguments, Schema: json.RawMessage(e.Schema),
			})
		}
	}
	switch {
	case len(list) > 0:
		return list, nil
	case len(a) == 2:
		if _, ok := kindOf(a[0]); ok {
			return nil, usagef("%s has no operation %q; `lodestone operations %s` lists them", a[0], a[1], a[0])
		}
	}
	return nil, usagef("there is no connector %q; there are %s", a[0], strings.Join(known, ", "))
}

func (l *listed) describe(c *cli) {
	fmt.Fprintf(c.out, "%s: %s\n", l.Operation, l.Summary)
	for _, text := range []string{l.Description, l.Deprecated} {
		if text != "" {
			fmt.Fprintln(c.out, text)
		}
	}
	fmt.Fprintf(c.out, "effect: %s; ", l.Effect)
	if l.Verb {
		fmt.Fprintln(c.out, "a verb of the connector, for steps; `lodestone call` takes the provider's own operations")
	} else if l.Repeatable {
		fmt.Fprintln(c.out, "safe to repeat")
	} else {
		fmt.Fprintln(c.out, "not safe to repeat")
	}
	if l.Rules {
		fmt.Fprintf(c.out, "a step may name it: do: %s\n", l.Operation)
	} else {
		fmt.Fprintf(c.out, "it cannot be a step: %s\n", l.NoStep)
	}
	rows := [][]string{}
	flag, title := "--", "arguments"
	if l.Verb {
		flag, title = "", "fields of with; email is the lead's unless given"
	}
	for _, a := range l.Arguments {
		need := ""
		if a.Required {
			need = "required"
		}
		about := a.Description
		if len(a.Values) > 0 {
			about = strings.TrimSpace(about + " One of " + strings.Join(a.Values, ", ") + ".")
		}
		rows = append(rows, []string{flag + a.Name, a.Type, need, about})
	}
	if len(rows) > 0 {
		fmt.Fprintf(c.out, "\n%s\n", title)
		table(c.out, "  ", rows)
	}
}

// pays reports whether an effect asks for a confirmation.
func pays(e lodestone.Effect) bool {
	return e == lodestone.EffectPay || e == lodestone.EffectDestroy
}
