//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const zonedRules = `
forms:
  guide:
    fields: {email: {type: email, required: true}, country: {type: text}}
    zone: zone_of_country(fields.country)
scoring:
  bands: {any: 0}
sequences:
  office:
    when: 'true'
    window: {days: mon-fri, from: "09:00", to: "17:00"}
    steps:
      - {name: invite, do: referralrock.invite, with: {firstName: there}}
tests:
  - name: nine o'clock in Auckland, in summer time
    submit: {form: guide, fields: {email: ada@example.com, country: NZ}, at: 2026-01-05T10:00:00Z}
    expect:
      touchpoints: [{step: invite, at: 2026-01-05T20:00:00Z, outcome: sent}]
`

// TestZonesAreInTheProgram runs the real program where no time zone data can be found: ZONEINFO and GOROOT
// lead nowhere and, where the test may do that, the system's own data is covered by an empty directory.
func TestZonesAreInTheProgram(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rules.yaml"), []byte(zonedRules), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := program(t, "test", dir)
	cmd.Env = append(cmd.Env, "ZONEINFO=/nowhere", "GOROOT=/nowhere", "TZ=Europe/Berlin")
	const cover = `for d in /usr/share/zoneinfo /usr/share/lib/zoneinfo /usr/lib/locale/TZ /etc/zoneinfo; do
	[ ! -d $d ] || mount -t tmpfs none $d || exit 99
done
ls /usr/share/zoneinfo/Pacific/Auckland 2>/dev/null && exit 99
exec "$0" "$@"`
	if exec.Command("unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt").Run() == nil {
		env := cmd.Env
		cmd = exec.Command("unshare", append([]string{"--mount", "sh", "-c", cover}, cmd.Args...)...)
		cmd.Env = env
	} else {
		t.Log("mounting is not allowed here: shown without ZONEINFO and GOROOT, and not without the system's own data")
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
