package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

var update = flag.Bool("update", false, "rewrite the golden file of faults")

var kinds = map[string][]Key{
	"referralrock": {{Name: "public_key", Secret: true, Required: true}, {Name: "private_key", Secret: true, Required: true}},
	"23blocks":     {{Name: "token", Secret: true, Required: true}, {Name: "app_id", Required: true}, {Name: "form"}},
	"saasquatch":   {{Name: "tenant", Required: true}, {Name: "api_key", Secret: true, Required: true}},
}

// load reads a configuration file with this text, or none when it is empty.
func load(t testing.TB, text string, env []string, flags map[string]string) (*Config, error) {
	t.Helper()
	dir := t.TempDir()
	if text != "" {
		write(t, filepath.Join(dir, FileName), text)
	}
	c, err := Load(LoadOptions{Dir: dir, Env: env, Flags: flags, Kinds: kinds})
	if c != nil { // the folder's name is another one each time
		for _, p := range []*string{&c.File, &c.Data, &c.Rules, &c.NATS.Credentials, &c.NATS.SystemCredentials, &c.HTTP.FormSecrets, &c.HTTP.TLSCert, &c.HTTP.TLSKey} {
			if rel, ok := strings.CutPrefix(*p, dir+"/"); ok {
				*p = rel
			}
		}
	}
	return c, err
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func defaults() Config {
	return Config{
		Data: "data", Rules: "rules",
		NATS: NATS{Listen: "127.0.0.1:4222", Websocket: "none", Replicas: 1},
		HTTP: HTTP{Listen: "127.0.0.1:8080", Origins: []string{"*"}, Forwarded: "x-forwarded"},
		Log:  Log{Format: "text"}, Retention: kept,
	}
}

const day = 24 * time.Hour

var kept = Retention{Journal: 400 * day, Leads: 1100 * day, Attention: 400 * day, Submissions: 90 * day, Events: 7 * day}

func TestDefaults(t *testing.T) {
	for name, text := range map[string]string{"no file": "", "an empty file": "# nothing\n", "empty keys": "data:\nnats: {url: , listen: ~}\nconnectors:\n"} {
		c, err := load(t, text, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := defaults()
		if text != "" {
			want.File = FileName
		}
		if !reflect.DeepEqual(*c, want) {
			t.Errorf("%s:\n%+v, want\n%+v", name, *c, want)
		}
	}
}

func TestEveryKey(t *testing.T) {
	text := `
data: /srv/data
rules: my rules
nats:
  url: nats://a:4222, nats://b:4222
  listen: none
  credentials: {file: nats.creds}
  monitor: [http://a:8222, "http://b:8222"]
  system_credentials: {file: /etc/sys.creds}
  accept_unsynced: true
  max_store: 1.5GiB
  max_bytes: 1048576
  replicas: 3
http:
  listen: "[::1]:9000"
  origins: [https://example.com, "http://localhost:3000"]
  tls: {cert: /etc/cert.pem, key: /etc/key.pem}
  trusted_proxies: [10.0.0.7, fd00::/8]
  forwarded: forwarded
  accept_plain: true
log: {level: warn, format: json}
connectors:
  referralrock:
    base_url: https://api.referralrock.com
    public_key: {env: RR_PUBLIC}
    private_key: {file: keys/rr}
    rate: 600/m
    concurrency: 4
    timeout: 1m30s
    attempts: 3
    settle: 2h
    suppression: local-only
    on_unknown: hold
    insecure: true
  second-rock: {kind: referralrock, rate: 0.5/s}
  23blocks:
    app_id: 12345
    form: {env: BLOCKS_FORM}
    token: {env: BLOCKS_TOKEN}
`
	c, err := load(t, text, []string{"RR_PUBLIC=public", "BLOCKS_FORM=landing"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		File: FileName, Data: "/srv/data", Rules: "my rules",
		NATS: NATS{URL: "nats://a:4222, nats://b:4222", Listen: "none", Websocket: "none", Credentials: "nats.creds", Monitor: []string{"http://a:8222", "http://b:8222"},
			SystemCredentials: "/etc/sys.creds", AcceptUnsynced: true, MaxStore: 3 << 29, MaxBytes: 1 << 20, Replicas: 3},
		HTTP: HTTP{Listen: "[::1]:9000", Origins: []string{"https://example.com", "http://localhost:3000"}, TLSCert: "/etc/cert.pem", TLSKey: "/etc/key.pem",
			TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.7/32"), netip.MustParsePrefix("fd00::/8")}, Forwarded: "forwarded", AcceptPlain: true},
		Log: Log{Level: slog.LevelWarn, Format: "json"}, Retention: kept,
		Connectors: []Connector{
			{Name: "23blocks", Kind: "23blocks", Settings: map[string]string{"app_id": "12345", "form": "landing"}},
			{Name: "referralrock", Kind: "referralrock", BaseURL: "https://api.referralrock.com", Rate: 10, Concurrency: 4, Timeout: 90 * time.Second,
				Attempts: 3, Settle: 2 * time.Hour, Suppression: "local-only", OnUnknown: "hold", Insecure: true, Settings: map[string]string{}},
			{Name: "second-rock", Kind: "referralrock", Rate: 0.5, Settings: map[string]string{}},
		},
	}
	secrets := []int{1, 2, 0}
	for i := range c.Connectors {
		if n := len(c.Connectors[i].Secrets); n != secrets[i] {
			t.Errorf("%s has %d secrets, want %d", c.Connectors[i].Name, n, secrets[i])
		}
		c.Connectors[i].Secrets, c.Connectors[i].required = nil, nil
	}
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("got\n%+v, want\n%+v", *c, want)
	}
}

// TestEveryVariable: each key that the file knows has a variable that means the same.
func TestEveryVariable(t *testing.T) {
	values := map[string]string{
		"data": "d", "rules": "r", "nats.url": "nats://u:p@h:1", "nats.listen": "127.0.0.1:1", "nats.websocket": "127.0.0.1:3", "nats.credentials": "c", "nats.monitor": "http://a:1,http://b:1",
		"nats.system_credentials": "s", "nats.accept_unsynced": "true", "nats.max_store": "1GB", "nats.max_bytes": "2MB", "nats.replicas": "2",
		"http.listen": "127.0.0.1:2", "http.origins": "https://a, https://b", "http.public_url": "https://c", "http.mx": "true", "http.form_secrets": "f",
		"http.tls.cert": "tc", "http.tls.key": "tk", "http.trusted_proxies": "10.1.2.3/8,::1", "http.forwarded": "forwarded", "http.accept_plain": "true", "log.level": "error", "log.format": "json",
		"base_url": "https://x", "rate": "3600/h", "concurrency": "2", "timeout": "500ms", "attempts": "4", "settle": "1d", "suppression": "provider",
		"on_unknown": "lookup", "insecure": "1",
		"retention.journal": "10d", "retention.leads": "10w", "retention.attention": "48h", "retention.submissions": "3d", "retention.events": "1d",
	}
	var env []string
	seen := 0
	for _, s := range new(Config).settings() {
		env = append(env, variable(s.path)+"="+values[s.path])
		seen++
	}
	for _, s := range new(Connector).settings() {
		env = append(env, variable("connectors.referralrock."+s.path)+"="+values[s.path])
		seen++
	}
	if seen != len(values) {
		t.Fatalf("%d keys, values for %d", seen, len(values))
	}
	c, err := load(t, "", env, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Connectors[0].required = nil
	want := Config{
		Data: "d", Rules: "r",
		NATS: NATS{URL: "nats://u:p@h:1", Listen: "127.0.0.1:1", Websocket: "127.0.0.1:3", Credentials: "c", Monitor: []string{"http://a:1", "http://b:1"}, SystemCredentials: "s",
			AcceptUnsynced: true, MaxStore: 1e9, MaxBytes: 2e6, Replicas: 2},
		HTTP: HTTP{Listen: "127.0.0.1:2", Origins: []string{"https://a", "https://b"}, PublicURL: "https://c", MX: true, FormSecrets: "f", TLSCert: "tc", TLSKey: "tk",
			TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}, Forwarded: "forwarded", AcceptPlain: true},
		Log: Log{Level: slog.LevelError, Format: "json"}, Retention: Retention{Journal: 10 * day, Leads: 70 * day, Attention: 2 * day, Submissions: 3 * day, Events: day},
		Connectors: []Connector{{Name: "referralrock", Kind: "referralrock", BaseURL: "https://x", Rate: 1, Concurrency: 2, Timeout: 500 * time.Millisecond,
			Attempts: 4, Settle: 24 * time.Hour, Suppression: "provider", OnUnknown: "lookup", Insecure: true, Settings: map[string]string{}, Secrets: map[string]Secret{}}},
	}
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("got\n%+v, want\n%+v", *c, want)
	}
}

func TestPrecedence(t *testing.T) {
	const text = "http: {listen: '127.0.0.1:1'}\nlog: {level: warn}\nrules: from-file\n"
	env := []string{"LODESTONE_HTTP_LISTEN=127.0.0.1:2", "LODESTONE_LOG_LEVEL=", "LODESTONE_RULES=from-env"}
	c, err := load(t, text, env, map[string]string{"http.listen": "127.0.0.1:3"})
	if err != nil {
		t.Fatal(err)
	}
	if c.HTTP.Listen != "127.0.0.1:3" || c.Log.Level != slog.LevelWarn || c.Rules != "from-env" || c.Data != "data" {
		t.Errorf("listen %s, level %v, rules %s, data %s", c.HTTP.Listen, c.Log.Level, c.Rules, c.Data)
	}
}

// TestPaths: relative paths are the file's, those of flags the working directory's.
func TestPaths(t *testing.T) {
	work, etc := t.TempDir(), t.TempDir()
	file := filepath.Join(etc, "my.yaml")
	write(t, file, "rules: r\nnats: {credentials: {file: ../c}}\n")
	c, err := Load(LoadOptions{Path: file, Dir: work, Env: []string{"LODESTONE_NATS_SYSTEM_CREDENTIALS_FILE=sys"}})
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		c.File: file, c.Data: filepath.Join(etc, "data"), c.Rules: filepath.Join(etc, "r"),
		c.NATS.Credentials: filepath.Join(filepath.Dir(etc), "c"), c.NATS.SystemCredentials: filepath.Join(etc, "sys"),
	} {
		if got != want {
			t.Errorf("path %s, want %s", got, want)
		}
	}
	c, err = Load(LoadOptions{Dir: work, Env: []string{"LODESTONE_CONFIG=" + file}, Flags: map[string]string{"data": "here", "rules": "/abs"}})
	if err != nil || c.Data != filepath.Join(work, "here") || c.Rules != "/abs" || c.File != file {
		t.Errorf("flags: %+v, %v", c, err)
	}
	if _, err = Load(LoadOptions{Path: "none.yaml", Dir: work}); err == nil || !strings.Contains(err.Error(), "none.yaml does not exist; --config names it") {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err = Load(LoadOptions{Path: etc, Dir: work}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
}

// TestFaults compares what is said about faulty files with testdata/faults.golden; -update rewrites
// it.
func TestFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no faulty files: %v", err)
	}
	var got strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, err = load(t, string(text), nil, nil)
		var faults Faults
		if !errors.As(err, &faults) {
			t.Errorf("%s: err = %v, want Faults", file, err)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: a secret is repeated: %v", file, err)
		}
		fmt.Fprintf(&got, "== %s\n%v\n", filepath.Base(file), err)
	}
	const golden = "testdata/faults.golden"
	if *update {
		write(t, golden, got.String())
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("faults differ from %s (go test ./internal/config -update rewrites it):\n%s", golden, got.String())
	}
}

