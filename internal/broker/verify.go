package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	minMajor, minMinor = 2, 15 // see the package comment

	verifyTimeout = 5 * time.Second
	// After the last answer this long is waited for another server's; a healthy one answers within
	// a round trip.
	quietTime = 500 * time.Millisecond
	maxVarz   = 4 << 20 // bytes of one monitoring answer
)

// varz is the part of a server's monitoring answer that counts here.
type varz struct {
	ID        string `json:"server_id"`
	Name      string `json:"server_name"`
	Version   string `json:"version"`
	JetStream struct {
		Config *struct {
			SyncAlways bool `json:"sync_always"`
		} `json:"config"`
		Meta *struct {
			Size int `json:"cluster_size"`
		} `json:"meta"`
	} `json:"jetstream"`
}

// verify asks whether every server that may store for nc syncs before it acknowledges. The error
// wraps [ErrUnsynced] and says what to do.
func (b *Broker) verify(ctx context.Context, nc *nats.Conn) error {
	if v := nc.ConnectedServerVersion(); !recent(v) {
		return unsynced("it is version %s, and before %d.%d acknowledged messages could be lost whatever the setting; upgrade it", v, minMajor, minMinor)
	}
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	var found []varz
	var err error
	switch {
	case b.opts.SystemCredentials != "":
		found, err = b.askSystem(ctx)
	case len(b.opts.Monitor) > 0:
		found, err = askMonitors(ctx, b.opts.Monitor)
	default:
		return unsynced("a plain client cannot see the setting; set nats.monitor to the server's monitoring address as in http://127.0.0.1:8222 (http_port: 8222 in its configuration), or nats.system_credentials to a user of its system account")
	}
	if err != nil {
		return unsynced("%w", err)
	}
	return judge(found, nc.ConnectedServerId())
}

// unsynced completes an objection with what always helps.
func unsynced(format string, args ...any) error {
	return fmt.Errorf("%w: %w. Set `sync_interval: always` in the jetstream block of its configuration; "+
		"if losing acknowledged submissions in a power cut is acceptable, say so with nats.accept_unsynced: true",
		ErrUnsynced, fmt.Errorf(format, args...))
}

// judge decides from the answers of the servers; connected is the id of the one that must be among
// them.
func judge(found []varz, connected string) error {
	here := false
	stores, size := map[string]bool{}, 0
	for _, v := range found {
		here = here || v.ID == connected
		if v.JetStream.Config == nil {
			continue // it has no JetStream and stores nothing
		}
		if !v.JetStream.Config.SyncAlways {
			return unsynced("server %s does not run with sync_interval: always", v.Name)
		}
		if !recent(v.Version) {
			return unsynced("server %s is version %s, and before %d.%d acknowledged messages could be lost whatever the setting; upgrade it", v.Name, v.Version, minMajor, minMinor)
		}
		stores[v.ID] = true
		if v.JetStream.Meta != nil {
			size = max(size, v.JetStream.Meta.Size)
		}
	}
	switch {
	case !here:
		return unsynced("the answer is that of another server; nats.monitor must name the one that nats.url names")
	case len(stores) == 0:
		return unsynced("no server that answered has JetStream")
	case len(stores) < size:
		return unsynced("%d of the %d servers of its cluster said that they sync; nats.monitor must name each one", len(stores), size)
	}
	return nil
}

// askSystem asks all servers over a connection of the system account.
func (b *Broker) askSystem(ctx context.Context) ([]varz, error) {
	nc, err := nats.Connect(b.opts.URL, nats.Name(b.opts.Name+" (durability check)"), nats.NoReconnect(), nats.UserCredentials(b.opts.SystemCredentials))
	if err != nil {
		return nil, fmt.Errorf("nats.system_credentials: %w", err)
	}
	defer nc.Close()
	return askAll(ctx, nc)
}

// askAll sends the request for monitoring answers to every server and collects them until it is
// quiet.
func askAll(ctx context.Context, nc *nats.Conn) ([]varz, error) {
	sub, err := nc.SubscribeSync(nc.NewRespInbox())
	if err != nil {
		return nil, fmt.Errorf("ask the system account: %w", err)
	}
	if err := nc.PublishRequest("$SYS.REQ.SERVER.PING.VARZ", sub.Subject, nil); err != nil {
		return nil, fmt.Errorf("ask the system account: %w", err)
	}
	var found []varz
	for {
		wait := ctx
		cancel := func() {}
		if len(found) > 0 {
			wait, cancel = context.WithTimeout(ctx, quietTime)
		}
		m, err := sub.NextMsgWithContext(wait)
		cancel()
		switch {
		case err != nil && len(found) > 0:
			return found, nil
		case errors.Is(err, nats.ErrNoResponders):
			return nil, errors.New("the user of nats.system_credentials is not one of the system account")
		case err != nil:
			return nil, fmt.Errorf("no server answered on the system account: %w", err)
		}
		var answer struct {
			Data *varz `json:"data"`
		}
		if err := json.Unmarshal(m.Data, &answer); err != nil || answer.Data == nil {
			return nil, errors.New("a server's answer on the system account cannot be read")
		}
		found = append(found, *answer.Data)
	}
}

// askMonitors asks each monitoring address.
func askMonitors(ctx context.Context, addrs []string) ([]varz, error) {
	var found []varz
	for _, addr := range addrs {
		v, err := askMonitor(ctx, addr)
		if err != nil {
			return nil, err
		}
		found = append(found, v)
	}
	return found, nil
}

func askMonitor(ctx context.Context, addr string) (varz, error) {
	var v varz
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(addr, "/")+"/varz", nil)
	if err != nil {
		return v, errors.New("nats.monitor is not an address as in http://127.0.0.1:8222")
	}
	where := req.URL.Host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return v, fmt.Errorf("nats.monitor at %s does not answer: %w", where, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return v, fmt.Errorf("nats.monitor at %s answers with status %d", where, resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxVarz)).Decode(&v); err != nil || v.ID == "" {
		return v, fmt.Errorf("nats.monitor at %s does not answer as nats-server does", where)
	}
	return v, nil
}

// recent reports whether a version as in 2.15.2 or 2.15.2-RC.1 is new enough.
func recent(version string) bool {
	part := strings.SplitN(version, ".", 3)
	if len(part) < 3 {
		return false
	}
	major, err1 := strconv.Atoi(part[0])
	minor, err2 := strconv.Atoi(part[1])
	return err1 == nil && err2 == nil && (major > minMajor || major == minMajor && minor >= minMinor)
}
