package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptCmds are what scripts can do beside testscript's own commands.
var scriptCmds = map[string]func(*testscript.TestScript, bool, []string){
	"freeport":   freeport,
	"eventually": eventually,
	"exits":      exits,
	"terminate":  terminate,
	"shape":      shape,
	"empty":      empty,
	"traces":     traces,
	"capture":    capture,
}

// lastPort is the port that was given out last. Ports below those that systems give to outgoing
// connections (32768 and up on Linux) are not taken by one between freeport and its use.
var lastPort = func() *atomic.Int32 {
	p := new(atomic.Int32)
	p.Store(10_000 + int32(os.Getpid()%18_000))
	return p
}()

// freeport VAR… sets each variable to an address on loopback where nobody listens and that no other
// script gets.
func freeport(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: freeport VAR…")
	}
	for _, name := range args {
		for {
			addr := fmt.Sprintf("127.0.0.1:%d", lastPort.Add(1))
			l, err := net.Listen("tcp", addr)
			if errors.Is(err, syscall.EADDRINUSE) {
				continue
			}
			ts.Check(err)
			ts.Check(l.Close())
			ts.Setenv(name, addr)
			break
		}
	}
}

// eventually PATTERN COMMAND… runs a command again and again until its standard output matches. It
// observes a condition of another process, which has no other way to tell.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN COMMAND…")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	deadline := time.Now().Add(60 * time.Second)
	for {
		_ = ts.Exec(args[1], args[2:]...) // until it succeeds, its output does not match
		if pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q never matched the output of %q", args[0], args[1:])
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// exits CODE COMMAND… runs a command that must end with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// terminate WORD sends SIGTERM to the command in the background that has WORD among its arguments;
// `wait` then waits for its end.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: terminate WORD")
	}
	for _, cmd := range ts.BackgroundCmds() {
		if slices.Contains(cmd.Args[1:], args[0]) {
			ts.Check(cmd.Process.Signal(syscall.SIGTERM))
			return
		}
	}
	ts.Fatalf("no command in the background has the argument %q", args[0])
}

// capture VAR PATTERN sets a variable to the first group of a pattern's first match in standard output.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture VAR PATTERN")
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	m := pattern.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) < 2 {
		ts.Fatalf("%q has no group that matches", args[1])
	}
	ts.Setenv(args[0], m[1])
}

// empty DIR… fails when a directory holds anything.
func empty(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: empty DIR…")
	}
	for _, dir := range args {
		entries, err := os.ReadDir(ts.MkAbs(dir))
		ts.Check(err)
		for _, e := range entries {
			ts.Fatalf("%s holds %s", dir, e.Name())
		}
	}
}

// traces TEXT FILE|DIR… succeeds where a text stands in one of the files, however it is spelt: in other letters,
// percent-encoded, with an escaped @ as in JSON or HTML, or in base64. Its negation names where it was found.
func traces(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: traces TEXT FILE|DIR…")
	}
	spelt := spellings(args[0])
	found, files := "", 0
	for _, root := range args[1:] {
		ts.Check(filepath.WalkDir(ts.MkAbs(root), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files++
			low := bytes.ToLower(b)
			for _, s := range spelt {
				in := b
				if s == strings.ToLower(s) {
					in = low
				}
				if i := bytes.Index(in, []byte(s)); i >= 0 && found == "" {
					found = fmt.Sprintf("%s holds %q at byte %d: %q", path, s, i, b[max(0, i-60):min(len(b), i+len(s)+60)])
				}
			}
			return nil
		}))
	}
	switch {
	case files == 0:
		ts.Fatalf("there is no file to look into")
	case neg && found != "":
		ts.Fatalf("%s", found)
	case !neg && found == "":
		ts.Fatalf("no trace of %q in %d files", args[0], files)
	}
}

