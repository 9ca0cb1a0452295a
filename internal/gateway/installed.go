package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone/internal/replacefile"
)

// installedName is the file of subscriptions in a data directory.
const installedName = "hooks.json"

// Installed remembers the subscriptions that were made at providers which cannot list them, so that
// none is made twice. It is a file in the data directory, mode 0600, replaced as a whole and synced
// with every change. The token in which an address may end proves nothing without the provider's
// signature. One process at a time should change it.
type Installed struct {
	path string
	list []Subscription
}

// Subscription is one address that a provider was asked to post an event to.
type Subscription struct {
	Connector string    `json:"connector"`
	Event     string    `json:"event"`
	URL       string    `json:"url"`
	ID        string    `json:"id,omitempty"` // the provider's, when it gave one
	Asked     time.Time `json:"asked"`        // when it was asked
	Made      bool      `json:"made"`         // it said yes; false: its answer is not known
}

// OpenInstalled reads the subscriptions of a data directory; without the file there are none. The
// directory need not exist before something is remembered.
func OpenInstalled(dir string) (*Installed, error) {
	in := &Installed{path: filepath.Join(dir, installedName)}
	b, err := os.ReadFile(in.path)
	if errors.Is(err, fs.ErrNotExist) {
		return in, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the subscriptions that were made: %w", err)
	}
	if err := json.Unmarshal(b, &in.list); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w); move it away to begin anew, and compare with what the provider shows", in.path, err)
	}
	return in, nil
}

// Of returns the subscriptions of one account, in the order in which they were made.
func (in *Installed) Of(connector string) []Subscription {
	return slices.DeleteFunc(slices.Clone(in.list), func(s Subscription) bool { return s.Connector != connector })
}

// Find returns what is remembered of one event and address of an account.
func (in *Installed) Find(connector, event, url string) (Subscription, bool) {
	i := slices.IndexFunc(in.list, Subscription{Connector: connector, Event: event, URL: url}.same)
	if i < 0 {
		return Subscription{}, false
	}
	return in.list[i], true
}

func (s Subscription) same(o Subscription) bool {
	return s.Connector == o.Connector && s.Event == o.Event && s.URL == o.URL
}

// Put remembers a subscription, in place of what was known of the same event and address.
func (in *Installed) Put(s Subscription) error {
	if i := slices.IndexFunc(in.list, s.same); i >= 0 {
		in.list[i] = s
	} else {
		in.list = append(in.list, s)
	}
	return in.save()
}

// Drop forgets a subscription that was not made after all.
func (in *Installed) Drop(s Subscription) error {
	in.list = slices.DeleteFunc(in.list, s.same)
	return in.save()
}

func (in *Installed) save() error {
	if err := in.write(); err != nil {
		return fmt.Errorf("remember the subscriptions that were made: %w", err)
	}
	return nil
}

func (in *Installed) write() error {
	b, err := json.MarshalIndent(in.list, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(in.path), 0o700); err != nil {
		return err
	}
	return replacefile.Write(in.path, append(b, '\n'))
}
