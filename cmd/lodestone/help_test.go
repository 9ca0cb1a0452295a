package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestEveryCommandShowsAnExample asks each command for its help, as a person would.
func TestEveryCommandShowsAnExample(t *testing.T) {
	root := (&cli{in: strings.NewReader(""), out: io.Discard, err: io.Discard}).root()
	var visit func(*cobra.Command)
	asked := 0
	visit = func(c *cobra.Command) {
		names := map[string]bool{}
		for _, sub := range c.Commands() {
			if names[sub.Name()] {
				t.Errorf("%s is there twice", sub.CommandPath())
			}
			names[sub.Name()] = true
			visit(sub)
		}
		var out, errs bytes.Buffer
		line := append(strings.Fields(c.CommandPath())[1:], "--help")
		if code := run(t.Context(), line, strings.NewReader(""), &out, &errs); code != exitDone || errs.Len() > 0 {
			t.Errorf("%s: exit code %d, stderr %q", line, code, errs.String())
		}
		asked++
		_, example, found := strings.Cut(out.String(), "Examples:\n")
		if !found || !strings.Contains(strings.SplitN(example, "\n\n", 2)[0], c.CommandPath()) {
			t.Errorf("%s shows no example of itself:\n%s", line, out.String())
		}
		if c.Short == "" {
			t.Errorf("%s has no short description", c.CommandPath())
		}
	}
	visit(root)
	if asked < 15 {
		t.Errorf("%d commands were asked; there are more", asked)
	}
}
