package gateway_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralfactory"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/saasquatch"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

const (
	hookKey   = "a-signing-key-of-the-provider"
	eventKey  = "the-key-of-one-webhook-alone"
	hookToken = "long_random-token-0123456789"
	person    = "tomas.blei@example.com"
)

// site is a gateway behind a real server in front of a real broker.
type site struct {
	t        *testing.T
	url      string
	broker   *broker.Broker
	registry *prometheus.Registry
	logs     *syncBuffer
	keys     *keyServer
}

// syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// keyServer publishes a JWK set and counts who asks for it.
type keyServer struct {
	*httptest.Server
	away    atomic.Bool
	fetches atomic.Int64
}

var rsaKey = func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
}()

func newKeyServer(t *testing.T) *keyServer {
	t.Helper()
	body, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: rsaKey.Public(), KeyID: "k1", Use: "sig", Algorithm: "RS256"}}})
	if err != nil {
		t.Fatal(err)
	}
	k := &keyServer{}
	k.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.fetches.Add(1)
		if k.away.Load() || r.URL.Path != "/.well-known/jwks.json" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(k.Close)
	return k
}

// newSite serves four accounts: rock (signed), squatch (signed by published keys), factory (a token),
// and bare, which has nothing to verify with.
func newSite(t *testing.T, change ...func(*gateway.HookOptions)) *site {
	t.Helper()
	b, err := broker.Open(t.Context(), broker.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, broker: b, registry: prometheus.NewRegistry(), logs: &syncBuffer{}, keys: newKeyServer(t)}
	o := gateway.HookOptions{
		Publisher: b, Registerer: s.registry,
		Log: slog.New(slog.NewTextHandler(s.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Accounts: []gateway.HookAccount{
			{Settings: connectors.Settings{Name: "rock"}, Hook: referralrock.Hook(), Secrets: map[string]connectors.Secret{
				referralrock.WebhookKey: hookKey, referralrock.WebhookKeys: "ReferralStatusChange=" + eventKey,
			}},
			{Settings: connectors.Settings{Name: "squatch", BaseURL: s.keys.URL + "/api/v1", Extra: map[string]string{saasquatch.Tenant: "test_abc123"}}, Hook: saasquatch.Hook()},
			{Settings: connectors.Settings{Name: "factory"}, Hook: referralfactory.Hook(), Secrets: map[string]connectors.Secret{referralfactory.WebhookToken: hookToken}},
			{Settings: connectors.Settings{Name: "bare"}, Hook: referralrock.Hook()},
		},
	}
	for _, f := range change {
		f(&o)
	}
	mux := http.NewServeMux()
	mux.Handle(gateway.HooksPath, gateway.Hooks(o))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// patient sends a body that waits to be asked for (Expect) not before it is: one that is refused without
// being read would break the connection before the answer was seen, now and then.
var patient = &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute}}

// post sends a webhook; headers come in pairs.
func (s *site) post(path, body string, header ...string) answer {
	s.t.Helper()
	return s.send(http.MethodPost, path, strings.NewReader(body), header...)
}

func (s *site) send(method, path string, body io.Reader, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Content-Type" {
			req.Header.Del(header[i])
		}
		req.Header.Add(header[i], header[i+1])
	}
	client := http.DefaultClient
	if req.Header.Get("Expect") != "" {
		client = patient
	}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// count is how often a result of webhooks was counted.
func (s *site) count(connector, result string) int {
	s.t.Helper()
	return s.counter("lodestone_hooks_total", "connector", connector, result)
}

// counter is the value of a counter with a label and a result; 0 when there is none.
func (s *site) counter(metric, label, value, result string) int {
	s.t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			l := map[string]string{}
			for _, p := range m.GetLabel() {
				l[p.GetName()] = p.GetValue()
			}
			if f.GetName() == metric && l[label] == value && l["result"] == result {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}

// stored reads every signal in the stream, as the sequencer does.
func (s *site) stored() (signals []lodestone.Signal, rejected []lodestone.Rejection) {
	s.t.Helper()
	stream, err := s.broker.JetStream().Stream(s.t.Context(), broker.SignalsStream)
	if err != nil {
		s.t.Fatal(err)
	}
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		m, err := stream.GetMsg(s.t.Context(), seq)
		if err != nil {
			s.t.Fatal(err)
		}
		sig, no := event.DecodeSignal(event.Message{Subject: m.Subject, Header: m.Header, Data: m.Data, Seq: m.Sequence, Time: m.Time})
		if no != nil {
			rejected = append(rejected, *no)
			continue
		}
		signals = append(signals, sig)
	}
	return signals, rejected
}

func rockSignature(key, body string) string {
	mac := hmac.New(sha512.New, []byte(key))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

// rock posts a body signed as ReferralRock does.
func (s *site) rock(event, body string) answer {
	s.t.Helper()
	return s.post(rockPath(event), body, "RR-Signature", rockSignature(hookKey, body))
}

// rockPath is the address of an event under the key that holds for all of them.
func rockPath(event string) string {
	return "/hooks/rock/" + event + "/" + referralrock.EventToken(hookKey, event)
}

func squatchSignature(t testing.TB, key *rsa.PrivateKey, kid, body string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signer.Sign([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := sig.DetachedCompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// squatch posts a body signed as SaaSquatch does.
func (s *site) squatch(body string) answer {
	s.t.Helper()
	return s.post("/hooks/squatch", body, "X-Hook-JWS-RFC-7797", squatchSignature(s.t, rsaKey, "k1", body))
}

// secrecy: no answer and no log line holds an address or a secret.
func (s *site) secrecy(answers ...answer) {
	s.t.Helper()
	texts := []string{s.logs.String()}
	for _, a := range answers {
		texts = append(texts, a.body, fmt.Sprint(a.header))
	}
	for _, text := range texts {
		for _, secret := range []string{hookKey, eventKey, hookToken, person, "@"} {
			if strings.Contains(text, secret) {
				s.t.Errorf("%q is in %q", secret, text)
			}
		}
	}
}
