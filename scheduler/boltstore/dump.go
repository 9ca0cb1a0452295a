package boltstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"
	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
)

// Record is one stored value, made readable.
type Record struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value,omitempty"`
	Fault string          `json:"fault,omitempty"` // why the value cannot be read
}

// DumpNames lists what [Store.Dump] shows.
func DumpNames() (names []string) {
	for _, b := range buckets {
		names = append(names, string(b))
	}
	return append(names, string(bEvidence))
}

// Dump returns records of one part of the store in the order of their keys, beginning after one as it
// was shown, at most limit. A value that cannot be read is shown as what is wrong with it.
func (s *Store) Dump(_ context.Context, name, after string, limit int) (records []Record, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(name))
		if b == nil {
			return nil
		}
		return dump(b, name, "", func(r Record) bool {
			if after != "" {
				if r.Key == after {
					after = ""
				}
				return true
			}
			records = append(records, r)
			return len(records) < limit
		})
	})
	return records, err
}

var errEnough = fmt.Errorf("enough")

func dump(b *bolt.Bucket, name, lane string, each func(Record) bool) error {
	err := b.ForEach(func(k, v []byte) error {
		if v == nil {
			return dump(b.Bucket(k), name, strings.ReplaceAll(string(k), "\x00", " ")+" ", each)
		}
		r := Record{Key: lane + readableKey(name, k)}
		value, err := readable(name, k, v)
		if err == nil && value != nil {
			r.Value, err = json.Marshal(value)
			r.Value = json.RawMessage(lodestone.HideLinks(string(r.Value)))
		}
		if err != nil {
			r.Fault = err.Error()
		}
		if !each(r) {
			return errEnough
		}
		return nil
	})
	if err == errEnough && lane == "" {
		return nil
	}
	return err
}

func readableKey(name string, k []byte) string {
	switch {
	case name == string(bJournal) && len(k) == 8:
		return fmt.Sprint(binary.BigEndian.Uint64(k))
	case name == string(bDue) && len(k) > 8:
		return keyTime(k).Format(time.RFC3339Nano) + " " + string(k[8:])
	case name == string(bRollups) && len(k) > 4:
		parts := strings.Split(string(k[4:]), "\x00")
		for i, p := range parts {
			parts[i] = cmp.Or(p, "-")
		}
		when := "total"
		if d := binary.BigEndian.Uint32(k); d != 0 {
			when = fmt.Sprintf("%04d-%02d-%02d", d/10_000, d/100%100, d%100)
		}
		return when + " " + strings.Join(parts, " ")
	case name == string(bAttention) && len(k) > 8:
		id := bytes.ReplaceAll(bytes.TrimSuffix(k[:len(k)-8], []byte{0}), []byte{0}, []byte(" "))
		seq := binary.BigEndian.Uint64(k[len(k)-8:])
		if seq&ofSignal != 0 {
			return fmt.Sprintf("%s signal %d", id, seq&^uint64(ofSignal))
		}
		return fmt.Sprintf("%s %d", id, seq)
	}
	return string(k)
}

func readable(name string, k, v []byte) (any, error) {
	read := func(into msgp.Unmarshaler) (any, error) { return into, decode(v, into) }
	switch name {
	case string(bLeads):
		return read(new(lodestone.Lead))
	case string(bJournal):
		e := new(lodestone.Entry)
		err := decode(v, e)
		return struct {
			Lead lodestone.Email `json:"lead,omitempty"`
			Prev uint64          `json:"prev,omitempty"`
			*lodestone.Entry
		}{e.Lead, e.Prev, e}, err
	case string(bSuppressions):
		return read(new(lodestone.Suppression))
	case string(bAttention):
		return read(new(lodestone.Attention))
	case string(bDue):
		return nil, nil
	case string(bIntents):
		p, err := decodePending(v)
		return map[string]any{"state": p.state, "connector": p.connector, "email": p.email}, err
	case string(bRollups):
		_, c, err := decodeRollup(k, v)
		return c.N, err
	}
	switch {
	case string(k) == string(kLinkKey), bytes.HasPrefix(k, kErasure):
		return "<secret>", nil
	case json.Valid(v):
		return json.RawMessage(bytes.Clone(v)), nil
	case bytes.HasPrefix(k, []byte("watermark/")) && len(v) == 16:
		return map[string]any{"created": keyTime(v), "seq": binary.BigEndian.Uint64(v[8:])}, nil
	case bytes.HasPrefix(k, []byte("cursor/")) && len(v) == 8:
		return binary.BigEndian.Uint64(v), nil
	case string(k) == string(kFormat) && len(v) == 4:
		return binary.BigEndian.Uint32(v), nil
	case utf8.Valid(v):
		return string(v), nil
	}
	return base64.StdEncoding.EncodeToString(v), nil
}
