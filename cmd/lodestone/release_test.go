package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
)

// TestSeveral: of several items with one id a person, and a program, reads how to name each.
func TestSeveral(t *testing.T) {
	var out, errs bytes.Buffer
	c := &cli{out: &out, err: &errs}
	several := &api.Problem{Detail: "several", Items: []api.Item{
		{ID: "web 4711", Item: "submission/12", Kind: lodestone.AttentionSubmission, Form: "guide", Email: "ada@example.com"},
		{ID: "web 4711", Item: "submission/13", Kind: lodestone.AttentionSubmission, Form: "guide", Email: "grace@example.com"},
	}}
	if err := c.several(several); !errors.Is(err, several) {
		t.Errorf("the error is %v", err)
	}
	for _, want := range []string{"--item submission/12  guide  ada@example.com", "--item submission/13  guide  grace@example.com"} {
		if !strings.Contains(errs.String(), want) || out.Len() > 0 {
			t.Errorf("it says %q and, as a result, %q; want %q", errs.String(), out.String(), want)
		}
	}
	c.flags.json = true
	if err := c.several(several); !errors.Is(err, several) {
		t.Errorf("the error is %v", err)
	}
	var got struct{ Several []api.Item }
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got.Several) != 2 || got.Several[1] != several.Items[1] {
		t.Errorf("as JSON: %s, %v", out.String(), err)
	}
	if other := errors.New("the worker does not answer"); c.several(other) != other {
		t.Error("another error changed")
	}
}
