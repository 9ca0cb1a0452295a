package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// asProgram makes the test binary behave as lodestone itself, so that tests run the real program as a
// process of its own, built with the race detector when they are.
const asProgram = "LODESTONE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	testscript.Main(m, map[string]func(){"lodestone": main, "http": httpMain})
}

// program is a command that runs lodestone as a process.
func program(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// TestScripts runs the command line as people do: each script in testdata/script is one story.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			tmp := filepath.Join(e.WorkDir, ".tmp")
			e.Vars = append(e.Vars, "HOME="+e.WorkDir, "TMPDIR="+tmp,
				"GORACE=atexit_sleep_ms=0", // instead of a second at the end of every process
				// Most scripts speak to a sandbox; where it listens they say themselves.
				"LODESTONE_CONNECTORS_REFERRALROCK_PUBLIC_KEY=the-public-key", "LODESTONE_CONNECTORS_REFERRALROCK_PRIVATE_KEY=the-private-key",
				"LODESTONE_CONNECTORS_REFERRALROCK_RATE=1000/s")
			return os.MkdirAll(tmp, 0o700)
		},
		Cmds: scriptCmds,
	})
}
