package access

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// work is what it costs to make a hash with argon2id (RFC 9106), and so to guess a password once.
type work struct {
	memory uint32 // KiB
	time   uint32 // passes
}

// today is what new hashes cost: more than the 19 MiB and two passes that OWASP's Password Storage Cheat
// Sheet asks for at least. A hash says what it cost, so that this may be raised; whoever then logs in
// gets a new one.
var today = work{memory: 32 << 10, time: 3}

const (
	saltBytes = 16
	hashBytes = 32
	// MinPassword is the least number of characters of a password.
	MinPassword = 10
	maxPassword = 1024 // bytes
)

// hasher makes the hashes; tests count what is made.
type hasher func(password, salt []byte, w work) []byte

func argon(password, salt []byte, w work) []byte {
	return argon2.IDKey(password, salt, w.time, w.memory, 1, hashBytes)
}

// hashed makes a new hash, in the form that other programs write and read as well:
// $argon2id$v=19$m=32768,t=3,p=1$SALT$HASH.
func (h hasher) hashed(password string) string {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, today.memory, today.time,
		enc.EncodeToString(salt), enc.EncodeToString(h(same(password), salt, today)))
}

// nobody is the hash of no password: whoever is not a user is compared with it, which takes as long.
var nobody = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, today.memory, today.time,
	base64.RawStdEncoding.EncodeToString(make([]byte, saltBytes)), base64.RawStdEncoding.EncodeToString(make([]byte, hashBytes)))

var errHash = errors.New("this is no hash of a password that can be read")

// verify compares a password with a hash. old reports whether the hash costs less than a new one.
func (h hasher) verify(hash, password string) (ok, old bool, err error) {
	var version int
	var w work
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return false, false, errHash
	}
	var threads int
	if n, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &version, &w.memory, &w.time, &threads); err != nil || n != 4 {
		return false, false, errHash
	}
	salt, saltErr := base64.RawStdEncoding.DecodeString(parts[4])
	want, wantErr := base64.RawStdEncoding.DecodeString(parts[5])
	// The bounds keep a damaged file from taking the machine down.
	if saltErr != nil || wantErr != nil || version != argon2.Version || threads != 1 || len(want) != hashBytes || w.memory > 1<<20 || w.time < 1 || w.time > 100 {
		return false, false, errHash
	}
	ok = subtle.ConstantTimeCompare(want, h(same(password), salt, w)) == 1
	return ok, w.memory < today.memory || w.time < today.time, nil
}

// same is a password in the one spelling that it is hashed in: keyboards differ in how they write é.
func same(password string) []byte { return norm.NFC.Bytes([]byte(password)) }

// CheckPassword says what keeps a text from being the password of a user.
func CheckPassword(user, password string) error {
	switch {
	case !utf8.ValidString(password):
		return errors.New("the password is not UTF-8")
	case len(password) > maxPassword:
		return fmt.Errorf("the password has more than %d bytes", maxPassword)
	case utf8.RuneCountInString(password) < MinPassword:
		return fmt.Errorf("the password has fewer than %d characters; a few words that only you put together are long and easy to remember", MinPassword)
	case strings.ContainsFunc(password, unicode.IsControl):
		return errors.New("the password has characters in it that cannot be typed")
	case common(user, password):
		return errors.New("this password is among those that are tried first; choose another one, for example a few words that only you put together")
	}
	return nil
}

// guesses are what the passwords that are tried first are made of.
var guesses = []string{
	"password", "passwort", "passwd", "pass", "motdepasse", "contrasena", "senha", "secret", "geheim", "qwerty", "qwertyuiop", "qwertz", "qwertzuiop",
	"azerty", "azertyuiop", "asdf", "asdfghjkl", "zxcvbnm", "qazwsx", "qweasd", "qweasdzxc", "letmein", "welcome", "willkommen", "admin", "administrator", "root", "user", "login", "test",
	"testing", "tester", "default", "changeme", "iloveyou", "princess", "sunshine", "monkey", "dragon", "football", "fussball", "baseball", "basketball", "superman", "batman", "starwars",
	"trustno", "whatever", "hello", "hallo", "master", "shadow", "michael", "jennifer", "jordan", "computer", "internet", "liverpool", "chelsea", "arsenal", "summer", "sommer", "winter",
	"spring", "autumn", "herbst", "january", "december", "monday", "friday", "abc", "abcd", "abcdef", "abcdefgh", "abcdefghij", "abcdefghijklmnop", "lodestone", "console", "operator", "viewer",
	"correcthorsebatterystaple",
}

var leet = strings.NewReplacer("@", "a", "4", "a", "3", "e", "1", "i", "!", "i", "0", "o", "$", "s", "5", "s", "7", "t")

// common reports whether a password is made of what is tried first: up to three of guesses or the user's own
// name, with digits and signs around them or in place of letters, one character over and over, or digits in
// their order.
func common(user, password string) bool {
	text := strings.ToLower(password)
	letters := func(s string) string {
		return strings.Map(func(r rune) rune {
			if unicode.IsLetter(r) {
				return r
			}
			return -1
		}, s)
	}
	words := append(slices.Clone(guesses), letters(strings.ToLower(user)))
	for _, core := range []string{
		letters(text),               // Password123!
		letters(leet.Replace(text)), // p4ssw0rd, with whatever stood around
		letters(leet.Replace(strings.TrimFunc(text, func(r rune) bool { return !unicode.IsLetter(r) }))),
	} {
		if core == "" {
			if core = text; few(core) || strings.Contains("01234567890123456789098765432109876543210", core) {
				return true
			}
			continue
		}
		if few(core) && few(text) || madeOf(core, words) {
			return true
		}
	}
	return false
}

// few reports whether a text has hardly any different characters.
func few(s string) bool {
	seen := map[rune]bool{}
	for _, r := range s {
		seen[r] = true
	}
	return len(seen) <= 3
}

// madeOf reports whether a text is one of the words, or a few of them one after another.
func madeOf(s string, words []string) bool {
	for range 3 {
		longest := 0
		for _, w := range words {
			if w != "" && strings.HasPrefix(s, w) {
				longest = max(longest, len(w))
			}
		}
		if longest == 0 {
			return false
		}
		if s = s[longest:]; s == "" {
			return true
		}
	}
	return false
}
