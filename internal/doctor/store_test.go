package doctor

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

// That the store file cannot be read at the moment is told as that, and nobody is sent for a backup.
func TestStoreThatCannotBeReadNow(t *testing.T) {
	s, err := boltstore.Open(t.TempDir(), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	path := s.Path()
	if err := os.Rename(path, path+"-away"); err != nil {
		t.Fatal(err)
	}
	var r Report
	r.Store(t.Context(), s)
	if err := errors.Join(os.Rename(path+"-away", path), s.Damage()); err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) == 0 || !strings.Contains(r.Findings[0].Message, "cannot be opened") {
		t.Errorf("found %+v; want that the file cannot be opened", r.Findings)
	}
	for _, f := range r.Findings {
		if strings.Contains(f.Remedy, "restore") {
			t.Errorf("%q: the remedy is %q", f.Message, f.Remedy)
		}
	}
}
