package main

import "github.com/spf13/cobra"

func (c *cli) releaseCmd() *cobra.Command {
	var brake string
	var yes bool
	cmd := &cobra.Command{
		Use: "release --brake SEQUENCE", Short: "Let the enrollments that a sequence's brake holds go on",
		Example: "  lodestone queue --attention\n  lodestone release --brake hot-invite",
		Long: `Lets the enrollments that the brake of a sequence holds go on. Their touchpoints happen at their first
allowed moment from now on, in the order in which they began, at the provider's rate; that their time passed
while they were held makes none of them stale. To take them back instead: lodestone undo SEQUENCE.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if brake == "" {
				return usagef("say whose brake, as in release --brake hot-invite")
			}
			return c.letGo(cmd, brake, false, yes)
		},
	}
	cmd.Flags().StringVar(&brake, "brake", "", "the sequence whose brake holds them")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
