package main

import (
	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/config"
	"github.com/lodestonehq/lodestone/rules"
)

func (c *cli) schemaCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "schema [rules|config]",
		Short: "JSON Schema of rule files, or of the configuration",
		Long: `Schema prints the JSON Schema (draft 2020-12) of rule files, or with "config" that of
lodestone.yaml. An editor with a YAML language server completes and checks by it: write it to
lodestone.schema.json and put this at the head of a rule file:

  # yaml-language-server: $schema=./lodestone.schema.json`,
		Example:   "  lodestone schema > rules/lodestone.schema.json\n  lodestone schema config",
		ValidArgs: []string{"rules", "config"},
		Args:      args(cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs)),
		RunE: func(_ *cobra.Command, a []string) error {
			schema := config.JSONSchema()
			if len(a) == 0 || a[0] == "rules" {
				cfg, err := c.load()
				if err != nil {
					return err
				}
				schema = rules.JSONSchema(cfg.rulesOptions())
			}
			_, err := c.out.Write(append(schema, '\n'))
			return err
		},
	}
}
