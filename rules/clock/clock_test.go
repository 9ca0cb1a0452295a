package clock

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// places are looked at around each of their transitions in the years given; 2026 and 2027 where none are.
// The others have none in those years and had remarkable ones before.
var places = []struct {
	name string
	from int // first year
	to   int // last year
	want int // transitions
}{
	{"Africa/Cairo", 2026, 2027, 4},
	{"Africa/Casablanca", 2026, 2027, 4}, // puts clocks back for Ramadan
	{"America/Asuncion", 2023, 2024, 4},
	{"America/Havana", 2026, 2027, 4},
	{"America/New_York", 2026, 2027, 4},
	{"America/Nuuk", 2026, 2027, 4},      // on the evening of the day before
	{"America/Santiago", 2026, 2027, 4},  // at midnight
	{"America/Sao_Paulo", 2017, 2019, 5}, // at midnight
	{"America/St_Johns", 2026, 2027, 4},
	{"Antarctica/Troll", 2026, 2027, 4},    // by two hours
	{"Asia/Beirut", 2026, 2027, 4},         // at midnight
	{"Asia/Jerusalem", 2026, 2027, 4},      // on Fridays
	{"Australia/Lord_Howe", 2026, 2027, 4}, // by half an hour
	{"Europe/Berlin", 2026, 2027, 4},
	{"Europe/Lisbon", 2026, 2027, 4},
	{"Pacific/Apia", 2010, 2012, 6}, // lost the 30th of December 2011
	{"Pacific/Chatham", 2026, 2027, 4},
	{"Asia/Pyongyang", 2015, 2018, 2}, // by half an hour, for good
}

// lines are matched by the library in [Cron] and by hand in the oracle.
var lines = []struct {
	text    string
	matches func(w time.Time) bool
}{
	{"* * * * *", func(time.Time) bool { return true }},
	{"0 0 * * *", at(0, 0)},
	{"30 1 * * *", at(1, 30)},
	{"30 2 * * *", at(2, 30)},
	{"15 3 * * *", at(3, 15)},
	{"30 23 * * *", at(23, 30)},
	{"0 0 * * 7", func(w time.Time) bool { return at(0, 0)(w) && w.Weekday() == time.Sunday }},
	{"0 9 * * TUE", func(w time.Time) bool { return at(9, 0)(w) && w.Weekday() == time.Tuesday }},
	{"*/20 * * * 5-7", func(w time.Time) bool {
		return w.Minute()%20 == 0 && (w.Weekday() == time.Sunday || w.Weekday() >= time.Friday)
	}},
	{"@hourly", func(w time.Time) bool { return w.Minute() == 0 }},
	{"0 1,2 28-31 3,10 *", func(w time.Time) bool {
		return w.Minute() == 0 && (w.Hour() == 1 || w.Hour() == 2) && w.Day() >= 28 && (w.Month() == 3 || w.Month() == 10)
	}},
}

func at(h, m int) func(time.Time) bool {
	return func(w time.Time) bool { return w.Hour() == h && w.Minute() == m }
}

var windows = []string{"mon-fri 09:00-17:00", "daily 22:00-06:00", "daily 02:15-02:45", "sat,sun 00:00-24:00", "sun 01:30-03:30", "fri-sun 23:45-00:15", "daily 00:00-00:30"}

func parseWindow(t testing.TB, text string) Window {
	t.Helper()
	days, hours, _ := strings.Cut(text, " ")
	from, to, _ := strings.Cut(hours, "-")
	w := Window{}
	var err error
	if w.Days, err = ParseDays(days); err != nil {
		t.Fatal(err)
	}
	if w.From, err = ParseTimeOfDay(from); err != nil {
		t.Fatal(err)
	}
	if w.To, err = ParseTimeOfDay(to); err != nil {
		t.Fatal(err)
	}
	return w
}

// clockFace is what the clock on the wall shows, read off its face; it shares nothing with [wall].
func clockFace(t time.Time, loc *time.Location) time.Time {
	l := t.In(loc)
	return time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), l.Second(), 0, time.UTC)
}

// inside says by the face of the clock whether a window is open.
func inside(w Window, face time.Time) bool {
	m := TimeOfDay(face.Hour()*60 + face.Minute())
	yesterday := face.AddDate(0, 0, -1).Weekday()
	if w.From < w.To {
		return w.Days.Has(face.Weekday()) && m >= w.From && m < w.To
	}
	return w.Days.Has(face.Weekday()) && m >= w.From || w.Days.Has(yesterday) && m < w.To
}

// transitions finds the instants at which a zone's offset changes, by looking at every minute.
func transitions(loc *time.Location, from, to int) (out []time.Time) {
	t := time.Date(from, 1, 1, 0, 0, 0, 0, time.UTC)
	_, was := t.In(loc).Zone()
	for ; t.Year() <= to; t = t.Add(time.Minute) {
		if _, is := t.In(loc).Zone(); is != was {
			out, was = append(out, t), is
		}
	}
	return out
}

