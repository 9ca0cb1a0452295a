package sandbox

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lodestonehq/lodestone/connectors/blocks23"
	"github.com/lodestonehq/lodestone/connectors/blocks23/api"
)

// Blocks23Options are how the emulated deployment of 23blocks is set up, where deployments differ or
// nobody knows how they are. Any form id is one that exists; each has its own referrals.
type Blocks23Options struct {
	Token       string // empty: any that is not empty
	AppID       string // empty: any that is not empty
	SDKNames    bool   // it speaks the names of the vendor's SDK: referee_email, data, total_pages
	NoMetadata  bool   // it drops the free fields of a referral
	OldestFirst bool   // lists begin with the oldest
	MaxRecords  int    // the largest page; 0: 100
}

// blocksTime is how 23blocks writes times: whole seconds in UTC.
const blocksTime = "2006-01-02T15:04:05Z"

// The page sizes of 23blocks. The default is stated for a sibling of the API, the maximum for none.
const (
	blocksRecords    = 15
	blocksMaxRecords = 100
)

// blocks is 23blocks.
type blocks struct {
	s        *Server
	opts     Blocks23Options
	contract *contract

	mu            sync.Mutex // guards what follows
	referrals     *table[*blocksReferral]
	subscriptions []api.SubscriptionResource // of every form
}

// blocksReferral is a referral as it is kept.
type blocksReferral struct {
	form    string
	deleted bool
	blocksAttributes
}

// blocksAttributes are what a referral shows. Every one is always there, null until it is set.
type blocksAttributes struct {
	UniqueID         string          `json:"unique_id"`
	ReferrerUniqueID *string         `json:"referrer_unique_id"`
	ReferrerEmail    string          `json:"referrer_email"`
	ReferrerName     *string         `json:"referrer_name"`
	ReferredEmail    string          `json:"referred_email"`
	ReferredName     *string         `json:"referred_name"`
	Status           string          `json:"status"`
	ReferralCode     *string         `json:"referral_code"`
	Source           *string         `json:"source"`
	RewardStatus     string          `json:"reward_status"`
	RewardAmount     *float64        `json:"reward_amount"`
	Metadata         *map[string]any `json:"metadata"`
	ConvertedAt      *string         `json:"converted_at"`
	CreatedAt        string          `json:"created_at"`
}

// blocksSDK are the SDK's names of documented fields.
var blocksSDK = map[string]string{"referred_email": "referee_email", "referred_name": "referee_name", "metadata": "data"}

// blocksSDKOnly are fields that only the SDK has.
var blocksSDKOnly = []string{"referee_phone", "payload"}

// blocksContract is read once, since that takes tens of milliseconds and never changes.
var blocksContract = sync.OnceValue(func() *contract { return mustContract(blocks23.Specification()) })

func newBlocks(s *Server, opts Blocks23Options) *blocks {
	if opts.MaxRecords <= 0 {
		opts.MaxRecords = blocksMaxRecords
	}
	b := &blocks{s: s, opts: opts, contract: blocksContract()}
	b.reset()
	return b
}

// reset puts the data back as it was at the start.
func (b *blocks) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.referrals = newTable(func(r *blocksReferral) []string {
		return keys(key("id", &r.UniqueID), key("email", &r.ReferredEmail))
	})
	b.subscriptions = nil
	begun := time.Date(2026, 1, 10, 10, 30, 0, 0, time.UTC)
	add := func(email string, status api.SubscriptionAttributesStatus, ended *time.Time) {
		id := "sub-" + strconv.Itoa(len(b.subscriptions)+1)
		b.subscriptions = append(b.subscriptions, api.SubscriptionResource{
			Id: id, Type: "subscription", Attributes: api.SubscriptionAttributes{
				UniqueId: id, Email: email, Status: status, Source: ptr("website"),
				SubscribedAt: &begun, UnsubscribedAt: ended, CreatedAt: &begun,
			},
		})
	}
	add("ines.duarte@example.com", "active", nil)
	for _, e := range b.s.opts.Unsubscribed {
		add(string(e), "unsubscribed", ptr(time.Date(2026, 5, 1, 7, 0, 0, 0, time.UTC)))
	}
}

// blocksPath is a path of the API, taken apart.
type blocksPath struct {
	template string // as in the description; empty: there is no such path
	form, id string
}

// blocksForms are the variables of the forms in the paths, by what is asked for.
var blocksForms = map[string]string{"referrals": "{form_unique_id}", "subscriptions": "{subscription_form_unique_id}"}

