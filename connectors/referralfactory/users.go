package referralfactory

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/lenient"
	"github.com/lodestonehq/lodestone/connectors/referralfactory/api"
)

// user is what is needed of a user. It is not the generated type on purpose: one odd value in a field
// that nobody looks at must not turn a user who was made into an unknown outcome.
type user struct {
	ID             ident
	CampaignID     ident `json:"campaign_id"`
	ReferrerID     ident `json:"referrer_id"`
	FirstName      ident `json:"first_name"`
	Email          ident
	Code           ident
	SignedUpAt     ident           `json:"signed_up_at"`
	QualifiedAt    ident           `json:"qualified_at"`
	UnsubscribedAt ident           `json:"unsubscribed_at"`
	Meta           json.RawMessage `json:"meta"`
}

// ident is a value that is a text or a number, or null, or was left out, or is something else. What it
// means to be one or the other is for whoever asks.
type ident struct {
	text  string
	state identState
}

type identState int

const (
	missing identState = iota
	null
	set     // text holds it, and it is not blank
	strange // blank, or neither text nor number
)

// UnmarshalJSON implements json.Unmarshaler. It never fails. Of a key that is there twice, in other
// letters say, the value that is set counts.
func (id *ident) UnmarshalJSON(raw []byte) error {
	if id.state == set || id.state == strange {
		return nil
	}
	var (
		text   *string
		number json.Number
	)
	switch {
	case string(raw) == "null":
		id.state = null
	case json.Unmarshal(raw, &text) == nil && strings.TrimSpace(*text) != "":
		id.text, id.state = strings.TrimSpace(*text), set
	case len(raw) > 0 && raw[0] != '"' && json.Unmarshal(raw, &number) == nil:
		id.text, id.state = number.String(), set
	default:
		id.state = strange
	}
	return nil
}

// document reads one user, in the envelope or without it.
func document(body []byte) (user, error) {
	var envelope struct{ Data json.RawMessage }
	if err := lenient.Object(body, &envelope); err != nil {
		return user{}, err
	}
	if envelope.Data != nil {
		body = envelope.Data
	}
	var u user
	if err := lenient.Object(body, &u); err != nil {
		return user{}, err
	}
	if u.ID.state != set {
		return user{}, errors.New("its user has no id")
	}
	return u, nil
}

