package broker

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/lodestonehq/lodestone/internal/filelock"
	"github.com/lodestonehq/lodestone/internal/replacefile"
)

// FormKeysName is the file of form keys in a data directory.
const FormKeysName = "form-keys.json"

const (
	formUser = "form-"   // before the form in a user's name
	inbox    = "_INBOX_" // before the form in the subjects that answers come on
)

var (
	// ErrKeyThere says that a form has a key already.
	ErrKeyThere = errors.New("the form has a key already")
	// ErrNoKey says that a form has none.
	ErrNoKey = errors.New("the form has no key")
)

// FormKeys is the file of keys with which clients of the server inside may publish the submissions of
// one form and do nothing else. It holds hashes, mode 0600, and is replaced as a whole, by one at a time; the
// server reads it at each connection, so that a new key works at once. [Broker.DropForm] ends the connections of one that
// has ended.
type FormKeys struct {
	Path string
}

// FormKey is one key as it is kept.
type FormKey struct {
	Form string    `json:"form"`
	Hash string    `json:"hash"` // SHA-256 of the password, which is 128 random bits
	Made time.Time `json:"made"`
}

// User is the name that a client of a form gives.
func (k FormKey) User() string { return formUser + k.Form }

// InboxPrefix is where a client of a form hears answers: its library must be told.
func (k FormKey) InboxPrefix() string { return inbox + k.Form }

// Make makes the key of a form and returns the password, which is kept nowhere. The error wraps
// [ErrKeyThere] unless an earlier key may be replaced.
func (f FormKeys) Make(form string, replace bool) (key FormKey, password string, err error) {
	unlock, err := f.lock()
	if err != nil {
		return FormKey{}, "", err
	}
	defer unlock()
	keys, err := f.List()
	if err != nil {
		return FormKey{}, "", err
	}
	i := slices.IndexFunc(keys, func(k FormKey) bool { return k.Form == form })
	if i >= 0 && !replace {
		return FormKey{}, "", ErrKeyThere
	}
	password = rand.Text()
	key = FormKey{form, hashOf(password), time.Now().UTC().Truncate(time.Second)}
	if i >= 0 {
		keys[i] = key
	} else {
		keys = append(keys, key)
	}
	return key, password, f.write(keys)
}

// Remove takes the key of a form away. The error wraps [ErrNoKey].
func (f FormKeys) Remove(form string) error {
	unlock, err := f.lock()
	if err != nil {
		return err
	}
	defer unlock()
	keys, err := f.List()
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(keys), func(k FormKey) bool { return k.Form == form })
	if len(left) == len(keys) {
		return ErrNoKey
	}
	return f.write(left)
}

// List returns the keys there are, by form.
func (f FormKeys) List() ([]FormKey, error) {
	data, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the keys of forms: %w", err)
	}
	var keys []FormKey
	if err := json.Unmarshal(data, &keys); err != nil {
		return nil, fmt.Errorf("read the keys of forms: %s: %w; without the file there are none", f.Path, err)
	}
	slices.SortFunc(keys, func(a, b FormKey) int { return strings.Compare(a.Form, b.Form) })
	return keys, nil
}

// lock waits until nobody else changes the file.
func (f FormKeys) lock() (unlock func(), err error) {
	if unlock, err = filelock.Lock(f.Path); err != nil {
		return nil, fmt.Errorf("change the keys of forms: %w", err)
	}
	return unlock, nil
}

func (f FormKeys) write(keys []FormKey) error {
	data, err := json.MarshalIndent(keys, "", "  ")
	if err != nil {
		return err
	}
	if err := replacefile.Write(f.Path, append(data, '\n')); err != nil {
		return fmt.Errorf("write the keys of forms: %w", err)
	}
	return nil
}

func hashOf(password string) string {
	sum := sha256.Sum256([]byte(password))
	return hex.EncodeToString(sum[:])
}

// doorkeeper says who may do what at the server inside.
type doorkeeper struct {
	inside         string // password of this process's own connection
	user, password string // of clients of the listener; empty: everybody on this machine is let in
	keys           FormKeys
}

const insideUser = "lodestone-inside"

// Check implements [server.Authentication].
func (d *doorkeeper) Check(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	name, given := o.Username, o.Password
	form, isForm := strings.CutPrefix(name, formUser)
	switch {
	case name == insideUser:
		return equal(given, d.inside)
	case isForm:
		keys, err := d.keys.List()
		i := slices.IndexFunc(keys, func(k FormKey) bool { return k.Form == form })
		if err != nil || i < 0 || !equal(hashOf(given), keys[i].Hash) {
			return false
		}
		c.RegisterUser(&server.User{Username: name, Permissions: formPermissions(form)})
		return true
	case d.user == "":
		return true // the listener is on loopback
	}
	return equal(name, d.user) && equal(given, d.password)
}

// formPermissions are to publish on one subject and to hear the answer.
func formPermissions(form string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"lodestone.forms." + form}},
		Subscribe: &server.SubjectPermission{Allow: []string{inbox + form + ".>"}},
	}
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// DropForm ends the connections that a form's key opened, once the key has ended or was replaced, and says how many
// there were. Those who have the new one come back. A server outside keeps its own connections.
func (b *Broker) DropForm(form string) (closed int, err error) {
	if b.server == nil {
		return 0, nil
	}
	const page = 1024
	var cids []uint64
	for offset := 0; ; offset += page {
		list, err := b.server.Connz(&server.ConnzOptions{Username: true, Offset: offset, Limit: page})
		if err != nil {
			return 0, fmt.Errorf("list the connections: %w", err)
		}
		for _, c := range list.Conns {
			if c.AuthorizedUser == formUser+form {
				cids = append(cids, c.Cid)
			}
		}
		if len(list.Conns) < page {
			break
		}
	}
	for _, cid := range cids {
		if b.server.DisconnectClientByID(cid) == nil { // else it went by itself
			closed++
		}
	}
	return closed, nil
}

// Restore puts the keys of a backup where there are none, and says which forms have one now; nil: there are keys
// already, which stay as they are.
func (f FormKeys) Restore(data []byte) (forms []string, err error) {
	unlock, err := f.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	there, err := f.List()
	if err != nil || len(there) > 0 {
		return nil, err
	}
	var keys []FormKey
	if err := json.Unmarshal(data, &keys); err != nil {
		return nil, fmt.Errorf("read the keys of forms in the backup: %w", err)
	}
	for _, k := range keys {
		forms = append(forms, k.Form)
	}
	return forms, f.write(keys)
}
