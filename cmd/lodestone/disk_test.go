//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lodestonehq/lodestone/connectors/sandbox"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

// disk is an ext4 filesystem of its own, in a file on a loop device, that can be filled, made read-only
// and cut off from its power.
type disk struct {
	t           *testing.T
	device, dir string
}

// newDisk makes a disk. It needs root and a loop device; a machine that has none shows nothing here,
// and says so.
func newDisk(t *testing.T, megabytes int) *disk {
	t.Helper()
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	d := &disk{t: t, dir: filepath.Join(dir, "mount")}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, int64(megabytes)<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Skipf("not shown on this machine: mkfs.ext4: %v %s", err, out)
	}
	out, err := exec.Command("losetup", "-f", "--show", image).CombinedOutput()
	if err != nil {
		t.Skipf("not shown on this machine: losetup: %v %s", err, out)
	}
	d.device = strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", d.device).Run() })
	if err := unix.Mount(d.device, d.dir, "ext4", 0, ""); err != nil {
		t.Skipf("not shown on this machine: mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(d.dir, unix.MNT_DETACH) })
	return d
}

// cut takes the power away: what was not synced never reached the disk. ext4 is shut down without a
// flush of its journal, which is what its own tests do.
func (d *disk) cut() {
	d.t.Helper()
	const shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush); err != nil {
		d.t.Skipf("not shown on this machine: shutting ext4 down: %v", err)
	}
}

// again mounts the disk anew, as after the power came back.
func (d *disk) again(flags uintptr) {
	d.t.Helper()
	if err := unix.Unmount(d.dir, 0); err != nil {
		d.t.Fatal(err)
	}
	if err := unix.Mount(d.device, d.dir, "ext4", flags, ""); err != nil {
		d.t.Fatal(err)
	}
}

// workerOn is a worker whose data directory lies on a disk.
func workerOn(t *testing.T, d *disk) (w *killable, box *sandbox.Server) {
	t.Helper()
	box = sandbox.New(sandbox.Options{})
	provider := httptest.NewServer(box.Handler())
	t.Cleanup(provider.Close)
	if err := box.Fault(sandbox.Fault{Kind: sandbox.FaultSlow, Delay: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	rulesDir := t.TempDir()
	if err := os.WriteFile(filepath.Join(rulesDir, "rules.yaml"), []byte(crashRules), 0o600); err != nil {
		t.Fatal(err)
	}
	return &killable{t: t, data: filepath.Join(d.dir, "data"), rules: rulesDir, provider: provider.URL + "/referralrock", nats: freeAddress(t)}, box
}

// TestPowerLoss cuts the power of the data directory's disk while submissions flow and calls are out.
// After each cut everything that was acknowledged is there, and nothing is done twice.
func TestPowerLoss(t *testing.T) {
	const submissions, cuts = 120, 4
	d := newDisk(t, 512)
	w, box := workerOn(t, d)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	published := make(chan error, 1)
	gate := make(chan struct{}, submissions)
	w.start()
	go func() { published <- publishAll(ctx, w.nats, submissions, gate) }()
	for i := range cuts {
		w.ready(ctx)
		for range submissions / cuts {
			gate <- struct{}{}
		}
		unsynced := filepath.Join(d.dir, fmt.Sprint("unsynced", i))
		if err := os.WriteFile(unsynced, []byte("it was never synced"), 0o600); err != nil {
			t.Fatal(err)
		}
		select { // how long the power lasts is drawn, not waited for
		case <-time.After(time.Duration(100+rng.IntN(600)) * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("out of time")
		}
		d.cut()
		w.kill()
		d.again(0)
		// The worker's own syncs carry the name of the file with them; its bytes they do not.
		if b, err := os.ReadFile(unsynced); err == nil && len(b) > 0 {
			t.Fatalf("cut %d lost nothing that was not synced, so the test shows nothing", i)
		}
		w.start()
	}
	if err := <-published; err != nil {
		t.Fatalf("publishing: %v\n%s", err, w.log.String())
	}
	states := w.settled(ctx, submissions)
	w.kill()
	sent, held, lost, doubled := counted(box, states, submissions)
	if lost+doubled > 0 {
		t.Errorf("%d lost, %d doubled\n%s", lost, doubled, w.log.String())
	}
	store, err := boltstore.Open(w.data, boltstore.Options{Wait: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if faults, err := store.Check(ctx); err != nil || len(faults) > 0 {
		t.Errorf("the store: %v %v", err, faults)
	}
	t.Logf("seed %d: %d cuts, %d submissions: %d sent, %d held, %d lost, %d doubled; %d calls were cut", seed, cuts, submissions, sent, held, lost, doubled, w.interrupted)
}

// TestDiskFull fills the disk under a running worker. What is acknowledged nevertheless is not lost, and
// once there is room and the worker was started again everything goes on.
func TestDiskFull(t *testing.T) {
	const before, during = 20, 40
	d := newDisk(t, 96)
	w, box := workerOn(t, d)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	published := make(chan error, 1)
	gate := make(chan struct{}, before+during)
	w.start()
	w.ready(ctx)
	go func() { published <- publishAll(ctx, w.nats, before+during, gate) }()
	for range before {
		gate <- struct{}{}
	}
	w.settled(ctx, before)
	filler, err := os.Create(filepath.Join(d.dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = filler.Write(block)
	}
	_ = filler.Sync()
	_ = filler.Close()
	for range during {
		gate <- struct{}{}
	}
	// The doctor says what is wrong and what to do.
	out, code := w.doctor()
	if code != exitFound || !strings.Contains(out, "make room") {
		t.Errorf("doctor: exit code %d\n%s", code, out)
	}
	select { // some of what comes now is refused; how much gets in is the disk's affair
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
	}
	w.kill()
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	w.start()
	if err := <-published; err != nil {
		t.Fatalf("publishing: %v\n%s", err, w.log.String())
	}
	states := w.settled(ctx, before+during)
	w.kill()
	sent, held, lost, doubled := counted(box, states, before+during)
	if lost+doubled > 0 {
		t.Errorf("%d lost, %d doubled\n%s", lost, doubled, w.log.String())
	}
	t.Logf("%d sent, %d held, %d lost, %d doubled", sent, held, lost, doubled)
}

// TestDiskReadOnly starts on a disk that cannot be written to: a message with the remedy, exit code 1,
// and nothing is changed.
func TestDiskReadOnly(t *testing.T) {
	d := newDisk(t, 96)
	w, _ := workerOn(t, d)
	w.start()
	w.ready(t.Context())
	if err := w.process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-w.exited
	d.again(unix.MS_RDONLY)
	out, code := output(t, "run", "--data", w.data, "--rules", w.rules, "--nats-listen", "none", "--http-listen", "none")
	if code != exitFailed || !strings.Contains(out, "read-only file system; it must be") {
		t.Errorf("run: exit code %d\n%s", code, out)
	}
	out, code = w.doctor()
	if code != exitFound || !strings.Contains(out, "nothing can be written to") {
		t.Errorf("doctor: exit code %d\n%s", code, out)
	}
	if _, ok := api.Dial(w.data); ok {
		t.Error("a worker runs")
	}
}

// doctor runs `lodestone doctor` on the worker's directory.
func (k *killable) doctor() (string, int) {
	return output(k.t, "doctor", "--data", k.data, "--rules", k.rules)
}

func output(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := program(t, args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
