package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// openGuarded opens a server whose clients must name a user, over TCP and at ws over WebSocket for the
// given origins.
func openGuarded(t *testing.T, origins ...string) (b *Broker, keys FormKeys, ws string) {
	t.Helper()
	dir := t.TempDir()
	credentials := filepath.Join(dir, "credentials")
	if err := os.WriteFile(credentials, []byte("operator:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ws = free.Addr().String()
	free.Close()
	keys = FormKeys{filepath.Join(dir, FormKeysName)}
	b, err = Open(t.Context(), Options{
		Dir: filepath.Join(dir, "js"), Listen: "127.0.0.1:0", Websocket: ws, Origins: origins, Credentials: credentials, FormKeys: keys.Path,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b, keys, ws
}

// TestFormKeys: whoever has the key of a form publishes that form, over TCP and over WebSocket, and
// can do nothing else.
func TestFormKeys(t *testing.T) {
	b, keys, ws := openGuarded(t)
	key, password, err := keys.Make("guide", false) // while the server runs
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(keys.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of keys: %v, %v", info.Mode(), err)
	}
	if _, _, err := keys.Make("guide", false); !errors.Is(err, ErrKeyThere) {
		t.Errorf("a second key: %v", err)
	}
	for _, url := range []string{b.URL(), "ws://" + ws} {
		for name, user := range map[string][2]string{
			"nobody": {}, "a wrong password": {key.User(), "x"}, "another form": {"form-shop", password}, "no form": {"form-", password},
			"ourselves": {insideUser, ""}, "a hash": {key.User(), key.Hash},
		} {
			if nc, err := nats.Connect(url, nats.UserInfo(user[0], user[1]), nats.MaxReconnects(0)); err == nil {
				nc.Close()
				t.Errorf("%s: %s was let in", url, name)
			}
		}
		refused := make(chan error, 10)
		nc, err := nats.Connect(url, nats.UserInfo(key.User(), password), nats.CustomInboxPrefix(key.InboxPrefix()), nats.NoReconnect(),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		if ack, err := js.Publish(t.Context(), "lodestone.forms.guide", []byte(`{"email":"ada@example.com"}`)); err != nil || ack.Stream != FormsStream {
			t.Errorf("%s: publishing the form: %+v, %v", url, ack, err)
		}
		for _, subject := range []string{"lodestone.forms.shop", "lodestone.signals.unsubscribed", "$JS.API.STREAM.INFO.LODESTONE_FORMS", "$JS.API.STREAM.PURGE.LODESTONE_FORMS", "_INBOX.x"} {
			if err := nc.Publish(subject, nil); err != nil {
				t.Fatal(err)
			}
			denied(t, refused, url+" publishing on "+subject)
		}
		for _, subject := range []string{">", "lodestone.forms.guide", "lodestone.forms.*", "_INBOX.>", "_INBOX_shop.>", "$SYS.>"} {
			if _, err := nc.SubscribeSync(subject); err != nil {
				t.Fatal(err)
			}
			denied(t, refused, url+" listening to "+subject)
		}
	}
	nc, err := nats.Connect(b.URL(), nats.UserInfo("operator", "secret"))
	if err != nil {
		t.Fatalf("the operator: %v", err)
	}
	nc.Close()
	_, first, last, err := b.StreamIdentity(t.Context(), FormsStream)
	if err != nil || last-first+1 != 2 {
		t.Errorf("the stream holds %d to %d, %v, want 2", first, last, err)
	}
	ended := make(chan struct{})
	stands, err := nats.Connect(b.URL(), nats.UserInfo(key.User(), password), nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(ended) }))
	if err != nil {
		t.Fatal(err)
	}
	defer stands.Close()
	if err := keys.Remove("guide"); err != nil {
		t.Fatal(err)
	}
	if closed, err := b.DropForm("guide"); err != nil || closed != 3 { // with those of the loop above
		t.Errorf("DropForm closed %d, %v, want 3", closed, err)
	}
	<-ended // the server's word is on its way
	if nc, err := nats.Connect(b.URL(), nats.UserInfo(key.User(), password), nats.MaxReconnects(0)); err == nil {
		nc.Close()
		t.Error("a key that has ended was let in")
	}
	if err := keys.Remove("guide"); !errors.Is(err, ErrNoKey) {
		t.Errorf("ending it again: %v", err)
	}
}

func denied(t *testing.T, refused <-chan error, what string) {
	t.Helper()
	select {
	case err := <-refused:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("%s was not refused", what)
	}
}

// TestFormKeysChangedAtOnce: of two who make keys at the same moment, neither loses what the other made.
func TestFormKeysChangedAtOnce(t *testing.T) {
	keys := FormKeys{filepath.Join(t.TempDir(), FormKeysName)}
	if _, _, err := keys.Make("old", false); err != nil {
		t.Fatal(err)
	}
	const forms = 20
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range forms {
		wg.Go(func() {
			<-begin
			if _, _, err := keys.Make(fmt.Sprintf("form-%02d", i), false); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		<-begin
		if err := keys.Remove("old"); err != nil {
			t.Error(err)
		}
	})
	close(begin)
	wg.Wait()
	list, err := keys.List()
	if err != nil || len(list) != forms {
		t.Errorf("%d keys after %d were made and the one before them was removed, all at once (%v)", len(list), forms, err)
	}
	for _, k := range list {
		if k.Form == "old" {
			t.Error("a key that was removed is there again")
		}
	}
}

func TestWebsocketNeedsCredentials(t *testing.T) {
	b, err := Open(t.Context(), Options{Dir: t.TempDir(), Websocket: "127.0.0.1:0"})
	if err == nil {
		b.Close()
	}
	if !errors.Is(err, ErrListen) {
		t.Errorf("Open = %v, want a refusal", err)
	}
}
