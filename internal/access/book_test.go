package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/text/unicode/norm"
)

const passphrase = "seven blue herons at dawn"

// counted is a book whose hashes cost hardly anything and are counted by what they would cost.
func counted(t testing.TB) (*Book, *[]work) {
	b, made := OpenBook(t.TempDir()), new([]work)
	var mu sync.Mutex
	b.hash = func(password, salt []byte, w work) []byte {
		mu.Lock()
		*made = append(*made, w)
		mu.Unlock()
		return argon(password, salt, work{memory: 8, time: 1})
	}
	return b, made
}

func TestUsers(t *testing.T) {
	b := OpenBook(t.TempDir())
	now := time.Now()
	if alone, err := b.Empty(); !alone || err != nil {
		t.Fatalf("without a file: %v, %v", alone, err)
	}
	for _, u := range []struct{ name, role string }{{"ada", "operator"}, {"grace", "viewer"}} {
		if err := b.AddUser(u.name, u.role, passphrase, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.AddUser("ada", "viewer", passphrase, now); !errors.Is(err, ErrThere) {
		t.Errorf("twice: %v", err)
	}
	other := OpenBook(strings.TrimSuffix(b.Path(), "/"+FileName)) // another process
	u, ok, err := other.Check("ada", passphrase)
	if !ok || err != nil || u.Role != "operator" {
		t.Fatalf("the right password: %+v, %v, %v", u, ok, err)
	}
	for name, password := range map[string]string{"ada": passphrase + " ", "grace": "", "nobody": passphrase, "": "", "Ada": passphrase} {
		if _, ok, err := other.Check(name, password); ok || err != nil {
			t.Errorf("%q with %q: %v, %v", name, password, ok, err)
		}
	}
	if err := b.SetPassword("ada", "eight grey geese at noon", now); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := other.Check("ada", passphrase); ok {
		t.Error("the old password is good still")
	}
	after, ok, _ := other.Check("ada", "eight grey geese at noon")
	if !ok || after.Epoch == u.Epoch {
		t.Errorf("the new password: %v, epoch %s after %s", ok, after.Epoch, u.Epoch)
	}
	if err := errors.Join(b.RemoveUser("ada"), b.RemoveUser("grace")); err != nil {
		t.Fatal(err)
	}
	if err := b.RemoveUser("ada"); !errors.Is(err, ErrNone) {
		t.Errorf("removed twice: %v", err)
	}
	if alone, err := other.Empty(); !alone || err != nil {
		t.Errorf("after the last: %v, %v", alone, err)
	}
	info, err := os.Stat(b.Path())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	data, _ := os.ReadFile(b.Path())
	if strings.Contains(string(data), "heron") || strings.Contains(string(data), "geese") {
		t.Errorf("a password is on the disk: %s", data)
	}
}

// TestUnknownUsersCostAsMuch: by the work that is done nobody can tell whether there is a user of a name.
func TestUnknownUsersCostAsMuch(t *testing.T) {
	b, made := counted(t)
	if err := b.AddUser("ada", "operator", passphrase, time.Now()); err != nil {
		t.Fatal(err)
	}
	cost := func(name, password string) string {
		*made = nil
		if _, ok, err := b.Check(name, password); ok || err != nil {
			t.Fatalf("%s: %v, %v", name, ok, err)
		}
		return fmt.Sprint(*made)
	}
	want := cost("ada", "wrong")
	if want != fmt.Sprint([]work{today}) {
		t.Errorf("a wrong password costs %s, want one hash of %v", want, today)
	}
	for _, name := range []string{"nobody", "", "../../etc", strings.Repeat("x", 64)} {
		if got := cost(name, "wrong"); got != want {
			t.Errorf("%q costs %s, and a user %s", name, got, want)
		}
	}
}

// TestHashesAreRaised: who signs in with a hash that cost less gets one of today's, and it still holds.
func TestHashesAreRaised(t *testing.T) {
	b := OpenBook(t.TempDir())
	if err := b.AddUser("ada", "operator", passphrase, time.Now()); err != nil {
		t.Fatal(err)
	}
	weak := strings.Replace(hasher(func(p, s []byte, _ work) []byte { return argon(p, s, work{memory: 64, time: 1}) }).hashed(passphrase), "m=32768,t=3", "m=64,t=1", 1)
	if err := b.changeUser("ada", func(u *User) error { u.Hash = weak; return nil }); err != nil {
		t.Fatal(err)
	}
	before, ok, err := b.Check("ada", passphrase)
	if !ok || err != nil {
		t.Fatalf("the weak one: %v, %v", ok, err)
	}
	users, _ := b.Users()
	if !strings.Contains(users[0].Hash, fmt.Sprintf("$m=%d,t=%d,p=1$", today.memory, today.time)) || users[0].Epoch != before.Epoch {
		t.Errorf("afterwards %+v", users[0])
	}
	if _, ok, err := b.Check("ada", passphrase); !ok || err != nil {
		t.Errorf("the raised one: %v, %v", ok, err)
	}
	for _, hash := range []string{"", "x", "$argon2id$v=19$m=99999999,t=3,p=1$AA$AA", "$argon2i$v=19$m=64,t=1,p=1$AAAA$AAAA", strings.Replace(weak, "p=1", "p=9", 1), "$$$$$", weak + "$"} {
		if ok, _, err := b.hash.verify(hash, passphrase); ok || err == nil {
			t.Errorf("%q: %v, %v", hash, ok, err)
		}
	}
}

func TestPasswords(t *testing.T) {
	good := []string{passphrase, "ooLei7uosh", "Xk9#mfQ2pLw", "für immer grün", "correct mule battery stable", "test driving my red saab"}
	for _, p := range good {
		if err := CheckPassword("ada", p); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	bad := []string{"", "short", "ninechars", "Password123!", "p4$$w0rd123", "passwordpassword", "qwertyuiop", "1234567890", "0987654321", "aaaaaaaaaaaa", "abababababab",
		"AdaAdaAda1!", "ada-1234567", "Welcome2026!", "LetMeIn!!!!", "lodestone2026", "changeme!!", "!!!!!!!!!!!", "admin_admin_", "Summer2026!!", "correcthorsebatterystaple",
		"with\nbreak in it", strings.Repeat("x y", 400), "bad\xff utf8 here"}
	for _, p := range bad {
		if CheckPassword("ada", p) == nil {
			t.Errorf("%q is taken", p)
		}
	}
	b := OpenBook(t.TempDir())
	if err := b.AddUser("ada", "operator", norm.NFC.String("für immer grün"), time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := b.Check("ada", norm.NFD.String("für immer grün")); !ok || err != nil {
		t.Errorf("typed on another keyboard: %v, %v", ok, err)
	}
	for _, name := range []string{"", "Ada", "ada@example.com", "a b", "-a", ".a", "a/b", strings.Repeat("a", 64), "a\n"} {
		if CheckName(name) == nil {
			t.Errorf("%q can be a name", name)
		}
	}
}

func TestTokens(t *testing.T) {
	b, _ := counted(t)
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	secret, made, err := b.AddToken("grafana", "metrics", now.AddDate(0, 0, 1), now)
	if err != nil || !strings.HasPrefix(secret, "lodestone_") || len(secret) < 50 {
		t.Fatalf("%s, %+v, %v", secret, made, err)
	}
	if _, _, err := b.AddToken("grafana", "read", time.Time{}, now); !errors.Is(err, ErrThere) {
		t.Errorf("twice: %v", err)
	}
	if _, _, err := b.AddToken("x", "root", time.Time{}, now); err == nil {
		t.Error("there is a scope root")
	}
	used := func() time.Time {
		list, err := b.Tokens()
		if err != nil {
			t.Fatal(err)
		}
		return list[0].Used
	}
	for _, at := range []struct {
		after time.Duration
		ok    bool
		used  time.Duration
	}{{time.Minute, true, time.Minute}, {2 * time.Minute, true, time.Minute}, {2 * time.Hour, true, 2 * time.Hour}, {24*time.Hour - 1, true, 24*time.Hour - time.Second}, {24 * time.Hour, false, 24*time.Hour - time.Second}} {
		got, ok, err := b.CheckToken(secret, now.Add(at.after))
		if ok != at.ok || err != nil || ok && got.Name != "grafana" {
			t.Errorf("after %v: %+v, %v, %v", at.after, got, ok, err)
		}
		if u := used(); !u.Equal(now.Add(at.used)) {
			t.Errorf("after %v it was last used at %v, want %v", at.after, u, at.used)
		}
	}
	for _, bad := range []string{"", "lodestone_", secret[:len(secret)-1], secret + "A", strings.ToUpper(secret), strings.Replace(secret, "lodestone_", "lodestone-", 1), made.Hash} {
		if _, ok, err := b.CheckToken(bad, now); ok || err != nil {
			t.Errorf("%q: %v, %v", bad, ok, err)
		}
	}
	data, _ := os.ReadFile(b.Path())
	if strings.Contains(string(data), strings.TrimPrefix(secret, "lodestone_")) {
		t.Error("the token itself is on the disk")
	}
	if err := b.RemoveToken("grafana"); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := b.CheckToken(secret, now); ok {
		t.Error("a removed token is good still")
	}
}

// TestDamagedBookLetsNobodyIn: a file that cannot be read is no empty one.
func TestDamagedBookLetsNobodyIn(t *testing.T) {
	b, _ := counted(t)
	if err := b.AddUser("ada", "operator", passphrase, time.Now()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(b.Path())
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"empty": "", "cut": string(good[:len(good)/2]), "newer": strings.Replace(string(good), `"users"`, `"second_factor_required": true, "users"`, 1), "no JSON": "users: none"} {
		if err := os.WriteFile(b.Path(), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if alone, err := b.Empty(); err == nil || alone && err == nil {
			t.Errorf("%s: %v, %v", name, alone, err)
		}
		if _, ok, err := b.Check("ada", passphrase); ok || err == nil {
			t.Errorf("%s lets ada in: %v, %v", name, ok, err)
		}
		if err := b.AddUser("eve", "operator", passphrase, time.Now()); err == nil {
			t.Errorf("%s is written over", name)
		}
	}
}

// TestManyChangeTheBook: changes of several processes at once are all kept, and whoever reads meanwhile never finds half of one.
func TestManyChangeTheBook(t *testing.T) {
	b, _ := counted(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			other := OpenBook(strings.TrimSuffix(b.Path(), "/"+FileName))
			if _, _, err := other.AddToken(fmt.Sprintf("t%d", i), "read", time.Time{}, time.Now()); err != nil {
				t.Error(err)
			}
			if _, err := b.Tokens(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := b.Tokens(); err != nil || len(list) != 20 {
		t.Errorf("%d tokens, %v", len(list), err)
	}
}

// FuzzBook: no file makes reading it panic, and what it lets in is what it names.
func FuzzBook(f *testing.F) {
	f.Add([]byte(`{"users":[{"name":"ada","role":"operator","hash":"x","epoch":"e"}],"tokens":[]}`))
	f.Add([]byte(`{"tokens":[{"name":"t","scope":"operate","hash":""}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, _ := counted(t)
		if err := os.WriteFile(b.Path(), data, 0o600); err != nil {
			t.Fatal(err)
		}
		users, err := b.Users()
		if err != nil && len(users) > 0 {
			t.Error("users beside an error")
		}
		if _, ok, _ := b.Check("ada", "no such password"); ok {
			t.Error("ada is let in")
		}
		if tok, ok, _ := b.CheckToken("lodestone_"+strings.Repeat("A", 43), time.Now()); ok {
			t.Errorf("a token is let in: %+v", tok)
		}
		_, _ = json.Marshal(users)
	})
}

// A restore lets in whom the backup lets in, where nobody was set up, and never brings back what was ended.
func TestRestore(t *testing.T) {
	now := time.Now()
	from, _ := counted(t)
	if err := from.AddUser("ada", "operator", passphrase, now); err != nil {
		t.Fatal(err)
	}
	secret, _, err := from.AddToken("watch", "metrics", time.Time{}, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := from.AddToken("old", "read", now.Add(time.Hour), now); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(from.Path())
	if err != nil {
		t.Fatal(err)
	}
	before, _, err := from.Check("ada", passphrase)
	if err != nil {
		t.Fatal(err)
	}

	to, _ := counted(t)
	who, err := to.Restore(data, now.Add(2*time.Hour))
	if err != nil || !slices.Equal(who, []string{"user ada", "token watch"}) {
		t.Fatalf("Restore = %q, %v; want the user and the token that has not expired", who, err)
	}
	u, ok, err := to.Check("ada", passphrase)
	if err != nil || !ok || u.Epoch == before.Epoch {
		t.Errorf("ada is let in: %t, %v, in the epoch %q; want that she is, in another than %q", ok, err, u.Epoch, before.Epoch)
	}
	if _, ok, err := to.CheckToken(secret, now.Add(2*time.Hour)); err != nil || !ok {
		t.Errorf("the token lets in: %t, %v", ok, err)
	}
	if info, err := os.Stat(to.Path()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v; want 0600", info.Mode(), err)
	}

	if err := to.RemoveUser("ada"); err != nil {
		t.Fatal(err)
	}
	if who, err := to.Restore(data, now); err != nil || who != nil {
		t.Errorf("where a token is left Restore = %q, %v; want nobody", who, err)
	}
	if _, err := to.Restore([]byte(`{"users": [], "tokens": [], "groups": []}`), now); err == nil {
		t.Error("a file of a newer version was taken without what it says of rights")
	}
}
