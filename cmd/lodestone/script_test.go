package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"regexp"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// freeport VAR… sets each variable to an address on loopback where nobody listens.
func freeport(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: freeport VAR…")
	}
	var held []net.Listener // all of them, so that no two get the same
	for _, name := range args {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		held = append(held, l)
		ts.Setenv(name, l.Addr().String())
	}
	for _, l := range held {
		ts.Check(l.Close())
	}
}

// eventually PATTERN COMMAND… runs a command again and again until its standard output matches. It
// observes a condition of another process, which has no other way to tell.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN COMMAND…")
	}
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	deadline := time.Now().Add(60 * time.Second)
	var out, errs bytes.Buffer
	for {
		out.Reset()
		errs.Reset()
		exe, err := exec.LookPath(args[1])
		if err != nil {
			exe = args[1]
		}
		cmd := exec.Command(exe, args[2:]...)
		cmd.Dir, cmd.Env = ts.MkAbs("."), scriptEnv(ts)
		cmd.Stdout, cmd.Stderr = &out, &errs
		_ = cmd.Run() // until it succeeds, its output does not match
		if pattern.Match(out.Bytes()) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q never matched; the last output was\n%s%s", args[0], out.String(), errs.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// scriptEnv is the script's environment for commands that are not run by exec.
func scriptEnv(ts *testscript.TestScript) []string {
	env := os.Environ()
	for _, name := range []string{"HOME", "PATH", "WORK", "NATS", "HTTP", "BOX",
		"LODESTONE_DATA", "LODESTONE_RULES", "LODESTONE_NATS_LISTEN", "LODESTONE_HTTP_LISTEN", "LODESTONE_LOG_LEVEL",
		"LODESTONE_CONNECTORS_REFERRALROCK_BASE_URL", "LODESTONE_CONNECTORS_REFERRALROCK_PUBLIC_KEY", "LODESTONE_CONNECTORS_REFERRALROCK_PRIVATE_KEY",
	} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}