// Every transition is walked over minute by minute with the clock on the wall in view: what the walk
// sees is what Next and First must say.
func TestEveryTransition(t *testing.T) {
	compared := 0
	for _, z := range places {
		loc, err := time.LoadLocation(z.name)
		if err != nil {
			t.Fatal(err)
		}
		changes := transitions(loc, z.from, z.to)
		if len(changes) != z.want {
			t.Errorf("%s has %d transitions from %d to %d, want %d: %v", z.name, len(changes), z.from, z.to, z.want, changes)
		}
		for _, change := range changes {
			begin, end := change.Add(-36*time.Hour), change.Add(36*time.Hour)
			for _, l := range lines {
				compared += walkCron(t, loc, l.text, l.matches, begin, end)
			}
			for _, w := range windows {
				compared += walkWindow(t, loc, parseWindow(t, w), begin, end)
			}
		}
	}
	t.Logf("%d answers compared over %d zones", compared, len(places))
}

// walkCron compares Next with a walk: a line matches at the first instant at which the clock shows a
// time that it names, or has gone past one that it never showed.
func walkCron(t *testing.T, loc *time.Location, text string, matches func(time.Time) bool, begin, end time.Time) (n int) {
	t.Helper()
	c, err := ParseCron(text)
	if err != nil {
		t.Fatal(err)
	}
	var fires []time.Time
	shown := clockFace(begin, loc)
	for now := begin.Add(-24 * time.Hour); now.Before(begin); now = now.Add(time.Minute) {
		if f := clockFace(now, loc); f.After(shown) {
			shown = f
		}
	}
	for now := begin.Add(time.Minute); now.Before(end); now = now.Add(time.Minute) {
		face, hit := clockFace(now, loc), false
		for shown.Before(face) {
			shown = shown.Add(time.Minute)
			hit = hit || matches(shown)
		}
		if hit {
			fires = append(fires, now)
		}
	}
	i := 0
	for now := begin; now.Before(end); now = now.Add(7 * time.Minute) {
		for i < len(fires) && !fires[i].After(now) {
			i++
		}
		if i == len(fires) {
			break
		}
		n++
		if got := c.Next(now, loc); !got.Equal(fires[i]) {
			t.Fatalf("%s: %q after %s = %s, want %s", loc, text, now.In(loc), got.In(loc), fires[i].In(loc))
		}
	}
	return n
}

func walkWindow(t *testing.T, loc *time.Location, w Window, begin, end time.Time) (n int) {
	t.Helper()
	open := make([]bool, 0, int(end.Sub(begin)/time.Minute))
	for now := begin; now.Before(end); now = now.Add(time.Minute) {
		open = append(open, inside(w, clockFace(now, loc)))
	}
	next := -1
	for i := len(open) - 1; i >= 0; i-- {
		now := begin.Add(time.Duration(i) * time.Minute)
		if open[i] {
			next = i
		}
		if got := w.Contains(now, loc); got != open[i] {
			t.Fatalf("%s: %s contains %s: %v, want %v", loc, w, now.In(loc), got, open[i])
		}
		if next < 0 {
			continue
		}
		n++
		if got, want := w.First(now, loc), begin.Add(time.Duration(next)*time.Minute); !got.Equal(want) {
			t.Fatalf("%s: %s from %s on begins at %s, want %s", loc, w, now.In(loc), got.In(loc), want.In(loc))
		}
	}
	return n
}

// TestProperties: never twice for one local time, never inside a closed window, never before its time.
func TestProperties(t *testing.T) {
	var locations []*time.Location
	for _, z := range places {
		loc, err := time.LoadLocation(z.name)
		if err != nil {
			t.Fatal(err)
		}
		locations = append(locations, loc)
	}
	rapid.Check(t, func(t *rapid.T) {
		loc := rapid.SampledFrom(locations).Draw(t, "zone")
		part := func(name string, lo, hi int) string {
			if rapid.Bool().Draw(t, name+" any") {
				return "*"
			}
			return fmt.Sprint(rapid.IntRange(lo, hi).Draw(t, name))
		}
		text := strings.Join([]string{part("minute", 0, 59), part("hour", 0, 23), "*", "*", part("weekday", 0, 7)}, " ")
		c, err := ParseCron(text)
		if err != nil {
			t.Fatal(err)
		}
		w := Window{Days: Days(rapid.IntRange(1, 127).Draw(t, "days")), From: TimeOfDay(rapid.IntRange(0, 1439).Draw(t, "from")), To: TimeOfDay(rapid.IntRange(1, 1440).Draw(t, "to"))}
		now := time.Unix(rapid.Int64Range(1262304000, 1893456000).Draw(t, "now"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")) // 2010 to 2030
		seen := map[time.Time]bool{}
		for range 40 {
			next := c.Next(now, loc)
			if !next.After(now) {
				t.Fatalf("%q after %s = %s", text, now, next)
			}
			if face := clockFace(next, loc); seen[face] {
				t.Fatalf("%q matches twice at %s", text, face)
			} else {
				seen[face] = true
			}
			in := w.First(next, loc)
			if in.Before(next) || !inside(w, clockFace(in, loc)) || !w.Contains(in, loc) {
				t.Fatalf("%s from %s on begins at %s", w, next.In(loc), in.In(loc))
			}
			now = next
		}
	})
}

func TestParseCronRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "is empty",
		"   ":                        "is empty",
		"0 9 * *":                    "this has 4",
		"0 0 9 * * TUE":              "this has 6",
		"TZ=Europe/Berlin 0 9 * * *": "set zone on the sequence",
		"TZ=0":                       "set zone",
		"CRON_TZ=UTC":                "set zone",
		"@every 2h":                  "write it as after",
		"@Every 2h":                  "write it as after",
		"@reboot":                    "is not known",
		"60 9 * * *":                 "the minute is 60; it takes 0 to 59",
		"0 24 * * *":                 "the hour is 24",
		"0 9 0 * *":                  "the day of the month is 0",
		"0 9 * 13 *":                 "the month is 13",
		"0 9 * * 8":                  "the weekday is 8",
		"0 9 * * Tuesday":            "the weekday is Tuesday",
		"0 9 * * 5-1":                "the weekday is 5-1",
		"*/0 * * * *":                "the minute is */0",
		"0 9 30 2 *":                 "never happens",
		"0 9 31 4,6 *":               "never happens",
		"a b c d e":                  "the minute is a",
	} {
		if c, err := ParseCron(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseCron(%q) = %v, %v; want an error with %q", text, c, err, want)
		}
	}
}

