package console

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
)

// TestQuoted: ids come from outside and are shown in lines that people copy into a terminal; a shell must take each as
// one word and run nothing of it.
func TestQuoted(t *testing.T) {
	for _, id := range []string{"seq:2@abc", "web 4711", "a; touch owned", "$(touch owned)", "`touch owned`", "it's", `"x" && y`, "a|b>c", "~root", "*", "a\\b", "été"} {
		word, ok := quoted(id)
		if !ok {
			t.Errorf("%q cannot be typed", id)
			continue
		}
		cmd := exec.Command("sh", "-c", "printf %s "+word)
		cmd.Dir = t.TempDir()
		if out, err := cmd.Output(); err != nil || string(out) != id {
			t.Errorf("a shell makes %q of %s (%v)", out, word, err)
		}
	}
	for _, id := range []string{"", "a\nb", "a\x1b[2Jb", "-rf", "a\u202eb", "a\x7fb"} {
		if word, ok := quoted(id); ok {
			t.Errorf("%q is shown as %s", id, word)
		}
	}
	hostile := todo(api.Item{ID: "x\nrm -rf /", Kind: lodestone.AttentionSubmission})
	if len(hostile) != 1 || strings.Contains(hostile[0].Line, "rm") {
		t.Errorf("of an id that cannot be typed: %+v", hostile)
	}
}

// TestEveryKindHasARemedy: what needs a person says what that person can do.
func TestEveryKindHasARemedy(t *testing.T) {
	for _, kind := range []lodestone.AttentionKind{
		lodestone.AttentionSubmission, lodestone.AttentionTouchpoint, lodestone.AttentionConnector, lodestone.AttentionRule, lodestone.AttentionEnrollment,
	} {
		if len(todo(api.Item{ID: "x", Kind: kind})) == 0 {
			t.Errorf("%s: no remedy", kind)
		}
	}
}

// TestErasureIsFinishedByForget: what a provider still holds of somebody is no connector to resume.
func TestErasureIsFinishedByForget(t *testing.T) {
	list := todo(api.Item{ID: "forget/referralrock/0a1b", Kind: lodestone.AttentionConnector, Reason: lodestone.ReasonErased})
	if len(list) != 1 || list[0].Line != "lodestone forget EMAIL --providers" {
		t.Errorf("todo = %+v", list)
	}
}

func TestProse(t *testing.T) {
	for in, want := range map[string]string{
		"plain <b>":                      "plain &lt;b&gt;",
		"`lodestone check` says <which>": "<code>lodestone check</code> says &lt;which&gt;",
		"`<script>`":                     "<code>&lt;script&gt;</code>",
		"one ` alone <i>":                "one ` alone &lt;i&gt;",
	} {
		if got := string(prose(in)); got != want {
			t.Errorf("prose(%q) = %s, want %s", in, got, want)
		}
	}
}
