package access

import (
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"sync"
	"time"
)

const (
	idle       = 4 * time.Hour  // without a request a session ends
	longest    = 24 * time.Hour // and with them
	maxOfUser  = 20             // sessions of one user; the one idle longest makes room
	sessionLen = 26             // characters of rand.Text, at least 128 bits
)

// sessions are the browsers that are signed in. They are kept by the hash of their id, in memory alone: a
// restart ends them all, and nothing on the disk lets anybody in.
type sessions struct {
	mu  sync.Mutex // guards all
	all map[[sha256.Size]byte]session
}

type session struct {
	user, epoch string // of when it began
	began, seen time.Time
}

func (s session) over(now time.Time) bool {
	return now.Sub(s.seen) >= idle || now.Sub(s.began) >= longest
}

// begin makes a session of a user and returns its id.
func (s *sessions) begin(u User, now time.Time) (id string) {
	id = rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[[sha256.Size]byte]session{}
	}
	type one struct {
		key  [sha256.Size]byte
		seen time.Time
	}
	var own []one
	for key, x := range s.all {
		switch {
		case x.over(now):
			delete(s.all, key)
		case x.user == u.Name:
			own = append(own, one{key, x.seen})
		}
	}
	slices.SortFunc(own, func(a, b one) int { return a.seen.Compare(b.seen) })
	for len(own) >= maxOfUser {
		delete(s.all, own[0].key)
		own = own[1:]
	}
	s.all[sha256.Sum256([]byte(id))] = session{user: u.Name, epoch: u.Epoch, began: now, seen: now}
	return id
}

// of returns the session of an id, and that it was seen now.
func (s *sessions) of(id string, now time.Time) (session, bool) {
	if len(id) != sessionLen {
		return session{}, false
	}
	key := sha256.Sum256([]byte(id))
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.all[key]
	if !ok || x.over(now) {
		delete(s.all, key)
		return session{}, false
	}
	x.seen = now
	s.all[key] = x
	return x, true
}

// end ends a session; there need not be one.
func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, sha256.Sum256([]byte(id)))
}
