package connectors

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/lodestonehq/lodestone"
)

// AddressKind is the kind of a [Whose] that is the address itself.
const AddressKind = "address"

// Knower is a connector whose provider can say whose address stands behind an id.
type Knower interface {
	// Whose asks for the addresses of those for whom an id of a kind stands; kind and id are of a
	// [Whose], beside holds the values next to it. None: the provider says that there is nobody. The
	// error is [ErrUntold] where its answers do not say it, else a [*Fault] of the reading.
	Whose(ctx context.Context, kind, id string, beside map[string]any) ([]lodestone.Email, error)
}

// ErrUntold is returned where the provider cannot say whose an id is.
var ErrUntold = errors.New("the provider does not tell whose that is")

// Named is one value among the arguments of a call that stands for a person without being an address.
type Named struct {
	Path   string            // as in items[0].query.primaryInfo.memberId
	Kind   string            // what it is an id of
	Emails []lodestone.Email // whose it is; none: nobody's, or Untold
	Untold bool              // the provider cannot say

	id     string
	beside map[string]any
}

// Whom finds out for whom the arguments of a call stand that are ids. The error is [ErrNoOperation], or
// the [*Fault] of a reading that failed: then it is not known.
func (a *Account) Whom(ctx context.Context, operation string, arguments map[string]any) ([]Named, error) {
	e, err := a.Endpoint(operation)
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(e.named(arguments), func(n Named) bool { return n.Kind == AddressKind })
	knower, _ := a.connector.(Knower)
	for i := range names {
		n := &names[i]
		if email, err := lodestone.ParseEmail(n.id); err == nil { // many providers take an address for an id
			n.Emails = []lodestone.Email{email}
			continue
		}
		if knower == nil {
			n.Untold = true
			continue
		}
		n.Emails, err = knower.Whose(hide(ctx, "", nil), n.Kind, n.id, n.beside)
		switch {
		case errors.Is(err, ErrUntold):
			n.Emails, n.Untold = nil, true
		case err != nil:
			return nil, a.fault(ctx, operation, Failed, lodestone.ReasonCheckFailed, fmt.Errorf("whose %s is, could not be read: %w", n.Path, err))
		}
	}
	return names, nil
}

// named gathers the values that [Endpoint.Whose] points at, in the order of their paths.
func (e *Endpoint) named(arguments map[string]any) (list []Named) {
	for _, w := range e.Whose {
		var walk func(v any, beside map[string]any, path string, left []string)
		walk = func(v any, beside map[string]any, path string, left []string) {
			switch v := v.(type) {
			case []any:
				for i, x := range v {
					walk(x, beside, path+"["+strconv.Itoa(i)+"]", left)
				}
			case map[string]any:
				if len(left) > 0 {
					walk(v[left[0]], v, strings.TrimPrefix(path+"."+left[0], "."), left[1:])
				}
			case nil:
			default:
				if id := strings.TrimSpace(scalar(v)); len(left) == 0 && id != "" {
					list = append(list, Named{Path: path, Kind: w.Kind, id: id, beside: beside})
				}
			}
		}
		walk(arguments, nil, "", strings.Split(w.Path, "."))
	}
	slices.SortStableFunc(list, func(a, b Named) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// Mine asks the provider whether an act is about its lead and nobody else, where it names somebody by an
// id: the gate clears the lead's address and no other. evidence says what was found, empty when nothing
// had to be asked. The error is a [*Fault]: of the class [Refused] when the act must not be sent, else of
// a reading that failed.
func (a *Account) Mine(ctx context.Context, act Act) (evidence string, err error) {
	e, err := a.Endpoint(act.Operation)
	if err != nil || e.Effect == lodestone.EffectRead || len(e.Whose) == 0 {
		return "", nil // what only reads may name anybody; verbs are about the lead by the connector's own rule
	}
	if err := a.admits(act); err != nil {
		return "", err
	}
	names, err := a.Whom(ctx, act.Operation, act.Parameters)
	if err != nil {
		return "", err
	}
	var said []string
	for _, n := range names {
		switch {
		case n.Untold:
			return "", a.t.Reject(act.Operation, n.Path+" stands for a person, and the provider does not tell for whom; a step acts on its lead and on nobody else")
		case slices.ContainsFunc(n.Emails, func(x lodestone.Email) bool { return x != act.Email }):
			return "", a.t.Reject(act.Operation, n.Path+" stands for somebody else than the lead; a step acts on its lead and on nobody else")
		case len(n.Emails) == 0:
			said = append(said, n.Path+" stands for nobody yet")
		default:
			said = append(said, n.Path+" is the lead's own")
		}
	}
	return strings.Join(said, ", "), nil
}

// admits refuses an act that is not about its lead as far as that can be told without asking. Whoever
// refers is named by right: nobody writes to them on account of it. What only reads may name anybody.
func (a *Account) admits(act Act) error {
	if act.Operation == lodestone.VerbInvite || act.Operation == lodestone.VerbRefer {
		return nil // whom they are about is the connector's own matter, and the gate's
	}
	e, err := a.Endpoint(act.Operation)
	if err == nil && e.Effect == lodestone.EffectRead {
		return nil
	}
	if path := stranger("", act.Parameters, act.Email); path != "" {
		return a.t.Reject(act.Operation, path+" names another address than the lead's own")
	}
	if _, own := a.kind.Operation(act.Operation); err == nil && !own {
		if words := e.unnamed(act.Parameters); words != "" {
			return a.t.Reject(act.Operation, words)
		}
	}
	return nil
}

// stranger is the path of a text below v that is an address other than the lead's.
func stranger(path string, v any, lead lodestone.Email) string {
	switch v := v.(type) {
	case string:
		if other, err := lodestone.ParseEmail(v); err == nil && other != lead {
			return path
		}
	case []any:
		for i, x := range v {
			if p := stranger(path+"["+strconv.Itoa(i)+"]", x, lead); p != "" {
				return p
			}
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if strings.Contains(strings.ToLower(name), "referrer") {
				continue
			}
			if p := stranger(strings.TrimPrefix(path+"."+name, "."), v[name], lead); p != "" {
				return p
			}
		}
	}
	return ""
}

// unnamed says which part of a list does not say whom it is about. A provider acts on whatever one
// element its query finds, so that a query without a person may find anybody.
func (e *Endpoint) unnamed(arguments map[string]any) string {
	names := e.named(arguments)
	for _, arg := range e.Arguments {
		list, _ := arguments[arg.Name].([]any)
		if !slices.ContainsFunc(e.Whose, func(w Whose) bool { return strings.HasPrefix(w.Path, arg.Name+".") }) {
			continue
		}
		for i := range list {
			element := fmt.Sprintf("%s[%d]", arg.Name, i)
			if !slices.ContainsFunc(names, func(n Named) bool { return strings.HasPrefix(n.Path, element+".") }) {
				return element + " does not say whom it is about; name the lead, as in email: '${lead.email}'"
			}
		}
	}
	return ""
}
