package referralrock

import (
	"bytes"
	"net/http"
	"net/http/httputil"
	"testing"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/lenient"
	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

// The requests that are made for each touchpoint are those of the generated builders, byte for byte.
func TestRequestsAreTheGenerated(t *testing.T) {
	var c *connector
	kind := Kind()
	kind.Open = func(s connectors.Settings, t *connectors.Transport) (connectors.Connector, error) {
		opened, err := open(s, t)
		c, _ = opened.(*connector)
		return opened, err
	}
	if _, err := connectors.Open(kind, connectors.Settings{BaseURL: "https://api.example.com/sub", Secrets: map[string]connectors.Secret{PublicKey: "public", PrivateKey: "private"}}); err != nil {
		t.Fatal(err)
	}
	same := func(t *testing.T, got *http.Request, gotErr error, want *http.Request, wantErr error) {
		t.Helper()
		if gotErr != nil || wantErr != nil {
			if gotErr == nil || wantErr == nil || gotErr.Error() != wantErr.Error() {
				t.Errorf("the error is %v, want %v", gotErr, wantErr)
			}
			return
		}
		want.Header.Set("User-Agent", connectors.UserAgent)
		g, err := httputil.DumpRequestOut(got, true)
		if err != nil {
			t.Fatal(err)
		}
		w, err := httputil.DumpRequestOut(want, true)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(g, w) {
			t.Errorf("the request is\n%s\nwant\n%s", g, w)
		}
	}
	for _, email := range []string{"ada@example.com", "a+b@example.com", "o'neil@example.com", "a&b=c@example.com", "a%40b@example.com", "ä@example.com", "a b,c;d~*@example.com", `"a#?/"@example.com`} {
		got, gotErr := c.checkRequest(lodestone.Email(email))
		want, wantErr := c.sign(api.NewGetEmailUnsubscribedRequest(c.server, &api.GetEmailUnsubscribedParams{Email: &email}))
		same(t, got, gotErr, want, wantErr)
	}
	for _, body := range []map[string]any{
		{"email": "ada@example.com", "firstName": "Ada"},
		{"email": "ada@example.com", "firstName": "A<b>\xff\u2028", "lastName": "", "contactType": "x"},
		{},
		{"firstName": 7.0},
		{"firstName": "Ada", "other": "x"},
	} {
		got, gotErr := c.inviteRequest(body)
		entry, wantErr := lenient.Into[api.InviteFeedEntry](body)
		var want *http.Request
		if wantErr == nil {
			want, wantErr = c.sign(api.NewCreateInviteFeedEntryRequest(c.server, entry))
		}
		same(t, got, gotErr, want, wantErr)
	}
}
