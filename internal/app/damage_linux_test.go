package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/events"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

// A store file that a disk damaged without any of its times telling is opened, and said to be damaged while
// work goes on: in readiness, and by the doctor, which does not walk into it.
func TestDamageIsFoundWhileWorkGoesOn(t *testing.T) {
	r := newRig(t)
	s, err := boltstore.Open(r.dir, boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const entries = 300
	for range entries {
		err = errors.Join(err, s.Record(t.Context(), &lodestone.Entry{At: time.Now(), Lead: "somebody-in-the-journal@example.com"}))
	}
	err = errors.Join(err, s.SetCursor(t.Context(), events.Cursor, entries)) // nobody comes to the first of them
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.dir, boltstore.FileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size, spoilt := os.Getpagesize(), 0
	for at := 2 * size; at < len(b); at += size {
		// A leaf that begins with the first entry: its key is 1.
		if page := b[at : at+size]; page[8] == 0x02 && bytes.Contains(page, []byte("\x00\x00\x00\x00\x00\x00\x00\x01")) && bytes.Contains(page, []byte("in-the-journal")) {
			page[16+4+3] ^= 0x40 // where the first element stands
			spoilt++
		}
	}
	if spoilt == 0 {
		t.Fatal("no page of the journal was found")
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(b, 0)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(r.dir, boltstore.MarkName)
	var says map[string]any
	text, err := os.ReadFile(mark)
	if err == nil {
		err = json.Unmarshal(text, &says)
	}
	info, serr := os.Stat(path)
	if err := errors.Join(err, serr); err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	says["modified"], says["changed"] = st.Mtim.Nano(), st.Ctim.Nano()
	if text, err = json.Marshal(says); err == nil {
		err = os.WriteFile(mark, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}

	w := r.open()
	stop := r.start(w)
	defer stop()
	if !w.store.Unread() {
		t.Fatal("the file was read through although its mark holds")
	}
	w.readThrough(t.Context(), 0)
	found := false
	for _, n := range w.warnings() {
		found = found || n.Code == "store_damaged" && strings.Contains(n.Detail, "lies outside of it") && strings.Contains(n.Detail, "lodestone restore")
	}
	if !found {
		t.Errorf("warnings %+v; want the damage and what to do", w.warnings())
	}
	report, err := w.Client().Doctor(t.Context())
	if err != nil || len(report.Findings) == 0 || report.Findings[0].Check != "store" || !strings.Contains(report.Findings[0].Message, "lies outside of it") {
		t.Errorf("the doctor finds %+v, %v", report.Findings, err)
	}
}
