package clock

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Cron is a cron line: minute, hour, day of the month, month, weekday. The zero value is none.
type Cron struct {
	text     string
	schedule cron.Schedule
	bothDays bool
}

// IsZero reports whether there is no line.
func (c Cron) IsZero() bool { return c.schedule == nil }

// String is the line with one blank between its fields.
func (c Cron) String() string { return c.text }

// BothDays reports whether day of the month and weekday are both restricted. Such a line matches when
// either of the two does, which surprises people.
func (c Cron) BothDays() bool { return c.bothDays }

var parser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// field is one of the five, with what it takes.
type field struct{ name, takes string }

var fields = [5]field{
	{"minute", "0 to 59"},
	{"hour", "0 to 23"},
	{"day of the month", "1 to 31"},
	{"month", "1 to 12 or JAN to DEC"},
	{"weekday", "0 to 7 (0 and 7 are Sunday) or SUN to SAT"},
}

const example = "as in 0 9 * * TUE (Tuesdays at 09:00)"

// ParseCron reads a cron line: five fields, or @hourly, @daily, @midnight, @weekly, @monthly, @yearly
// or @annually. Sunday is 0, 7 or SUN. The error says in plain words what to write instead; zones,
// @every and lines that never match are refused.
func ParseCron(text string) (c Cron, err error) {
	parts := strings.Fields(text)
	line := strings.Join(parts, " ")
	switch {
	case line == "":
		return Cron{}, fmt.Errorf("the cron line is empty; it has five fields: minute, hour, day of the month, month and weekday, %s", example)
	case strings.Contains(line, "="):
		return Cron{}, fmt.Errorf("a cron line cannot name a zone; set zone on the sequence, as in zone: Europe/Berlin")
	case strings.HasPrefix(strings.ToLower(line), "@every"):
		return Cron{}, fmt.Errorf("@every is elapsed time; write it as after, as in after: 2h")
	case strings.HasPrefix(line, "@"):
		schedule, err := parse(line)
		if err != nil {
			return Cron{}, fmt.Errorf("%s is not known; write @hourly, @daily, @weekly, @monthly or @yearly, or five fields, %s", line, example)
		}
		return Cron{text: line, schedule: schedule}, nil
	case len(parts) != len(fields):
		return Cron{}, fmt.Errorf("a cron line has five fields: minute, hour, day of the month, month and weekday, %s; this has %d", example, len(parts))
	}
	read := slices.Clone(parts)
	read[4] = sundays(read[4])
	for i := range fields {
		alone := []string{"*", "*", "*", "*", "*"}
		alone[i] = read[i]
		if _, err := parse(strings.Join(alone, " ")); err != nil {
			return Cron{}, fmt.Errorf("the %s is %s; it takes %s, * for every one, lists (1,3), ranges (1-5) and steps (*/2)", fields[i].name, parts[i], fields[i].takes)
		}
	}
	schedule, err := parse(strings.Join(read, " "))
	if err != nil {
		return Cron{}, fmt.Errorf("this is not a cron line; write five fields, %s", example)
	}
	c = Cron{text: line, schedule: schedule, bothDays: !every(parts[2]) && !every(parts[4])}
	if c.match(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Cron{}, fmt.Errorf("no year has such a day, so this never happens; mend the day of the month (%s) or the month (%s)", parts[2], parts[3])
	}
	return c, nil
}

// parse calls the library, which panics on some of what it does not understand.
func parse(line string) (s cron.Schedule, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not a cron line")
		}
	}()
	return parser.Parse(line)
}

// every reports whether a field restricts nothing, as the library sees it: */2 does.
func every(field string) bool {
	return slices.ContainsFunc(strings.Split(field, ","), func(item string) bool {
		item = strings.TrimSuffix(item, "/1")
		return item == "*" || item == "?"
	})
}

// sundays writes a weekday field without the 7, which the library does not know.
func sundays(text string) string {
	names := []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}
	number := func(s string) (int, bool) {
		if i := slices.Index(names, strings.ToUpper(s)); i >= 0 {
			return i, true
		}
		n, err := strconv.Atoi(s)
		return n, err == nil && n >= 0 && n <= 7
	}
	items := strings.Split(text, ",")
	for i, item := range items {
		span, by, stepped := strings.Cut(item, "/")
		from, to, ranged := strings.Cut(span, "-")
		if !ranged {
			to = from
		}
		step := 1
		if stepped {
			step, _ = strconv.Atoi(by)
		}
		lo, ok1 := number(from)
		hi, ok2 := number(to)
		if !ok1 || !ok2 || hi != 7 && lo != 7 || lo > hi || step < 1 || stepped && !ranged {
			continue // not about a 7, or a fault that the library will find
		}
		var days []string
		for d := lo; d <= hi; d += step {
			days = append(days, strconv.Itoa(d%7))
		}
		items[i] = strings.Join(days, ",")
	}
	return strings.Join(items, ",")
}

// match is the next match after a wall-clock time, zero when there is none.
func (c Cron) match(w time.Time) time.Time {
	// The library looks five years ahead, and the 29th of February may be eight years away.
	for range 3 {
		if next := c.schedule.Next(w); !next.IsZero() {
			return next
		}
		w = w.AddDate(4, 0, 0)
	}
	return time.Time{}
}

// Next is the first match strictly after a moment, by the clocks in loc. It is in UTC.
func (c Cron) Next(after time.Time, loc *time.Location) time.Time {
	next := c.match(furthest(after, loc))
	if next.IsZero() {
		return next
	}
	return instant(next, loc).UTC()
}
