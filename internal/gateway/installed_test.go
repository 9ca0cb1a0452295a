package gateway

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestInstalled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	open := func() *Installed {
		t.Helper()
		in, err := OpenInstalled(dir)
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	in := open()
	a := Subscription{Connector: "rock", Event: "MemberAdd", URL: "https://x/hooks/rock/MemberAdd", Asked: time.Now().UTC().Truncate(0)}
	b := Subscription{Connector: "other", Event: "MemberAdd", URL: "https://x/hooks/other/MemberAdd"}
	for _, s := range []Subscription{a, b} {
		if err := in.Put(s); err != nil {
			t.Fatal(err)
		}
	}
	a.Made, a.ID = true, "d2a1"
	if err := in.Put(a); err != nil {
		t.Fatal(err)
	}
	in = open()
	if got, ok := in.Find(a.Connector, a.Event, a.URL); !ok || got != a {
		t.Errorf("Find = %+v, %v; want %+v", got, ok, a)
	}
	if _, ok := in.Find(a.Connector, a.Event, "https://y/"); ok {
		t.Error("another address was found")
	}
	if got := in.Of("rock"); len(got) != 1 || got[0] != a {
		t.Errorf("Of = %+v", got)
	}
	if err := in.Drop(a); err != nil {
		t.Fatal(err)
	}
	if got := open().Of("rock"); len(got) != 0 || len(open().Of("other")) != 1 {
		t.Errorf("after Drop: %+v", got)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("the directory holds %v, %v; want one file", entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v; want 0600", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, installedName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenInstalled(dir); err == nil || !strings.Contains(err.Error(), installedName) {
		t.Errorf("a damaged file: %v", err)
	}
}
