package access

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lodestonehq/lodestone/internal/filelock"
	"github.com/lodestonehq/lodestone/internal/replacefile"
)

// FileName is the file of users and tokens in a data directory.
const FileName = "access.json"

// Right is what somebody may do over the network. Each includes those before it.
type Right int

// The rights. The zero value is none.
const (
	Nothing Right = iota
	Metrics       // read metrics
	Read          // look at everything that the console and the API show
	Operate       // tell the worker what to do
)

// User is a person who may sign in.
type User struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"` // one of [Roles]
	Hash    string    `json:"hash"` // of the password, argon2id
	Made    time.Time `json:"made"`
	Changed time.Time `json:"password_changed"`
	// Epoch is another one after each change of the password: sessions of an earlier one have ended.
	Epoch string `json:"epoch"`
}

// Token lets a program in.
type Token struct {
	Name    string    `json:"name"`
	Scope   string    `json:"scope"` // one of [Scopes]
	Hash    string    `json:"hash"`  // SHA-256 of the token, which is 256 random bits
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
	Used    time.Time `json:"used,omitzero"`    // last, to the hour; zero: never
}

// Roles of users and Scopes of tokens, by what they may do.
var (
	Roles  = map[string]Right{"viewer": Read, "operator": Operate}
	Scopes = map[string]Right{"metrics": Metrics, "read": Read, "operate": Operate}
)

// tokenHead begins each token, so that scanners for secrets know one when they see it.
const tokenHead = "lodestone_"

var (
	// ErrThere says that there is a user or a token of that name already.
	ErrThere = errors.New("there is one of that name already")
	// ErrNone says that there is none of that name.
	ErrNone = errors.New("there is none of that name")
)

// Book is the file of users and tokens of a data directory: hashes alone, mode 0600, replaced as a whole
// under a lock, so that commands change it whether a worker runs or not. A worker sees a change at the
// next request. A file that cannot be read lets nobody in. It is safe for concurrent use.
type Book struct {
	path string
	hash hasher

	mu   sync.Mutex // guards what follows
	seen fs.FileInfo
	held list
}

// list is what the file holds.
type list struct {
	Users  []User  `json:"users"`
	Tokens []Token `json:"tokens"`
}

// OpenBook returns the book of a data directory, which need not be there yet.
func OpenBook(dir string) *Book {
	return &Book{path: filepath.Join(dir, FileName), hash: argon}
}

// Path is where the file is.
func (b *Book) Path() string { return b.path }

// Users lists the users by name.
func (b *Book) Users() ([]User, error) {
	l, err := b.read()
	return l.Users, err
}

// Tokens lists the tokens by name.
func (b *Book) Tokens() ([]Token, error) {
	l, err := b.read()
	return l.Tokens, err
}

// Empty reports whether neither a user nor a token was ever made, or all of them were removed.
func (b *Book) Empty() (bool, error) {
	l, err := b.read()
	return len(l.Users)+len(l.Tokens) == 0, err
}

var name = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// CheckName says what keeps a text from being the name of a user or a token.
func CheckName(s string) error {
	if !name.MatchString(s) {
		return errors.New("a name has up to 63 small letters, digits, dots, - and _, and begins with a letter or a digit")
	}
	return nil
}

// AddUser makes a user. The error wraps [ErrThere].
func (b *Book) AddUser(name, role, password string, now time.Time) error {
	if err := errors.Join(CheckName(name), CheckPassword(name, password)); err != nil {
		return err
	}
	if Roles[role] == Nothing {
		return fmt.Errorf("%q is no role; a user is viewer or operator", role)
	}
	hash := b.hash.hashed(password)
	return b.change(func(l *list) error {
		if slices.ContainsFunc(l.Users, func(u User) bool { return u.Name == name }) {
			return fmt.Errorf("user %s: %w", name, ErrThere)
		}
		now = now.UTC().Truncate(time.Second)
		l.Users = append(l.Users, User{Name: name, Role: role, Hash: hash, Made: now, Changed: now, Epoch: rand.Text()})
		return nil
	})
}

