package broker

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

func config(t *testing.T, b *Broker, name string) jetstream.StreamConfig {
	t.Helper()
	s, err := b.JetStream().Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config
}

func TestEnsureStreams(t *testing.T) {
	b := openWithStreams(t, Options{MaxBytes: 1 << 30})
	for name, subject := range map[string]string{FormsStream: "lodestone.forms.*", SignalsStream: "lodestone.signals.*", EventsStream: "lodestone.events.>"} {
		c := config(t, b, name)
		if !slices.Equal(c.Subjects, []string{subject}) || c.Storage != jetstream.FileStorage || c.Retention != jetstream.LimitsPolicy ||
			c.Discard != jetstream.DiscardNew || c.MaxAge != 0 || c.MaxBytes != 1<<30 || c.MaxMsgs != -1 || c.Duplicates != 2*time.Minute ||
			!c.AllowAtomicPublish || c.DenyDelete || c.DenyPurge || c.AllowRollup || c.NoAck || c.Replicas != 1 {
			t.Errorf("%s = %+v", name, c)
		}
	}
	before := config(t, b, FormsStream)
	if err := b.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := config(t, b, FormsStream); after.MaxBytes != before.MaxBytes || after.Discard != before.Discard {
		t.Errorf("a second call changed %+v to %+v", before, after)
	}
}

func TestEnsureStreamsAmends(t *testing.T) {
	b := open(t, Options{MaxBytes: 1 << 20})
	was := jetstream.StreamConfig{Name: FormsStream, Subjects: []string{"other.>"}, Storage: jetstream.FileStorage, NoAck: true,
		Duplicates: time.Second, AllowRollup: true, Description: "kept"}
	if _, err := b.JetStream().CreateStream(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	if err := b.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := config(t, b, FormsStream)
	if !slices.Equal(c.Subjects, []string{"other.>", "lodestone.forms.*"}) || c.NoAck || c.Duplicates != 2*time.Minute || c.AllowRollup ||
		c.Discard != jetstream.DiscardNew || !c.AllowAtomicPublish || c.MaxBytes != 1<<20 || c.Description != "kept" {
		t.Errorf("amended = %+v", c)
	}
}

func TestEnsureStreamsRefuses(t *testing.T) {
	tests := []struct {
		name string
		was  jetstream.StreamConfig
		want string
	}{
		{"memory", jetstream.StreamConfig{Storage: jetstream.MemoryStorage}, "is kept in memory, want file"},
		{"work queue", jetstream.StreamConfig{Retention: jetstream.WorkQueuePolicy}, "has retention workqueue, want limits"},
		{"interest", jetstream.StreamConfig{Retention: jetstream.InterestPolicy}, "has retention interest, want limits"},
		{"age", jetstream.StreamConfig{MaxAge: time.Hour}, "drops messages after 1h0m0s"},
		{"a subject's messages", jetstream.StreamConfig{MaxMsgsPerSubject: 5}, "keeps only 5 messages of each subject"},
		{"no delete", jetstream.StreamConfig{DenyDelete: true}, "denies delete or purge"},
		{"no purge", jetstream.StreamConfig{DenyPurge: true}, "denies delete or purge"},
		{"async", jetstream.StreamConfig{PersistMode: jetstream.AsyncPersistMode}, "has persist mode async"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t, Options{})
			tt.was.Name, tt.was.Subjects = FormsStream, []string{"lodestone.forms.*"}
			if _, err := b.JetStream().CreateStream(t.Context(), tt.was); err != nil {
				t.Fatal(err)
			}
			err := b.EnsureStreams(t.Context())
			if !errors.Is(err, ErrStream) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), FormsStream) {
				t.Errorf("err = %v, want %q", err, tt.want)
			}
			if count(t, b, SignalsStream) != 0 { // made although the other was refused
				t.Error("signals are not empty")
			}
		})
	}
	// Two findings are told at once; what readers of events like is theirs to say.
	b := open(t, Options{})
	for _, c := range []jetstream.StreamConfig{
		{Name: FormsStream, Subjects: []string{"lodestone.forms.*"}, Storage: jetstream.MemoryStorage, MaxAge: time.Hour},
		{Name: EventsStream, Subjects: []string{"lodestone.events.>"}, MaxAge: time.Hour},
	} {
		if _, err := b.JetStream().CreateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	err := b.EnsureStreams(t.Context())
	if err == nil || !strings.Contains(err.Error(), "memory") || !strings.Contains(err.Error(), "1h0m0s") || strings.Contains(err.Error(), EventsStream) {
		t.Errorf("err = %v", err)
	}
	if c := config(t, b, EventsStream); c.Discard != jetstream.DiscardOld {
		t.Errorf("events discard = %v", c.Discard)
	}
}

// TestServerConfiguration: the server that testdata/nats.conf describes is one that is accepted.
func TestServerConfiguration(t *testing.T) {
	const file = "testdata/nats.conf"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	s := startOutside(t, func(into *server.Options) {
		dir := into.StoreDir
		*into = *o
		into.Host, into.Port, into.HTTPHost, into.HTTPPort = "127.0.0.1", server.RANDOM_PORT, "127.0.0.1", server.RANDOM_PORT
		into.StoreDir, into.NoSigs, into.NoLog = dir, true, true
	})
	openWithStreams(t, Options{URL: s.ClientURL(), Monitor: []string{s.monitor()}})
}
