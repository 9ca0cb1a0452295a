package event

import (
	"reflect"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
)

func signalMessage(kind, body string, header ...string) Message {
	m := binaryMessage(body, header...)
	m.Subject = SignalsPrefix + kind
	return m
}

func TestDecodeSignal(t *testing.T) {
	at := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	tests := []struct {
		name string
		m    Message
		want lodestone.Signal // Email, Received, Seq and, when zero, At are filled in
	}{
		{"plain", signalMessage("converted", `{"email":"Ada@example.com","at":"2026-11-20T08:00:00Z"}`, "Nats-Msg-Id", "s-1"),
			lodestone.Signal{ID: "s-1", Kind: "converted", At: at}},
		{"structured", signalMessage("bounced", `{"specversion":"1.0","type":"lodestone.signal.bounced","source":"rock","id":"1","data":{"email":"ada@example.com","detail":{"type":"hard","code":550,"tags":[1,"a"]}}}`, "Content-Type", ContentType),
			lodestone.Signal{ID: "rock 1", Kind: "bounced", Detail: map[string]any{"type": "hard", "code": 550.0, "tags": []any{1.0, "a"}}}},
		{"binary", signalMessage("opened", `{"email":"ada@example.com"}`, "ce-specversion", "1.0", "ce-type", "lodestone.signal", "ce-source", "rock", "ce-id", "2", "ce-time", "2026-11-20T08:00:00Z"),
			lodestone.Signal{ID: "rock 2", Kind: "opened", At: at}},
		{"at goes before the event's time", signalMessage("opened", `{"email":"ada@example.com","at":"2026-11-20T08:00:00Z"}`, "ce-specversion", "1.0", "ce-type", "lodestone.signal", "ce-source", "rock", "ce-id", "2", "ce-time", "2026-11-20T08:30:00Z"),
			lodestone.Signal{ID: "rock 2", Kind: "opened", At: at}},
		{"the future is the stream's time", signalMessage("converted", `{"email":"ada@example.com","at":"2030-01-01T00:00:00Z"}`, "Nats-Msg-Id", "s-1"),
			lodestone.Signal{ID: "s-1", Kind: "converted"}},
		{"an opt-out is not lost over its time", signalMessage("unsubscribed", `{"email":"ada@example.com","at":"yesterday"}`, "Nats-Msg-Id", "s-1"),
			lodestone.Signal{ID: "s-1", Kind: "unsubscribed"}},
		{"nor over its detail", signalMessage("unsubscribed", `{"email":"ada@example.com","at":5,"detail":"by mail"}`, "Nats-Msg-Id", "s-1"),
			lodestone.Signal{ID: "s-1", Kind: "unsubscribed", Detail: map[string]any{"value": "by mail"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, rejected := DecodeSignal(tt.m)
			if rejected != nil {
				t.Fatalf("rejected: %+v", *rejected)
			}
			want := tt.want
			want.Email, want.Received, want.Seq = "ada@example.com", taken, 7
			if want.At.IsZero() {
				want.At = taken
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got\n%+v, want\n%+v", got, want)
			}
		})
	}
}

func TestSignalRejections(t *testing.T) {
	tests := []struct {
		name string
		m    Message
		want lodestone.Reason
	}{
		{"no address", signalMessage("converted", `{}`), lodestone.ReasonNoEmail},
		{"unusable address", signalMessage("converted", `{"email":"x"}`), lodestone.ReasonBadEmail},
		{"a form's type", signalMessage("converted", `{}`, "ce-specversion", "1.0", "ce-type", TypeSubmission), lodestone.ReasonBadEnvelope},
		{"a form's subject", plainMessage("pricing-guide", `{"email":"ada@example.com"}`), lodestone.ReasonBadEnvelope},
		{"no kind", signalMessage("", `{"email":"ada@example.com"}`), lodestone.ReasonBadEnvelope},
		{"a list", signalMessage("converted", `[]`), lodestone.ReasonNotAnObject},
		{"not JSON", signalMessage("converted", `x`), lodestone.ReasonNotJSON},
		{"too deep", signalMessage("converted", nested(33)), lodestone.ReasonTooDeep},
		{"too large", signalMessage("converted", string(make([]byte, MaxSize+1))), lodestone.ReasonTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, got := DecodeSignal(tt.m)
			if got == nil || got.Reason != tt.want || got.Detail == "" || got.ID == "" {
				t.Errorf("got %+v, want %s", got, tt.want)
			}
		})
	}
}
