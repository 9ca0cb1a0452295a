package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone/sequencer"
)

// roomLeft is how many bytes a stream must still take to count as one that accepts submissions: more than
// most are long.
const roomLeft = 4 << 10

// streamReasons says why the streams do not take submissions or signals: one that is gone, or full.
func (w *Worker) streamReasons() (list []Notice) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, name := range []string{sequencer.FormsStream, sequencer.SignalsStream} {
		s, err := w.broker.JetStream().Stream(ctx, name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			list = append(list, Notice{"stream_away", fmt.Sprintf("the stream %s is not there any more, so nothing can be accepted; restore it, or start the worker again with --accept-stream to begin with an empty one", name)})
		case err != nil:
			return append(list, Notice{"broker_away", fmt.Sprintf("the stream %s does not answer: %v", name, err)})
		default:
			if info := s.CachedInfo(); info.Config.MaxBytes > 0 && info.State.Bytes+roomLeft > uint64(info.Config.MaxBytes) {
				list = append(list, Notice{"stream_full", fmt.Sprintf("the stream %s is full (%d of %d bytes) and refuses what comes; keep submissions for a shorter time (retention.submissions) or raise nats.max_bytes", name, info.State.Bytes, info.Config.MaxBytes)})
			}
		}
	}
	return list
}
