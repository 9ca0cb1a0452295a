package broker

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestClients runs the examples in other languages, each where what runs it is on the machine.
func TestClients(t *testing.T) {
	b, keys, _ := openGuarded(t)
	_, password, err := keys.Make("guide", false)
	if err != nil {
		t.Fatal(err)
	}
	stored := uint64(0)
	for file, runtime := range map[string]string{"publish.py": "python3", "publish.mjs": "node", "publish.sh": "bash"} {
		t.Run(file, func(t *testing.T) {
			path, err := exec.LookPath(runtime)
			if err != nil {
				t.Skipf("there is no %s on this machine", runtime)
			}
			run := func(form, key string) error {
				cmd := exec.CommandContext(t.Context(), path, filepath.Join("testdata", "clients", file), `{"email": "söhne@example.com"}`)
				cmd.Env = append(os.Environ(), "NATS="+strings.TrimPrefix(b.URL(), "nats://"), "FORM="+form, "KEY="+key)
				out, err := cmd.CombinedOutput()
				t.Logf("%s: %v %s", form, err, out)
				return err
			}
			if err := run("guide", password); err != nil {
				t.Errorf("with the key: %v", err)
			}
			if err := run("guide", "wrong"); err == nil {
				t.Error("a wrong key ended well")
			}
			stored++
		})
	}
	if _, first, last, err := b.StreamIdentity(t.Context(), FormsStream); err != nil || last+1-first != stored {
		t.Errorf("the stream holds %d to %d, %v, want %d", first, last, err, stored)
	}
}
