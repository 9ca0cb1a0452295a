package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

func (c *cli) scoreCmd() *cobra.Command {
	var fields []string
	var at string
	cmd := &cobra.Command{
		Use:   "score FORM --field name=value …",
		Short: "What a hypothetical submission would get, and why; nothing is stored or sent",
		Long: `Score plans a submission with the rule files as they stand, without storing or sending anything.
With --field email= of a lead that the data directory knows, it is planned for that lead; otherwise for
a new one. Names that begin with "context." fill the context: --field context.consent.marketing=true.`,
		Example: "  lodestone score pricing-guide --field email=ada@example.com --field company_size=240",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			now := time.Now().UTC()
			if at != "" {
				t, err := time.Parse(time.RFC3339, at)
				if err != nil {
					return usagef("--at %q is not a time such as 2026-03-06T10:00:00Z", at)
				}
				now = t.UTC()
			}
			dir, opts, err := c.rulesDir(nil)
			if err != nil {
				return err
			}
			set, err := rules.Load(dir, opts)
			if err != nil {
				return c.faulty(dir, err)
			}
			sub, err := hypothetical(set, a[0], fields, now)
			if err != nil {
				return err
			}
			lead, err := c.knownLead(cmd, sub.Email)
			if err != nil {
				return err
			}
			book := sequencer.NewRulebook(set)
			change, err := sequencer.Plan(lead, &sequencer.Submitted{Submission: sub}, book, now)
			if err != nil {
				return err
			}
			x := api.Hypothetical(change, &sub, api.View{Book: book, Operations: opts.Operations, Now: now})
			if no := sequencer.Quarantined(lead, &sub, book); no != nil {
				x.Quarantine = &api.Quarantine{Condition: strings.TrimSpace(set.Forms[sub.Form].Quarantine.Source()), Detail: no.Detail}
			}
			if c.flags.json {
				return c.printJSON(x)
			}
			when := " now"
			if at != "" {
				when = " at " + utc(now)
			}
			if lead == nil {
				fmt.Fprintf(c.out, "If %s, who is not known so far, submitted %s%s:\n\n", sub.Email, a[0], when)
			} else {
				fmt.Fprintf(c.out, "If %s, who submitted %s before, submitted %s%s:\n\n", sub.Email, count(lead.Submissions, "form"), a[0], when)
			}
			writeExplanation(c.out, &x, set, now, 0)
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&fields, "field", "f", nil, "a field of the form, name=value; again for each")
	cmd.Flags().StringVar(&at, "at", "", "when it would be submitted (RFC 3339); now by default")
	return cmd
}

// faulty tells of the faults in rule files that a command needs, each on a line.
func (c *cli) faulty(dir string, err error) error {
	var faults rules.Faults
	if !errors.As(err, &faults) {
		return err
	}
	for _, f := range placed(dir, faults) {
		fmt.Fprintln(c.err, f)
	}
	return fmt.Errorf("the rule files have %s; `lodestone check` tells whether they are mended", count(len(faults), "fault"))
}

// hypothetical makes a submission the way it would come out of the stream. One without an address
// gets that of nobody, so that a marketer can ask about company sizes alone.
func hypothetical(set *rules.Set, form string, pairs []string, now time.Time) (lodestone.Submission, error) {
	fields, ctx, err := parseFields(pairs)
	if err != nil {
		return lodestone.Submission{}, err
	}
	def := set.Forms[form]
	if def == nil {
		names := make([]string, 0, len(set.Forms))
		for n := range set.Forms {
			names = append(names, n)
		}
		return lodestone.Submission{}, usagef("there is no form %q%s", form, instead(form, names, "the rule files declare "+list(names)))
	}
	if _, ok := fields[def.Email]; !ok {
		fields[def.Email] = "somebody@company.example"
	}
	for name := range fields {
		if _, ok := def.Fields[name]; !ok && name != def.Honeypot {
			names := make([]string, 0, len(def.Fields))
			for n := range def.Fields {
				names = append(names, n)
			}
			return lodestone.Submission{}, usagef("form %s has no field %q%s", form, name, instead(name, names, "it has "+list(names)))
		}
	}
	body := map[string]any{"fields": fields}
	if ctx != nil {
		body["context"] = ctx
	}
	data, err := json.Marshal(body)
	if err != nil {
		return lodestone.Submission{}, err
	}
	subject, err := event.SubmissionSubject(form)
	if err != nil {
		return lodestone.Submission{}, usageError{err}
	}
	sub, rejected := event.DecodeSubmission(event.Message{Subject: subject, Data: data, Time: now, Header: map[string][]string{"Nats-Msg-Id": {"hypothetical"}}},
		func(string) *lodestone.Form { return &def.Form })
	if rejected != nil {
		return lodestone.Submission{}, usagef("this submission could not be used: %s: %s", rejected.Reason, rejected.Detail)
	}
	return sub, nil
}

// knownLead looks the address up in the data directory, nil when there is no data or no such lead.
func (c *cli) knownLead(cmd *cobra.Command, email lodestone.Email) (*lodestone.Lead, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, boltstore.FileName)); err != nil {
		return nil, nil // nothing ran here yet: everybody is new
	}
	conn, err := c.connect(cmd.Context())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Record(cmd.Context(), email)
}