func TestParseCronAccepts(t *testing.T) {
	start := time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC) // a Friday
	for text, want := range map[string]time.Time{
		"0 9 * * TUE":    time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC),
		" 0  9 * * tue ": time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC),
		"0 9 * * 7":      time.Date(2026, 3, 8, 9, 0, 0, 0, time.UTC),
		"0 9 * * 6-7":    time.Date(2026, 3, 7, 9, 0, 0, 0, time.UTC),
		"0 9 * * SUN,2":  time.Date(2026, 3, 8, 9, 0, 0, 0, time.UTC),
		"0 9 * * 1-7/6":  time.Date(2026, 3, 8, 9, 0, 0, 0, time.UTC),
		"0 9 29 2 *":     time.Date(2028, 2, 29, 9, 0, 0, 0, time.UTC),
		"0 10 * * *":     time.Date(2026, 3, 7, 10, 0, 0, 0, time.UTC), // strictly after
		"@monthly":       time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC),
		"0 9 13 * FRI":   time.Date(2026, 3, 13, 9, 0, 0, 0, time.UTC),
	} {
		c, err := ParseCron(text)
		if err != nil {
			t.Errorf("ParseCron(%q): %v", text, err)
			continue
		}
		if got := c.Next(start, time.UTC); !got.Equal(want) {
			t.Errorf("%q after %s = %s, want %s", text, start, got, want)
		}
		if both := strings.Contains(text, "13"); c.BothDays() != both {
			t.Errorf("%q: BothDays = %v, want %v", text, c.BothDays(), both)
		}
	}
	leap, _ := ParseCron("0 9 29 2 *")
	if got, want := leap.Next(time.Date(2096, 3, 1, 0, 0, 0, 0, time.UTC), time.UTC), time.Date(2104, 2, 29, 9, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("the leap day after 2096 = %s, want %s", got, want)
	}
}

func TestParseDays(t *testing.T) {
	for text, want := range map[string]string{
		"mon-fri": "mon-fri", "Sat,Sun": "sat,sun", "mon": "mon", "daily": "daily", "fri-mon": "mon,fri,sat,sun", "monday - wednesday": "mon,tue,wed", "sun-sat": "daily",
	} {
		if d, err := ParseDays(text); err != nil || d.String() != want {
			t.Errorf("ParseDays(%q) = %s, %v; want %s", text, d, err, want)
		}
	}
	for _, text := range []string{"", "montag", "mon-", "mon,,tue", "1-5", "weekdays"} {
		if d, err := ParseDays(text); err == nil {
			t.Errorf("ParseDays(%q) = %s, want an error", text, d)
		}
	}
	for _, text := range []string{"", "9", "9:0", "24:01", "25:00", "09:60", "09:00:00", "-1:00", "9am"} {
		if d, err := ParseTimeOfDay(text); err == nil {
			t.Errorf("ParseTimeOfDay(%q) = %s, want an error", text, d)
		}
	}
}

func FuzzParseCron(f *testing.F) {
	for _, l := range lines {
		f.Add(l.text)
	}
	f.Add("TZ=0")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCron(text)
		if err != nil {
			return
		}
		after := time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
		if next := c.Next(after, time.UTC); !next.After(after) {
			t.Errorf("%q: Next = %s", text, next)
		}
		if again, err := ParseCron(c.String()); err != nil || again.String() != c.String() {
			t.Errorf("%q reads back as %v, %v", c, again, err)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	c, err := ParseCron("0 9 * * TUE")
	if err != nil {
		b.Fatal(err)
	}
	loc, err := time.LoadLocation("America/New_York")
	if err != nil {
		b.Fatal(err)
	}
	now := time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	for b.Loop() {
		c.Next(now, loc)
	}
}
