package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/api"
)

func (c *cli) renderCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "render EMAIL STEP|SEQUENCE.STEP",
		Short: "The exact request that a step would send for a lead; nothing is sent",
		Long: `Render shows what the worker would send if the step were due now: method, address, headers and body, made by the
same code, with <secret> in place of every secret and <link> in place of what makes a link to confirm or to unsubscribe work. For a lead that is in the sequence the step is filled in from
the submission that began it; for any other from what is known of the lead today.

Where a connector asks the provider before it acts, the question is shown. Nothing is ever sent.`,
		Example: "  lodestone render ada@example.com invite\n  lodestone render ada@example.com hot-invite.invite --json",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			cfg, err := c.load()
			if err != nil {
				return err
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			made, err := conn.Render(cmd.Context(), a[0], a[1])
			if err != nil {
				var p *api.Problem
				if errors.As(err, &p) && p.Status == http.StatusBadRequest {
					return usageError{err}
				}
				return err
			}
			var request *connectors.Rehearsal
			if made.Missing == "" {
				account, _ := cfg.account(made.Connector)
				kind, ok := kindOf(account.Kind)
				if !ok {
					return fmt.Errorf("connector %s is not configured; give it settings under connectors.%s", made.Connector, made.Connector)
				}
				r, err := connectors.Rehearse(cmd.Context(), kind, accountSettings(account, nil), made.Act())
				var f *connectors.Fault
				switch {
				case errors.As(err, &f):
					made.Missing = f.Detail
				case err != nil:
					return err
				default:
					request = &r
				}
			}
			if c.flags.json {
				err = c.printJSON(struct {
					api.Rendered
					Request *connectors.Rehearsal `json:"request"` // null: nothing would be called
				}{made, request})
			} else {
				c.writeRendered(&made, request)
			}
			if err == nil && request == nil {
				err = fmt.Errorf("the touchpoint would fail before any call (bad_parameters): %s", made.Missing)
			}
			return err
		},
	}
}

func (c *cli) writeRendered(made *api.Rendered, request *connectors.Rehearsal) {
	fmt.Fprintf(c.err, "%s.%s for %s, %s.%s\n", made.Sequence, made.Step, made.Email, made.Connector, made.Operation)
	if made.Hypothetical {
		fmt.Fprintf(c.err, "%s is not in %s: this is what would be sent on what is known today\n", made.Email, made.Sequence)
	}
	if v := made.Objection; v != nil {
		fmt.Fprintf(c.err, "the gate would not let it pass now: %s: %s\n", v.Check, v.Evidence)
	}
	if request == nil {
		return
	}
	fmt.Fprintf(c.out, "%s %s\n", request.Method, request.URL)
	for _, name := range slices.Sorted(maps.Keys(request.Header)) {
		fmt.Fprintf(c.out, "%s: %s\n", name, strings.Join(request.Header[name], ", "))
	}
	if request.Body != "" {
		fmt.Fprintf(c.out, "\n%s\n", indented(request.Body))
	}
	fmt.Fprintln(c.err, "nothing was sent")
}

// indented makes JSON readable and leaves anything else as it is.
func indented(body string) string {
	var b bytes.Buffer
	if json.Indent(&b, []byte(body), "", "  ") != nil {
		return body
	}
	return b.String()
}
