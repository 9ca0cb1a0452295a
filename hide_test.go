package lodestone

import (
	"reflect"
	"strings"
	"testing"
)

func TestHideLinks(t *testing.T) {
	const token = "mE0gFzVY1bJ5n2Qm-8sN3_kq0pT7wXcR4uLaHdGfZyOiBvCxEjKlMnPq"
	for _, test := range []struct{ name, text, want string }{
		{"a link in a text", "Please: https://f.example/confirm/" + token + " Thanks", "Please: https://f.example/confirm/<link> Thanks"},
		{"two links", "https://f.example/confirm/" + token + " https://f.example/unsubscribe/" + token, "https://f.example/confirm/<link> https://f.example/unsubscribe/<link>"},
		{"slashes as some write them in JSON", `https:\/\/f.example\/confirm\/` + token + `"`, `https:\/\/f.example\/confirm\/<link>"`},
		{"a link within a URL", "?next=https%3A%2F%2Ff.example%2Funsubscribe%2F" + token, "?next=https%3A%2F%2Ff.example%2Funsubscribe%2F<link>"},
		{"no link of ours", "https://f.example/assets/" + token, "https://f.example/assets/" + token},
		{"a page of that name, which somebody wrote", "https://shop.example/unsubscribe/how-to-do-it-without-any-trouble", "https://shop.example/unsubscribe/how-to-do-it-without-any-trouble"},
		{"hidden already", "https://f.example/confirm/<link>", "https://f.example/confirm/<link>"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := HideLinks(test.text); got != test.want {
				t.Errorf("HideLinks(%s) = %s, want %s", test.text, got, test.want)
			}
		})
	}

	kept := map[string]any{"list": []any{map[string]any{"value": "https://f.example/confirm/" + token, "n": 7.0}}}
	e := Entry{Touchpoints: []TouchpointEntry{{Arguments: kept}}}
	e.HideLinks()
	want := map[string]any{"list": []any{map[string]any{"value": "https://f.example/confirm/<link>", "n": 7.0}}}
	old := Touchpoint{Parameters: map[string]any{"code": "A1", "meta": kept, "note": "see https://f.example/confirm/" + token}, Hidden: []string{"made"}}
	en := Enrollment{Touchpoint: &old}
	en.HideLinks()
	if got := old.Altered(); !reflect.DeepEqual(got, []string{"made", "meta", "note"}) {
		t.Errorf("Altered() = %v, want what was named and what holds a hidden link", got)
	}
	if got := e.Touchpoints[0].Arguments; !reflect.DeepEqual(got, want) {
		t.Errorf("an entry of an earlier version shows %v, want %v", got, want)
	}
}

func FuzzHideLinks(f *testing.F) {
	long := strings.Repeat("k", 49)
	for _, text := range []string{"confirm/" + long, "confirm/" + long + "k", "UNſUBSCRIBE%2F" + long + "-", "confirm/" + strings.Repeat("K", 50), "confirm/" + strings.Repeat("ſ", 49)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got, want := HideLinks(text), linkLike.ReplaceAllString(text, "${1}"+HiddenLink); got != want {
			t.Errorf("HideLinks(%q) = %q, want %q", text, got, want)
		}
	})
}