func TestFaultyVariables(t *testing.T) {
	tests := []struct {
		name string
		env  []string
		text string
		want string // whole error; empty: none
		warn string
	}{
		{"a wrong value", []string{"LODESTONE_HTTP_LISTEN=here"}, "", `LODESTONE_HTTP_LISTEN: http.listen: want host:port as in 127.0.0.1:8080, not "here"`, ""},
		{"a slip", []string{"LODESTONE_HTTP_LISTN=127.0.0.1:1"}, "", "LODESTONE_HTTP_LISTN: this variable means nothing; did you mean LODESTONE_HTTP_LISTEN?", ""},
		{"unknown in a section", []string{"LODESTONE_NATS_TELEPORTATION_BEAM=1"}, "", "LODESTONE_NATS_TELEPORTATION_BEAM: this variable means nothing; see `lodestone schema config` for the keys there are", ""},
		{"a slip in a connector's", []string{"LODESTONE_CONNECTORS_REFERRALROCK_BASE_ULR=https://x"}, "",
			"LODESTONE_CONNECTORS_REFERRALROCK_BASE_ULR: this variable means nothing; did you mean LODESTONE_CONNECTORS_REFERRALROCK_BASE_URL?", ""},
		{"no such connector", []string{"LODESTONE_CONNECTORS_ACME_X=1"}, "", "LODESTONE_CONNECTORS_ACME_X: this variable means nothing; see `lodestone schema config` for the keys there are", ""},
		{"no such kind", []string{"LODESTONE_CONNECTORS_MINE_KIND=referalrock"}, "", `LODESTONE_CONNECTORS_MINE_KIND: connectors.mine.kind: there is no connector "referalrock"; did you mean referralrock?`, ""},
		{"another kind than the file's", []string{"LODESTONE_CONNECTORS_ROCK_KIND=23blocks"}, "connectors: {rock: {kind: referralrock}}",
			"LODESTONE_CONNECTORS_ROCK_KIND: the file says that connectors.rock.kind is of kind referralrock; say it in one place", ""},
		{"a connector's wrong value", []string{"LODESTONE_CONNECTORS_REFERRALROCK_RATE=fast"}, "", `LODESTONE_CONNECTORS_REFERRALROCK_RATE: connectors.referralrock.rate: want a rate as in 10/s or 600/m, not "fast"`, ""},
		{"somebody else's", []string{"LODESTONE_VERSION=1.2", "OTHER=1"}, "", "", "the variable LODESTONE_VERSION means nothing to Lodestone"},
		{"a container platform's", []string{"LODESTONE_PORT=tcp://10.0.0.1:80", "LODESTONE_SERVICE_HOST=10.0.0.1", "LODESTONE_PORT_8080_TCP_ADDR=10.0.0.1", "LODESTONE_NATS_SERVICE_PORT_CLIENT=4222"}, "", "", ""},
		{"one that the file names", []string{"LODESTONE_ROCK=key"}, "connectors: {referralrock: {public_key: {env: LODESTONE_ROCK}}}", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := load(t, tt.text, tt.env, nil)
			if tt.want != "" {
				if err == nil || err.Error() != tt.want {
					t.Errorf("err = %v, want %s", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var warnings []string
			if tt.warn != "" {
				warnings = []string{tt.warn}
			}
			if !slices.Equal(c.Warnings, warnings) {
				t.Errorf("warnings = %q, want %q", c.Warnings, warnings)
			}
		})
	}
	if _, err := load(t, "connectors: {23blocks: {app_id: {file: missing}}}", nil, nil); !errors.As(err, new(Faults)) || !strings.Contains(err.Error(), "lodestone.yaml:1:33: connectors.23blocks.app_id: open ") {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := load(t, "", nil, map[string]string{"http.listn": "x", "log.level": "loud"}); err == nil ||
		err.Error() != "--http-listn: unknown key http.listn; did you mean http.listen?\n--log-level: log.level: \"loud\" is not one of debug, info, warn, error" {
		t.Errorf("flags: %v", err)
	}
}

func TestConnectorVariables(t *testing.T) {
	c, err := load(t, "connectors: {second-rock: {kind: referralrock, rate: 1/s}, second: {kind: 23blocks}}", []string{
		"LODESTONE_CONNECTORS_SECOND_ROCK_RATE=2/s",   // not second's ROCK_RATE
		"LODESTONE_CONNECTORS_SECOND_APP_ID=7",        //
		"LODESTONE_CONNECTORS_SECOND_TOKEN_ENV=TOKEN", //
		"TOKEN=tok", //
		"LODESTONE_CONNECTORS_MY_SQUATCH_KIND=saasquatch",      // an account of its own
		"LODESTONE_CONNECTORS_MY_SQUATCH_TENANT=t",             //
		"LODESTONE_CONNECTORS_MY_SQUATCH_API_KEY=direct",       //
		"LODESTONE_CONNECTORS_REFERRALROCK_PUBLIC_KEY=sandbox", // one of a connector's name needs no kind
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, a := range c.Connectors {
		got[a.Name] = fmt.Sprint(a.Kind, " ", a.Rate, " ", a.Settings)
	}
	want := map[string]string{"second-rock": "referralrock 2 map[]", "second": "23blocks 0 map[app_id:7]", "my_squatch": "saasquatch 0 map[tenant:t]", "referralrock": "referralrock 0 map[]"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, a := range c.Connectors {
		secrets, err := a.Resolve()
		switch a.Name {
		case "second":
			if err != nil || secrets["token"] != "tok" {
				t.Errorf("second: %v, %v", secrets, err)
			}
		case "my_squatch":
			if err != nil || secrets["api_key"] != "direct" {
				t.Errorf("my_squatch: %v, %v", secrets, err)
			}
		case "referralrock":
			if err == nil || !strings.Contains(err.Error(), "connectors.referralrock.private_key is missing; say it there or in the variable LODESTONE_CONNECTORS_REFERRALROCK_PRIVATE_KEY") {
				t.Errorf("referralrock: %v", err)
			}
		}
	}
}

func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, FileName), `
connectors:
  referralrock:
    public_key: {env: PUBLIC}
    private_key: {file: key}
`)
	read := func(env ...string) Connector {
		t.Helper()
		c, err := Load(LoadOptions{Dir: dir, Env: env, Kinds: kinds})
		if err != nil {
			t.Fatal(err)
		}
		return c.Connectors[0]
	}
	// Nothing is missing until the connector is used; then everything is named.
	_, err := read().Resolve()
	if err == nil || !strings.Contains(err.Error(), "connectors.referralrock.public_key: the variable PUBLIC is not set") ||
		!strings.Contains(err.Error(), "connectors.referralrock.private_key: open") || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Resolve: %v", err)
	}
	for name, content := range map[string]string{"is empty": "\n", "has more than": strings.Repeat("x", maxSecret+1)} {
		write(t, filepath.Join(dir, "key"), content)
		if _, err := read("PUBLIC=p").Resolve(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("file %s: %v", name, err)
		}
	}
	write(t, filepath.Join(dir, "key"), " s3cret \r\n")
	c := read("PUBLIC=s3cret-too", "LODESTONE_CONNECTORS_REFERRALROCK_PUBLIC_KEY=")
	got, err := c.Resolve()
	if want := map[string]string{"public_key": "s3cret-too", "private_key": " s3cret "}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Resolve = %q, %v", got, err)
	}

	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", c.Secrets["public_key"], "connector", c)
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	printed := []string{log.String(), string(asJSON), string(asYAML), c.Secrets["public_key"].String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		printed = append(printed, fmt.Sprintf(verb, c), fmt.Sprintf(verb, c.Secrets["public_key"]), fmt.Sprintf(verb, &c))
	}
	for _, s := range printed {
		if strings.Contains(s, "s3cret") || strings.Contains(s, fmt.Sprintf("%x", "s3cret")) {
			t.Errorf("a secret is printed: %s", s)
		}
		if !strings.Contains(s, "<secret>") && !strings.Contains(s, `\u003csecret\u003e`) {
			t.Errorf("<secret> is not printed: %s", s)
		}
	}
}

func TestSample(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, FileName), string(Sample()))
	c, err := Load(LoadOptions{Dir: dir, Kinds: kinds})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "empty.yaml"), "")
	want, err := Load(LoadOptions{Dir: dir, Path: filepath.Join(dir, "empty.yaml")})
	if err != nil {
		t.Fatal(err)
	}
	// The sample says the defaults.
	want.File, want.Connectors = c.File, c.Connectors
	if !reflect.DeepEqual(c, want) {
		t.Errorf("sample = %+v, defaults %+v", c, want)
	}
	if len(c.Connectors) != 1 || c.Connectors[0].Rate != 10 || len(c.Connectors[0].Secrets) != 2 {
		t.Errorf("connectors = %+v", c.Connectors)
	}
	// Every key there is is explained in it.
	for _, s := range append(new(Config).settings(), new(Connector).settings()...) {
		key := s.path[strings.LastIndex(s.path, ".")+1:]
		if !strings.Contains(string(sample), key+":") {
			t.Errorf("the sample does not show %s", s.path)
		}
	}
}