// people reads what a search for one address in one campaign found: nobody, or that person. An answer
// that does not settle the question is an error: one about other people, because then the filter was
// not understood and the person may stand on another page, and an empty one that is not the last.
func people(body []byte, email lodestone.Email, campaign int64) ([]user, error) {
	var list struct {
		Data  *[]json.RawMessage
		Links struct{ Next ident }
		Meta  struct{ Total ident }
	}
	if err := lenient.Object(body, &list); err != nil {
		return nil, err
	}
	if list.Data == nil {
		return nil, errors.New("it holds no list of users")
	}
	var found []user
	for _, raw := range *list.Data {
		var u user
		if err := lenient.Object(raw, &u); err != nil {
			return nil, errors.New("one of its users is no object")
		}
		if strings.EqualFold(u.Email.text, string(email)) && u.CampaignID.text == strconv.FormatInt(campaign, 10) {
			if u.ID.state != set {
				return nil, errors.New("its user has no id")
			}
			found = append(found, u)
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case len(*list.Data) > 0:
		return nil, errors.New("it is about other users than the one asked for")
	case list.Links.Next.state > null, list.Meta.Total.state > null && list.Meta.Total.text != "0":
		return nil, errors.New("it is empty and says that there is more")
	}
	return nil, nil
}

// search asks for the person with that address in the account's campaign. An answer that one of the
// checks finds fault with counts as one that cannot be read.
func (c *connector) search(ctx context.Context, email lodestone.Email, checks ...func([]user) error) ([]user, connectors.Answer, error) {
	equal := func(field, value string) api.SearchFilter {
		return api.SearchFilter{Field: field, Operator: "=", Value: value}
	}
	req, err := c.sign(api.NewSearchUsersRequest(c.server, nil, api.UserSearch{Filters: api.SearchFilterGroup{
		Operator: "AND",
		Value:    []api.SearchFilter{equal("email", string(email)), equal("campaign_id", strconv.FormatInt(c.campaign, 10))},
	}}))
	if err != nil {
		return nil, connectors.Answer{}, err
	}
	var found []user
	answer, err := c.read(ctx, connectors.Call{
		Operation: opSearch, Request: req,
		Decode: func(a connectors.Answer) (err error) {
			if found, err = people(a.Body, email, c.campaign); err != nil {
				return err
			}
			for _, check := range checks {
				if err := check(found); err != nil {
					return err
				}
			}
			return nil
		},
	})
	if err != nil {
		return nil, answer, err
	}
	return found, answer, nil
}

// unread says whether a read failed because an answer came that is not understood, so that asking
// again would not help.
func unread(answer connectors.Answer, err error) bool {
	return err != nil && answer.Status >= 200 && answer.Status < 300
}

// referrerID finds the number of a referrer. It is empty when it cannot be told.
func (c *connector) referrerID(ctx context.Context, r api.Referrer) (string, error) {
	switch r.Field {
	case "id":
		return r.Value, nil
	case "email":
		found, answer, err := c.search(ctx, lodestone.Email(r.Value))
		if unread(answer, err) || err == nil && len(found) != 1 {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		return found[0].ID.text, nil
	}
	if r.Value == "." || r.Value == ".." { // would be another path
		return "", nil
	}
	req, err := c.sign(api.NewGetUserRequest(c.server, r.Value, nil))
	if err != nil {
		return "", nil
	}
	var u user
	answer, err := c.read(ctx, connectors.Call{
		Operation: opGetUser, Request: req,
		Decode: func(a connectors.Answer) (err error) {
			u, err = document(a.Body)
			return err
		},
	})
	switch {
	case answer.Status == 404, unread(answer, err):
		return "", nil
	case err != nil:
		return "", err
	case u.Code.text != r.Value: // it may have been read as a number
		return "", nil
	}
	return u.ID.text, nil
}

const (
	// clockSkew is how much earlier than the intent a user may have been made and still be ours.
	// Servers keep time within seconds of each other; a minute covers a clock that is badly kept.
	clockSkew = time.Minute
	// zoneSlack is by how much a time without a zone, read as UTC, may be too early: the clocks of the
	// westernmost places are twelve hours behind. A user who seems to be older by less than that may
	// be ours. It also covers the earlier tries of the same act, which had intents of their own.
	zoneSlack = 12 * time.Hour
)

// layouts are the ways in which a time may be written, and how long the span is that it names.
var layouts = []struct {
	layout string
	span   time.Duration
}{
	{time.RFC3339, 0},
	{"2006-01-02T15:04:05", 0},
	{"2006-01-02 15:04:05", 0},
	{time.DateOnly, 24*time.Hour - time.Second},
}

// parseTime reads a time and gives the last moment that it can mean when it is taken as UTC.
func parseTime(s string) (latest time.Time, ok bool) {
	for _, l := range layouts {
		if t, err := time.Parse(l.layout, s); err == nil {
			return t.UTC().Add(l.span), true
		}
	}
	return time.Time{}, false
}

// owner says whose doing a user is.
type owner int

const (
	unsure owner = iota
	ours
	theirs
)

// whose decides whether a user who is in the campaign is there by an act: see the package comment. The
// words say why, without anything personal.
func (c *connector) whose(ctx context.Context, u user, r *api.Referrer, intended time.Time) (owner, string, error) {
	latest, dated := parseTime(u.SignedUpAt.text)
	if dated && latest.Add(zoneSlack).Before(intended.Add(-clockSkew)) {
		return theirs, "the person has been in the campaign since before this touchpoint, from " + latest.Format(time.DateOnly), nil
	}
	switch {
	case u.ReferrerID.state == missing || u.ReferrerID.state == strange:
		return unsure, "the person is in the campaign, and whose lead it is cannot be read", nil
	case r == nil && u.ReferrerID.state == set:
		return theirs, "the person is in the campaign already, as the lead of a referrer (user " + u.ReferrerID.text + ")", nil
	case r != nil && u.ReferrerID.state == null:
		return theirs, "the person is in the campaign already, without a referrer; one cannot be attached later", nil
	case r != nil:
		id, err := c.referrerID(ctx, *r)
		switch {
		case err != nil:
			return unsure, "", err
		case id == "":
			return unsure, "the person is in the campaign as the lead of user " + u.ReferrerID.text + ", and whether that is the referrer of this touchpoint cannot be told", nil
		case id != u.ReferrerID.text:
			return theirs, "the person is in the campaign already, as the lead of another referrer (user " + u.ReferrerID.text + "), who keeps the credit", nil
		}
	}
	switch {
	case !dated:
		return unsure, "the person is in the campaign, and since when cannot be read", nil
	case latest.Before(intended.Add(-clockSkew)):
		return unsure, "the person is in the campaign, from hardly before this touchpoint; the provider's times do not tell which was first", nil
	}
	return ours, "the person is in the campaign since " + latest.Format(time.DateOnly) + ", as this touchpoint wants it", nil
}