// SetPassword changes a password and ends the user's sessions. The error wraps [ErrNone].
func (b *Book) SetPassword(name, password string, now time.Time) error {
	if err := CheckPassword(name, password); err != nil {
		return err
	}
	hash := b.hash.hashed(password)
	return b.changeUser(name, func(u *User) error {
		u.Hash, u.Changed, u.Epoch = hash, now.UTC().Truncate(time.Second), rand.Text()
		return nil
	})
}

// RemoveUser removes a user and ends their sessions. The error wraps [ErrNone].
func (b *Book) RemoveUser(name string) error {
	return b.change(func(l *list) error {
		left := slices.DeleteFunc(slices.Clone(l.Users), func(u User) bool { return u.Name == name })
		if len(left) == len(l.Users) {
			return fmt.Errorf("user %s: %w", name, ErrNone)
		}
		l.Users = left
		return nil
	})
}

// Check compares a password and returns its user. It costs the same whether there is a user of that
// name or not. A hash that cost less than one costs today is made anew.
func (b *Book) Check(name, password string) (User, bool, error) {
	l, err := b.read()
	if err != nil {
		return User{}, false, err
	}
	i := slices.IndexFunc(l.Users, func(u User) bool { return u.Name == name })
	if i < 0 {
		_, _, err := b.hash.verify(nobody, password)
		return User{}, false, err
	}
	u := l.Users[i]
	ok, old, err := b.hash.verify(u.Hash, password)
	if err != nil {
		return User{}, false, fmt.Errorf("%s: user %s: %w; set the password anew with `lodestone user passwd`", b.path, name, err)
	}
	if ok && old {
		hash := b.hash.hashed(password)
		// When it cannot be kept, the old hash still holds.
		_ = b.changeUser(name, func(now *User) error {
			if now.Hash == u.Hash {
				now.Hash = hash
			}
			return nil
		})
	}
	return u, ok, nil
}

// AddToken makes a token and returns it, which is the only time that it is shown. ErrThere is wrapped.
func (b *Book) AddToken(name, scope string, expires, now time.Time) (secret string, t Token, err error) {
	if err := CheckName(name); err != nil {
		return "", Token{}, err
	}
	if Scopes[scope] == Nothing {
		return "", Token{}, fmt.Errorf("%q is no scope; a token is for metrics, read or operate", scope)
	}
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	secret = tokenHead + base64.RawURLEncoding.EncodeToString(random)
	t = Token{Name: name, Scope: scope, Hash: tokenHash(secret), Made: now.UTC().Truncate(time.Second), Expires: expires.UTC().Truncate(time.Second)}
	return secret, t, b.change(func(l *list) error {
		if slices.ContainsFunc(l.Tokens, func(t Token) bool { return t.Name == name }) {
			return fmt.Errorf("token %s: %w", name, ErrThere)
		}
		l.Tokens = append(l.Tokens, t)
		return nil
	})
}

// RemoveToken ends a token. The error wraps [ErrNone].
func (b *Book) RemoveToken(name string) error {
	return b.change(func(l *list) error {
		left := slices.DeleteFunc(slices.Clone(l.Tokens), func(t Token) bool { return t.Name == name })
		if len(left) == len(l.Tokens) {
			return fmt.Errorf("token %s: %w", name, ErrNone)
		}
		l.Tokens = left
		return nil
	})
}

// usedEvery is how exactly the last use of a token is known: the file is not written at each request.
const usedEvery = time.Hour