// TestJSONSchema: the schema accepts the sample and every key, and refuses what Load refuses.
func TestJSONSchema(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(JSONSchema())))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("config.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		string(Sample()): true,
		"connectors: {x: {kind: 23blocks, token: {env: T}, rate: 600/m, settle: 1m30s}}\nnats: {max_store: 10GiB, monitor: ['http://a:1'], credentials: {file: c}}": true,
		"data:\nnats:\nlog: {level: }":                true,
		"nats: {listne: x}":                           false,
		"log: {level: loud}":                          false,
		"nats: {accept_unsynced: perhaps}":            false,
		"nats: {credentials: literal}":                false,
		"connectors: {x: {rate: fast}}":               false,
		"connectors: {x: {token: {env: T, file: F}}}": false,
		"other: 1": false,
	} {
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// FuzzLoad: whatever the file holds, it is read or refused with faults that stand in it and do not
// repeat a secret's text.
func FuzzLoad(f *testing.F) {
	f.Add(string(Sample()))
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("a: &x [*x]")
	f.Add("nats: &n {url: *n}\nconnectors: *n")
	f.Add(strings.Repeat("[", 1<<16))
	f.Add(strings.Repeat("{a: ", 1<<12))
	f.Fuzz(func(t *testing.T, text string) {
		l := &loader{config: &Config{}, kinds: kinds, env: newEnvironment([]string{"X=literally-secret"}), base: "/base", work: "/work"}
		l.config.defaults(l)
		l.file(FileName, []byte(text))
		l.environment()
		l.finish()
		lines := strings.Count(text, "\n") + strings.Count(text, "\r") + strings.Count(text, "\u0085") + strings.Count(text, "\u2028") + strings.Count(text, "\u2029") + 2
		for _, fault := range l.faults {
			if fault.Line < 1 || fault.Line > lines || fault.Column < 1 || fault.Message == "" || strings.Contains(fault.Message, "\n") {
				t.Errorf("fault %+v of %d lines", fault, lines)
			}
			if strings.Contains(fault.Message, "literally-secret") && !strings.Contains(text, "literally-secret") {
				t.Errorf("fault %+v repeats a variable", fault)
			}
		}
		if len(l.faults) > 0 {
			return
		}
		c := l.config
		if !filepath.IsAbs(c.Data) || !filepath.IsAbs(c.Rules) || c.HTTP.Listen == "" || c.NATS.Replicas < 1 {
			t.Errorf("accepted %+v", c)
		}
		for _, a := range c.Connectors {
			if kinds[a.Kind] == nil || a.Name == "" {
				t.Errorf("accepted connector %+v", a)
			}
		}
	})
}
