package broker

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/lodestonehq/lodestone/internal/chrometest"
)

// wsPage publishes one submission over WebSocket, as the README shows it, without any library: the
// protocol of NATS is text (https://docs.nats.io/reference/reference-protocols/nats-protocol).
const wsPage = `<!doctype html><meta charset="utf-8"><title>ready</title><script>
function submitOverNATS(url, form, password, fields) {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url), inbox = '_INBOX_' + form + '.1';
    const data = new TextEncoder().encode(JSON.stringify(fields));
    ws.binaryType = 'arraybuffer';
    ws.onopen = () => ws.send('CONNECT ' + JSON.stringify({user: 'form-' + form, pass: password, verbose: false, pedantic: false}) +
      '\r\nSUB ' + inbox + ' 1\r\nPUB lodestone.forms.' + form + ' ' + inbox + ' ' + data.length + '\r\n' + new TextDecoder().decode(data) + '\r\n');
    let heard = '';
    ws.onmessage = e => {
      heard += typeof e.data === 'string' ? e.data : new TextDecoder().decode(e.data);
      if (heard.includes('-ERR')) reject(heard);
      const ack = heard.match(/\{"stream".*?\}/); // it is on disk
      if (ack) { resolve(JSON.parse(ack[0])); ws.close(); }
    };
    ws.onclose = () => reject('closed');
  });
}
</script>`

func TestBrowserPublishesWithAFormKey(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, wsPage)
	}))
	defer page.Close()
	b, keys, ws := openGuarded(t, page.URL)
	_, password, err := keys.Make("guide", false)
	if err != nil {
		t.Fatal(err)
	}
	p := chrometest.Start(t).Page(true)
	p.Open(page.URL)
	call := func(password string) any {
		return p.Eval(fmt.Sprintf(`submitOverNATS("ws://%s", "guide", %q, {email: "söhne@example.com"}).then(a => a.stream, String)`, ws, password))
	}
	if got := call(password); got != FormsStream {
		t.Errorf("with the key: %v, want an acknowledgement of %s", got, FormsStream)
	}
	if got := call("wrong"); got == FormsStream {
		t.Error("without the key it was taken")
	}
	if _, first, last, err := b.StreamIdentity(t.Context(), FormsStream); err != nil || last-first+1 != 1 {
		t.Errorf("the stream holds %d to %d, %v, want 1", first, last, err)
	}
}
