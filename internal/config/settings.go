package config

import "time"

// form says how a value is written; the schema and the reader of the file go by it.
type form int

const (
	formText form = iota
	formBoolean
	formInteger
	formDuration
	formRate
	formSize
	formList
	formFile // {file: PATH}
)

// setting is one key: how it is written and where its value goes.
type setting struct {
	path  string // as in nats.listen; of a connector's key without connectors.NAME
	form  form
	words []string // the words it can be; nil: not limited to words
	doc   string   // one sentence
	set   parser
}

// settings lists every key outside of connectors. What a value may be is said here and nowhere else.
func (c *Config) settings() []setting {
	return []setting{
		{path: "data", set: directory(&c.Data),
			doc: "Directory of the store, the streams of the server in this process and the socket. Default ./data"},
		{path: "rules", set: directory(&c.Rules),
			doc: "Directory of the rule files. Default ./rules"},
		{path: "nats.url", set: natsURL(&c.NATS.URL),
			doc: "Address of a NATS server outside; empty: a server in this process."},
		{path: "nats.listen", set: text(&c.NATS.Listen, addressOrNone),
			doc: "Where the server in this process takes clients; none: only this process. Default 127.0.0.1:4222"},
		{path: "nats.websocket", set: text(&c.NATS.Websocket, addressOrNone),
			doc: "Where the server in this process takes browsers that have the key of a form (lodestone keys form); needs nats.credentials. Default none"},
		{path: "nats.credentials", form: formFile, set: directory(&c.NATS.Credentials),
			doc: "For url: a NATS credentials file. For the server in this process: a file with user:password for its clients."},
		{path: "nats.monitor", form: formList, set: list(&c.NATS.Monitor, webAddress),
			doc: "For url: monitoring addresses, one for each server, that are asked whether it syncs before it acknowledges."},
		{path: "nats.system_credentials", form: formFile, set: directory(&c.NATS.SystemCredentials),
			doc: "For url: a credentials file of a user of the system account, who is asked instead of monitor."},
		{path: "nats.accept_unsynced", form: formBoolean, set: boolean(&c.NATS.AcceptUnsynced),
			doc: "For url: go on with a server that may lose acknowledged submissions in a power cut. Default false"},
		{path: "nats.max_store", form: formSize, set: size(&c.NATS.MaxStore),
			doc: "Disk space of all streams of the server in this process. Default 0: three quarters of what is free"},
		{path: "nats.max_bytes", form: formSize, set: size(&c.NATS.MaxBytes),
			doc: "Disk space of each stream; a full one refuses new messages. Default 0: no limit of its own"},
		{path: "nats.replicas", form: formInteger, set: integer(&c.NATS.Replicas, 1, 5),
			doc: "Replicas of streams that are made anew, in a cluster. Default 1"},
		{path: "http.listen", set: text(&c.HTTP.Listen, addressOrNone),
			doc: "Where forms, webhooks, health, readiness, metrics, console and API are; none: nowhere. Default 127.0.0.1:8080"},
		{path: "http.public_url", set: text(&c.HTTP.PublicURL, webAddress),
			doc: "Where browsers reach http.listen, as in https://forms.example.com; links begin with it. Default: where their request went"},
		{path: "http.origins", form: formList, set: list(&c.HTTP.Origins, origin),
			doc: "Pages whose scripts may post forms. Default any"},
		{path: "http.mx", form: formBoolean, set: boolean(&c.HTTP.MX),
			doc: "Ask the name servers whether the domain of each address that is submitted takes mail, for risk.mx. Default false"},
		{path: "http.form_secrets", form: formFile, set: directory(&c.HTTP.FormSecrets),
			doc: "A file with the secrets of forms that other tools sign: a form's name, a blank and its secret on each line."},
		{path: "http.tls.cert", set: path(&c.HTTP.TLSCert),
			doc: "A file with the certificate of listen and its chain, PEM; with it listen speaks TLS. A renewed file is taken without a restart."},
		{path: "http.tls.key", set: path(&c.HTTP.TLSKey),
			doc: "A file with the key of http.tls.cert, PEM."},
		{path: "http.trusted_proxies", form: formList, set: networks(&c.HTTP.TrustedProxies),
			doc: "Addresses or networks, as in 10.0.0.0/8, of proxies whose word about where a request came from is believed. Default none"},
		{path: "http.forwarded", words: []string{"x-forwarded", "forwarded"}, set: oneOf(&c.HTTP.Forwarded, "x-forwarded", "forwarded"),
			doc: "The headers in which trusted proxies say it: X-Forwarded-For, -Proto and -Host, or Forwarded; the other ones are the client's and not read. Default x-forwarded"},
		{path: "http.accept_plain", form: formBoolean, set: boolean(&c.HTTP.AcceptPlain),
			doc: "Take passwords and tokens from other machines over plain HTTP, where everybody on the way can read them. Default false"},
		{path: "log.level", words: []string{"debug", "info", "warn", "error"}, set: level(&c.Log.Level),
			doc: "Least important level that is logged. Default info"},
		{path: "log.format", words: []string{"text", "json"}, set: oneOf(&c.Log.Format, "text", "json"),
			doc: "How a line is written. Default text"},
		{path: "retention.journal", form: formDuration, set: duration(&c.Retention.Journal, shortest, longest),
			doc: "How long what was decided and done is kept, lead by lead; the daily counts stay. Default 400d"},
		{path: "retention.leads", form: formDuration, set: duration(&c.Retention.Leads, 30*shortest, longest),
			doc: "How long a lead is kept after the last thing that happened, when nothing is pending; who comes back later is a new lead. Default 1100d"},
		{path: "retention.attention", form: formDuration, set: duration(&c.Retention.Attention, shortest, longest),
			doc: "How long submissions and signals that could not be used are kept. Default 400d"},
		{path: "retention.submissions", form: formDuration, set: duration(&c.Retention.Submissions, shortest, longest),
			doc: "How long submissions stay in their stream after they were applied; an older backup cannot be brought up to date. Default 90d"},
		{path: "retention.events", form: formDuration, set: duration(&c.Retention.Events, shortest, longest),
			doc: "How long events stay in their stream; a restored backup learns from them what was sent since. Default 7d"},
	}
}

// What may be said of retention: a day is the least, so that a slip does not empty the store.
const (
	shortest = 24 * time.Hour
	longest  = 100 * 365 * 24 * time.Hour
)