// CheckToken returns the token that a secret is, unless there is none or it has expired.
func (b *Book) CheckToken(secret string, now time.Time) (Token, bool, error) {
	l, err := b.read()
	if err != nil {
		return Token{}, false, err
	}
	if !strings.HasPrefix(secret, tokenHead) || len(secret) != len(tokenHead)+base64.RawURLEncoding.EncodedLen(32) {
		return Token{}, false, nil
	}
	// The hash is looked for, not the token: how long that takes says nothing about one that would be good.
	hash := tokenHash(secret)
	i := slices.IndexFunc(l.Tokens, func(t Token) bool { return t.Hash == hash })
	if i < 0 || !l.Tokens[i].Expires.IsZero() && !now.Before(l.Tokens[i].Expires) {
		return Token{}, false, nil
	}
	t := l.Tokens[i]
	if now.Sub(t.Used) >= usedEvery {
		// That it cannot be written down lets nobody wait outside.
		_ = b.change(func(l *list) error {
			for i := range l.Tokens {
				if l.Tokens[i].Hash == hash {
					l.Tokens[i].Used = now.UTC().Truncate(time.Second)
				}
			}
			return nil
		})
	}
	return t, true, nil
}

func tokenHash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// read returns what the file holds, which is read again when it is another one than before.
func (b *Book) read() (list, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	info, err := os.Stat(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		b.seen, b.held = nil, list{}
		return list{}, nil
	}
	if err == nil && sameFile(info, b.seen) {
		return b.held, nil
	}
	if err == nil {
		var l list
		if l, err = load(b.path); err == nil {
			b.seen, b.held = info, l
			return l, nil
		}
	}
	return list{}, fmt.Errorf("users and tokens cannot be read, so nobody is let in: %w", err)
}

func load(path string) (l list, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return list{}, nil
	}
	if err == nil {
		l, err = parse(data)
	}
	if err != nil {
		return list{}, fmt.Errorf("%s: %w; restore it, or remove it and make the users anew", path, err)
	}
	return l, nil
}

func parse(data []byte) (l list, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields() // of a newer version: what it says of rights must not be left out
	if err := dec.Decode(&l); err != nil {
		return list{}, err
	}
	slices.SortFunc(l.Users, func(a, b User) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(l.Tokens, func(a, b Token) int { return strings.Compare(a.Name, b.Name) })
	return l, nil
}

// Restore puts the users and tokens of a backup where there are none, and says who can come in by it, as in "user
// ada"; nil: there are some already, which stay as they are, because what a backup holds may have been ended since.
// Nobody is signed in by it.
func (b *Book) Restore(data []byte, now time.Time) (who []string, err error) {
	kept, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("read the users and tokens of the backup: %w", err)
	}
	err = b.change(func(l *list) error {
		if len(l.Users)+len(l.Tokens) > 0 {
			return nil
		}
		*l = kept
		for i := range l.Users {
			l.Users[i].Epoch = rand.Text()
			who = append(who, "user "+l.Users[i].Name)
		}
		for _, t := range l.Tokens {
			if t.Expires.IsZero() || now.Before(t.Expires) {
				who = append(who, "token "+t.Name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return who, nil
}

func (b *Book) changeUser(name string, change func(*User) error) error {
	return b.change(func(l *list) error {
		i := slices.IndexFunc(l.Users, func(u User) bool { return u.Name == name })
		if i < 0 {
			return fmt.Errorf("user %s: %w", name, ErrNone)
		}
		return change(&l.Users[i])
	})
}

// change replaces the file by a changed one. Others who change it wait.
func (b *Book) change(change func(*list) error) error {
	unlock, err := filelock.Lock(b.path)
	if err != nil {
		return fmt.Errorf("change users and tokens: %w", err)
	}
	defer unlock()
	l, err := load(b.path)
	if err != nil {
		return fmt.Errorf("change users and tokens: %w", err)
	}
	if err := change(&l); err != nil {
		return err
	}
	if l.Users == nil {
		l.Users = []User{}
	}
	if l.Tokens == nil {
		l.Tokens = []Token{}
	}
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	if err := replacefile.Write(b.path, append(data, '\n')); err != nil {
		return fmt.Errorf("change users and tokens: %w", err)
	}
	return nil
}
