package main

import (
	"bytes"
	"io"
	"os"
	"regexp"
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

// TestREADMEListsEveryCommand holds the table of commands in the README to the program.
func TestREADMEListsEveryCommand(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(readme), "| command | does |\n|---|---|\n")
	table, _, found := strings.Cut(table, "\n\n")
	if !found {
		t.Fatal("README.md holds no table of commands")
	}
	root := (&cli{in: strings.NewReader(""), out: io.Discard, err: io.Discard}).root()
	known := map[string]bool{}
	for _, c := range root.Commands() {
		if !c.Hidden && c.Name() != "help" {
			known[c.Name()] = true
		}
	}
	listed := map[string]bool{}
	for row := range strings.Lines(table) {
		cell := strings.SplitN(row, " | ", 2)[0]
		for _, m := range regexp.MustCompile("`([a-z-]+)").FindAllStringSubmatch(cell, -1) {
			listed[m[1]] = true
			if !known[m[1]] {
				t.Errorf("README.md lists %s, which is no command", m[1])
			}
		}
	}
	for name := range known {
		if !listed[name] {
			t.Errorf("README.md does not list %s", name)
		}
	}
}