func (b *blocks) path(u *url.URL) (p blocksPath) {
	parts := strings.Split(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	if len(parts) < 3 || len(parts) > 4 || parts[2] != "instances" || slices.Contains(parts, "") {
		return p
	}
	var err, also error
	p.form, err = url.PathUnescape(parts[1])
	template := "/" + parts[0] + "/" + blocksForms[parts[0]] + "/instances"
	if len(parts) == 4 {
		p.id, also = url.PathUnescape(parts[3])
		template += "/{unique_id}"
	}
	if err == nil && also == nil {
		p.template = template
	}
	return p
}

func (b *blocks) route(r *http.Request) (*route, blocksPath) {
	p := b.path(r.URL)
	return b.contract.routes[r.Method+" "+p.template], p
}

// match implements emulated. The external id of a new referral is the touchpoint's in its metadata,
// that of the other requests the referral's own.
func (b *blocks) match(req *request) (operation string, emails []string, externalID string) {
	route, path := b.route(req.Request)
	if route != nil {
		operation = route.operation
	}
	var body struct {
		Referral struct {
			ReferredEmail string         `json:"referred_email"`
			RefereeEmail  string         `json:"referee_email"`
			Metadata      map[string]any `json:"metadata"`
			Data          map[string]any `json:"data"`
		} `json:"referral"`
	}
	_ = json.Unmarshal(req.body, &body) // as far as it goes
	if email := cmp.Or(body.Referral.ReferredEmail, body.Referral.RefereeEmail); email != "" {
		emails = append(emails, email)
	}
	externalID = path.id
	for _, free := range []map[string]any{body.Referral.Metadata, body.Referral.Data} {
		if key, _ := free[blocks23.MetadataKey].(string); externalID == "" {
			externalID = key
		}
	}
	if path.id != "" && strings.HasPrefix(path.template, "/referrals/") {
		b.mu.Lock()
		defer b.mu.Unlock()
		if r := b.find(path); r != nil {
			emails = append(emails, r.ReferredEmail)
		}
	}
	return operation, emails, externalID
}

// blocksCodes are the machine words of errors by status.
var blocksCodes = map[int]string{
	http.StatusBadRequest: "bad_request", http.StatusUnauthorized: "unauthorized", http.StatusForbidden: "forbidden",
	http.StatusNotFound: "not_found", http.StatusConflict: "already_exists", http.StatusUnprocessableEntity: "validation_error",
	http.StatusTooManyRequests: "rate_limit_exceeded", http.StatusServiceUnavailable: "service_unavailable",
}

var blocksTitles = map[int]string{
	http.StatusNotFound: "Not found", http.StatusUnprocessableEntity: "Validation failed",
}

// failure implements emulated.
func (b *blocks) failure(status int, words string) reply {
	e := map[string]any{"status": strconv.Itoa(status), "code": cmp.Or(blocksCodes[status], "internal_error"), "detail": words}
	if title := blocksTitles[status]; title != "" {
		e["title"] = title
	}
	return reply{status: status, body: map[string]any{"errors": []any{e}}}
}

// refuse is an answer to a request that broke the description.
func (b *blocks) refuse(req *request, violation, words string) reply {
	req.seen.Violation = violation
	return b.failure(http.StatusUnprocessableEntity, words)
}

// serve implements emulated.
func (b *blocks) serve(req *request) reply {
	route, path := b.route(req.Request)
	if route == nil {
		req.seen.Violation = "the description has no such path and method"
		return reply{status: http.StatusNotFound, body: map[string]string{"error": "Not Found", "message": "No route matches the request."}}
	}
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	app := cmp.Or(req.Header.Get("AppId"), req.Header.Get("X-API-KEY"))
	switch {
	case !strings.EqualFold(scheme, "Bearer") || token == "":
		req.seen.Violation = "it carries no bearer token"
	case app == "":
		req.seen.Violation = "it carries no AppId"
	}
	if req.seen.Violation != "" || !accepts(b.opts.Token, token) || !accepts(b.opts.AppID, app) {
		return b.failure(http.StatusUnauthorized, "The credentials are not valid.")
	}
	if b.opts.SDKNames {
		if err := blocksDocumented(req); err != nil {
			return b.refuse(req, err.Error(), "The request is invalid.")
		}
	}
	if err := route.check(req); err != nil {
		return b.refuse(req, err.Error(), blocksWords(req, err))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch route.operation {
	case "listReferrals":
		return b.listReferrals(req, path)
	case "createReferral":
		return b.createReferral(req, path)
	case "getReferral":
		return b.getReferral(path)
	case "updateReferral":
		return b.updateReferral(req, path)
	case "deleteReferral":
		return b.deleteReferral(req, path)
	case "listSubscriptions":
		return b.listSubscriptions(req)
	case "getSubscription":
		return b.getSubscription(path)
	}
	return b.failure(http.StatusNotImplemented, "The sandbox does not emulate "+route.operation+".")
}

// blocksWords says what is wrong with a request in the provider's way.
func blocksWords(req *request, err error) string {
	var body struct{ Referral map[string]any }
	if json.Unmarshal(req.body, &body) == nil && req.Method == http.MethodPost {
		for _, field := range []string{"referred_email", "referrer_email"} {
			if v := body.Referral[field]; v == nil || v == "" {
				return strings.ToUpper(field[:1]) + strings.ReplaceAll(field[1:], "_", " ") + " is missing"
			}
		}
	}
	return "The request is invalid: " + err.Error()
}

// blocksDocumented turns a body with the SDK's names into one with the documented ones, which is what the
// description knows.
func blocksDocumented(req *request) error {
	var body map[string]map[string]any
	if len(req.body) == 0 || json.Unmarshal(req.body, &body) != nil {
		return nil // the check says what is wrong with it
	}
	fields := body["referral"]
	for name, sdk := range blocksSDK {
		if _, there := fields[name]; there {
			return fmt.Errorf("the deployment calls %s %s", name, sdk)
		}
		if v, there := fields[sdk]; there {
			delete(fields, sdk)
			fields[name] = v
		}
	}
	for _, name := range blocksSDKOnly {
		delete(fields, name)
	}
	raw, err := json.Marshal(body)
	req.body = raw
	return err
}

// blocksFields reads the body of a write, and refuses fields that the description does not have: by its
// letter they are allowed, and they are a sure sign of a misspelt one.
func blocksFields[T any](req *request, known ...string) (v T, violation string) {
	var body struct{ Referral json.RawMessage }
	var all map[string]any
	if json.Unmarshal(req.body, &body) != nil || json.Unmarshal(body.Referral, &v) != nil || json.Unmarshal(body.Referral, &all) != nil {
		return v, "a value in the body is out of bounds"
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !slices.Contains(known, name) {
			return v, fmt.Sprintf("the referral has the unknown field %q", clip(name, 50))
		}
	}
	return v, ""
}

// find is the referral of a path, nil when there is none that was not deleted.
func (b *blocks) find(path blocksPath) *blocksReferral {
	for _, row := range b.referrals.find(key("id", &path.id)) {
		if r := row.v; r.form == path.form && r.UniqueID == path.id && !r.deleted {
			return r
		}
	}
	return nil
}

func (b *blocks) effect(req *request, email, externalID string) {
	req.seen.Effect = true
	req.seen.Email = cmp.Or(req.seen.Email, email)
	for _, s := range b.subscriptions {
		if s.Attributes.Status == "unsubscribed" && strings.EqualFold(s.Attributes.Email, email) && req.seen.Operation == "createReferral" {
			req.seen.Unsubscribed = true
		}
	}
	b.s.effect(req.seen.Operation, email, externalID)
}

func (b *blocks) createReferral(req *request, path blocksPath) reply {
	in, violation := blocksFields[api.ReferralCreate](req, "referrer_unique_id", "referrer_email", "referrer_name",
		"referred_email", "referred_name", "referral_code", "source", "metadata")
	if violation != "" {
		return b.refuse(req, violation, "The request is invalid: "+violation)
	}
	taken := slices.ContainsFunc(b.referrals.find(key("email", &in.ReferredEmail)), func(s stored[*blocksReferral]) bool {
		return s.v.form == path.form && !s.v.deleted
	})
	if taken {
		switch b.s.Settings().Duplicates {
		case DuplicatesBlock:
			return b.failure(http.StatusConflict, "Referral already exists")
		case DuplicatesRefuse:
			return b.failure(http.StatusUnprocessableEntity, "Referred email has already been taken")
		}
	}
	b.effect(req, in.ReferredEmail, req.seen.ExternalID)
	now := time.Now()
	r := &blocksReferral{form: path.form, blocksAttributes: blocksAttributes{
		UniqueID: newID(), ReferrerUniqueID: in.ReferrerUniqueId, ReferrerEmail: in.ReferrerEmail, ReferrerName: in.ReferrerName,
		ReferredEmail: in.ReferredEmail, ReferredName: in.ReferredName, Status: "pending", ReferralCode: in.ReferralCode,
		Source: in.Source, RewardStatus: "pending", Metadata: in.Metadata, CreatedAt: now.UTC().Format(blocksTime),
	}}
	if b.opts.NoMetadata {
		r.Metadata = nil
	}
	b.referrals.add(made(b.s, r, now))
	return reply{status: http.StatusCreated, body: map[string]any{"data": b.resource(r)}}
}

// resource is how a referral looks from outside.
func (b *blocks) resource(r *blocksReferral) map[string]any {
	var attributes any = r.blocksAttributes
	if b.opts.SDKNames {
		raw, err := json.Marshal(attributes)
		var all map[string]any
		if err == nil {
			err = json.Unmarshal(raw, &all)
		}
		if err != nil { // our own types only
			panic("sandbox: " + err.Error())
		}
		for name, sdk := range blocksSDK {
			all[sdk] = all[name]
			delete(all, name)
		}
		attributes = all
	}
	return map[string]any{"id": r.UniqueID, "type": "referral", "attributes": attributes}
}

func (b *blocks) getReferral(path blocksPath) reply {
	now := time.Now()
	for _, row := range b.referrals.find(key("id", &path.id)) {
		if r := row.v; r == b.find(path) && row.shows(now) {
			return reply{status: http.StatusOK, body: map[string]any{"data": b.resource(r)}}
		}
	}
	return b.failure(http.StatusNotFound, "No such referral")
}

func (b *blocks) updateReferral(req *request, path blocksPath) reply {
	in, violation := blocksFields[api.ReferralUpdate](req, "status", "reward_status", "reward_amount", "referrer_name",
		"referred_name", "source", "metadata")
	if violation != "" {
		return b.refuse(req, violation, "The request is invalid: "+violation)
	}
	r := b.find(path)
	if r == nil {
		return b.failure(http.StatusNotFound, "No such referral")
	}
	b.effect(req, r.ReferredEmail, r.UniqueID)
	if in.Status != nil {
		r.Status = string(*in.Status)
		if r.Status == "converted" && r.ConvertedAt == nil {
			r.ConvertedAt = ptr(time.Now().UTC().Format(blocksTime))
		}
	}
	if in.RewardStatus != nil {
		r.RewardStatus = string(*in.RewardStatus)
	}
	r.RewardAmount = cmp.Or(in.RewardAmount, r.RewardAmount)
	r.ReferrerName = cmp.Or(in.ReferrerName, r.ReferrerName)
	r.ReferredName = cmp.Or(in.ReferredName, r.ReferredName)
	r.Source = cmp.Or(in.Source, r.Source)
	if in.Metadata != nil && !b.opts.NoMetadata {
		r.Metadata = in.Metadata
	}
	return reply{status: http.StatusOK, body: map[string]any{"data": b.resource(r)}}
}

func (b *blocks) deleteReferral(req *request, path blocksPath) reply {
	r := b.find(path)
	if r == nil {
		return b.failure(http.StatusNotFound, "No such referral")
	}
	b.effect(req, r.ReferredEmail, r.UniqueID)
	r.deleted = true
	return reply{status: http.StatusNoContent}
}

func (b *blocks) listReferrals(req *request, path blocksPath) reply {
	q, now := req.URL.Query(), time.Now()
	status, referrer := q.Get("status"), q.Get("referrer_unique_id")
	var all []*blocksReferral
	for _, row := range b.referrals.rows {
		r := row.v
		if r.form == path.form && !r.deleted && row.shows(now) &&
			(status == "" || r.Status == status) && (referrer == "" || value(r.ReferrerUniqueID) == referrer) {
			all = append(all, r)
		}
	}
	oldestFirst := b.opts.OldestFirst
	switch q.Get("sort") {
	case "created_at":
		oldestFirst = true
	case "-created_at":
		oldestFirst = false
	}
	if !oldestFirst {
		slices.Reverse(all)
	}
	return blocksPage(b, q, all, b.resource)
}

func (b *blocks) listSubscriptions(req *request) reply {
	return blocksPage(b, req.URL.Query(), b.subscriptions, func(s api.SubscriptionResource) api.SubscriptionResource { return s })
}

func (b *blocks) getSubscription(path blocksPath) reply {
	for _, s := range b.subscriptions {
		if s.Id == path.id {
			return reply{status: http.StatusOK, body: api.SubscriptionDocument{Data: s}}
		}
	}
	return b.failure(http.StatusNotFound, "No such subscription")
}

// blocksPage cuts out the page that is asked for. A page beyond the last is empty; a size beyond the
// largest is cut down.
func blocksPage[T, R any](b *blocks, q url.Values, all []T, show func(T) R) reply {
	size, number := blocksRecords, 1
	if n, err := strconv.Atoi(q.Get("records")); err == nil && n > 0 {
		size = n
	}
	if n, err := strconv.Atoi(q.Get("page")); err == nil && n > 0 {
		number = n
	}
	size = min(size, b.opts.MaxRecords)
	pages := (len(all) + size - 1) / size
	data := []R{}
	if number <= pages {
		from := (number - 1) * size
		for _, v := range all[from:min(from+size, len(all))] {
			data = append(data, show(v))
		}
	}
	meta := map[string]any{"totalPages": pages, "totalRecords": len(all)}
	if b.opts.SDKNames {
		meta = map[string]any{"total_pages": pages, "total_count": len(all)}
	}
	return reply{status: http.StatusOK, body: map[string]any{"data": data, "meta": meta}}
}