// spellings are the ways in which a text may stand in a file; those in small letters are looked for in any.
func spellings(text string) []string {
	low := strings.ToLower(text)
	list := []string{low}
	for _, at := range []string{"%40", "\\u0040", "&#64;", "%2540"} {
		list = append(list, strings.ReplaceAll(low, "@", at))
	}
	for _, s := range []string{text, low, strings.ToUpper(text)} {
		for shift := range 3 { // where it begins among the three bytes of a group
			coded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + s))
			coded = coded[[]int{0, 2, 3}[shift]:]                       // without what the bytes before it had a part in
			coded = coded[:len(coded)-[]int{0, 4, 4}[(len(s)+shift)%3]] // nor those after
			list = append(list, coded, strings.NewReplacer("+", "-", "/", "_").Replace(coded))
		}
	}
	return list
}

func TestSpellings(t *testing.T) {
	const who = "Ada@example.com"
	for _, text := range []string{
		"mail ADA@Example.com!", "q=ada%40example.com&", `{"e":"ada\u0040example.com"}`, "ada&#64;example.com",
		base64.StdEncoding.EncodeToString([]byte("a" + who + "bc")), base64.URLEncoding.EncodeToString([]byte("ab" + who)), base64.RawStdEncoding.EncodeToString([]byte(who + "z")),
	} {
		if !slices.ContainsFunc(spellings(who), func(s string) bool {
			return strings.Contains(text, s) || s == strings.ToLower(s) && strings.Contains(strings.ToLower(text), s)
		}) {
			t.Errorf("%q is not found", text)
		}
	}
}

// shape FILE WANT compares JSON, key by key. In WANT, "<time>" stands for a time in RFC 3339, "<id>"
// for a text that is not empty, "<any>" for whatever there is, "<list>" for an array; an object with the
// key "…" may have more keys than are named.
func shape(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: shape FILE WANT")
	}
	var got, want any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &got); err != nil {
		ts.Fatalf("%s is not JSON: %v", args[0], err)
	}
	if err := json.Unmarshal([]byte(ts.ReadFile(args[1])), &want); err != nil {
		ts.Fatalf("%s is not JSON: %v", args[1], err)
	}
	if faults := unlike("", got, want); len(faults) > 0 {
		ts.Fatalf("%s is not like %s:\n%s", args[0], args[1], strings.Join(faults, "\n"))
	}
}

// unlike lists where got is not what want describes.
func unlike(path string, got, want any) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, path+": "+fmt.Sprintf(format, args...)) }
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			fault("%v is no object", got)
			return faults
		}
		_, more := w["…"]
		for _, k := range sortedKeys(w) {
			if v, ok := g[k]; ok {
				faults = append(faults, unlike(path+"."+k, v, w[k])...)
			} else if k != "…" {
				fault("has no %q", k)
			}
		}
		for _, k := range sortedKeys(g) {
			if _, ok := w[k]; !ok && !more {
				fault("has a %q that is not expected: %v", k, g[k])
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			fault("%v, want an array of %d", got, len(w))
			return faults
		}
		for i := range w {
			faults = append(faults, unlike(fmt.Sprintf("%s[%d]", path, i), g[i], w[i])...)
		}
	case string:
		text, isText := got.(string)
		switch w {
		case "<any>":
		case "<list>":
			if _, ok := got.([]any); !ok {
				fault("%v is no array", got)
			}
		case "<id>":
			if text == "" {
				fault("%v is no text, or an empty one", got)
			}
		case "<time>":
			if t, err := time.Parse(time.RFC3339, text); err != nil || t.IsZero() {
				fault("%v is no time", got)
			}
		default:
			if !isText || text != w {
				fault("is %v, want %q", got, w)
			}
		}
	default:
		if !reflect.DeepEqual(got, want) {
			fault("is %v, want %v", got, want)
		}
	}
	return faults
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// httpMain is the program `http METHOD URL [BODY]`, which prints the status and the body of the
// answer. Scripts use it as people use curl; a token in BEARER goes with the request.
func httpMain() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: http METHOD URL [BODY]")
		os.Exit(2)
	}
	req, err := http.NewRequest(os.Args[1], os.Args[2], strings.NewReader(strings.Join(os.Args[3:], " ")))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	req.Header.Set("Content-Type", "application/json")
	if token := os.Getenv("BEARER"); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(res.StatusCode)
	if _, err := io.Copy(os.Stdout, res.Body); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
