package sandbox

import (
	"cmp"
	"slices"
	"strings"
)

// EffectKey tells effects apart. Every effect is counted under its address, and under its external id
// when it has one.
type EffectKey struct {
	Operation  string `json:"operation"`
	Email      string `json:"email,omitempty"`
	ExternalID string `json:"external_id,omitempty"`
}

// EffectCount is how often something had an effect.
type EffectCount struct {
	EffectKey
	Count int `json:"count"`
}

// Effects are the requests that the providers acted on. A contact that was handed over twice is two
// effects, also when the second was skipped: to the one who sent it, it went out twice.
type Effects struct {
	Total        int           `json:"total"`
	ByEmail      []EffectCount `json:"by_email"`       // by operation and address
	ByExternalID []EffectCount `json:"by_external_id"` // by operation and external id
}

// effect counts one effect.
func (s *Server) effect(operation, email, externalID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.effects[EffectKey{Operation: operation, Email: strings.ToLower(email)}]++
	if externalID != "" {
		s.effects[EffectKey{Operation: operation, ExternalID: externalID}]++
	}
}

// Effects gives all counts, sorted by operation and key.
func (s *Server) Effects() Effects {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Effects{ByEmail: []EffectCount{}, ByExternalID: []EffectCount{}}
	for k, n := range s.effects {
		if k.ExternalID != "" {
			out.ByExternalID = append(out.ByExternalID, EffectCount{k, n})
			continue
		}
		out.Total += n
		out.ByEmail = append(out.ByEmail, EffectCount{k, n})
	}
	order := func(a, b EffectCount) int {
		return cmp.Or(cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Email, b.Email), cmp.Compare(a.ExternalID, b.ExternalID))
	}
	slices.SortFunc(out.ByEmail, order)
	slices.SortFunc(out.ByExternalID, order)
	return out
}
