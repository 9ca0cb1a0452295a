package scoring

import (
	"strings"
	_ "time/tzdata" // the zones below must load on machines without a time zone database
)

var zones = readZones()

func readZones() map[string]string {
	m := make(map[string]string)
	for line := range tableLines("zones.txt") {
		code, zone, _ := strings.Cut(line, " ")
		m[code] = strings.TrimSpace(zone)
	}
	return m
}

// ZoneOfCountry returns the IANA zone of an ISO 3166-1 two-letter code in any case; where a country
// has several zones, the one in which most of its people live. It returns "" for an unknown code.
func ZoneOfCountry(code string) string {
	if code = strings.TrimSpace(code); len(code) != 2 {
		return ""
	}
	return zones[strings.ToUpper(code)]
}
