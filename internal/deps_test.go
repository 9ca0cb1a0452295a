// Package internal holds only this test: arrows between packages point one way.
package internal

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/lodestonehq/lodestone"

// allowed says for each package what it may import of ours, by prefix; "" is the root package. What
// is missing here may import everything.
var allowed = map[string][]string{
	"":                    {},
	"scoring":             {""},
	"rules":               {"", "scoring", "rules/clock"},
	"rules/clock":         {""},
	"connectors":          {"", "connectors", "connectors/"},
	"sequencer":           {"", "rules", "rules/clock", "scoring", "sequencer/"},
	"sequencer/event":     {""},
	"sequencer/failpoint": {},
	"scheduler":           {"", "rules", "rules/clock", "scoring", "sequencer", "sequencer/failpoint", "connectors"},
	"scheduler/boltstore": {"", "scheduler", "sequencer", "sequencer/failpoint"},
}

func TestArrowsPointOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		name := ours(p.ImportPath)
		rule, ok := rulesFor(name)
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module) {
				continue
			}
			target := ours(imp)
			if !strings.HasPrefix(name, "internal") && !strings.HasPrefix(name, "cmd") && (strings.HasPrefix(target, "internal") || strings.HasPrefix(target, "cmd")) {
				t.Errorf("%s imports %s: nothing below the commands knows of internal or cmd", p.ImportPath, imp)
			}
			if ok && !may(rule, target) {
				t.Errorf("%s imports %s: it may import only %q of ours", p.ImportPath, imp, rule)
			}
		}
	}
	if seen < 10 {
		t.Fatalf("only %d packages were looked at", seen)
	}
}

func ours(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }

// rulesFor finds the rule of a package or of the nearest one above it.
func rulesFor(name string) ([]string, bool) {
	for {
		if rule, ok := allowed[name]; ok {
			return rule, true
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return nil, false
		}
		name = name[:i]
	}
}

func may(rule []string, target string) bool {
	for _, r := range rule {
		if r == target || strings.HasSuffix(r, "/") && strings.HasPrefix(target, r) {
			return true
		}
	}
	return false
}

// The peers that Lodestone is measured beside are a module of their own, so that nobody who builds or
// imports Lodestone builds theirs.
func TestPeersAreNotBuiltIn(t *testing.T) {
	list := exec.Command("go", "list", "-deps", module+"/...")
	list.Env = append(os.Environ(), "GOWORK=off") // somebody may work on both together
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, module+"/cmd/lodestone") {
		t.Fatalf("the command is not among the %d packages", len(deps))
	}
	for _, p := range deps {
		for _, no := range []string{module + "/internal/bench/peers", "github.com/riverqueue/", "github.com/hibiken/", "github.com/jackc/", "github.com/redis/"} {
			if strings.HasPrefix(p, no) {
				t.Errorf("%s is built with the product", p)
			}
		}
	}
}
