package lodestone

// Evidence is what speaks for or against a submission being honest, as far as it was seen. The
// gateway counts it; a submission that came past the gateway has none but what its own fields say.
type Evidence struct {
	// Token says whether the form's own token came with it: TokenNone, TokenGood or TokenBad.
	Token       string  `json:"token,omitempty" msg:"t,omitempty"`
	FillSeconds float64 `json:"fill_seconds,omitempty" msg:"f,omitempty"` // from the form being shown to its being sent; with a good token
	TokenUses   int     `json:"token_uses,omitempty" msg:"u,omitempty"`   // of this token within an hour, this one counted
	Honeypot    bool    `json:"honeypot,omitempty" msg:"h,omitempty"`     // the field that people do not see was filled in

	MX *bool `json:"mx,omitempty" msg:"mx,omitempty"` // whether the address's domain takes mail; nil: not looked up, or no answer

	// Within about an hour, this submission counted.
	AddressSubmissions int `json:"address_submissions,omitempty" msg:"as,omitempty"` // for this address
	AddressForms       int `json:"address_forms,omitempty" msg:"af,omitempty"`       // different ones for this address, at most 16
	AddressSources     int `json:"address_sources,omitempty" msg:"ao,omitempty"`     // different ones for this address, at most 16
	SourceSubmissions  int `json:"source_submissions,omitempty" msg:"ss,omitempty"`  // from this source
}

// What Token can be.
const (
	TokenNone = ""
	TokenGood = "good"
	TokenBad  = "bad" // forged, expired, or of another form
)

// Bombed reports whether somebody has one address entered all over the place: more forms or more
// sources within an hour than one person has.
func (e *Evidence) Bombed() bool {
	return e != nil && (e.AddressForms >= 6 || e.AddressSources >= 10)
}
