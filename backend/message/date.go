package message

import (
	"strconv"
	"strings"
	"time"
)

// The zones with names of RFC 5322 4.3, in hours. Other names are UTC.
var zones = map[string]int{"edt": -4, "est": -5, "cdt": -5, "cst": -6, "mdt": -6, "mst": -7, "pdt": -7, "pst": -8}

const months = "janfebmaraprmayjunjulaugsepoctnovdec"

// parseDate reads a date of RFC 5322 3.3, with the obsolete forms of 4.3, or of C's asctime: day, month,
// year, time and zone are told apart by how they look. It is zero if day, month or year is missing.
func parseDate(v string) time.Time {
	if t, err := time.Parse(time.RFC3339, v); err == nil {
		return t
	}
	var day, month, year, zone int
	var clock [3]int
	s := scanner(v)
	for s.space(); s != ""; s.space() {
		w := s.until(" \t,(")
		if w == "" {
			s.skip()
			continue
		}
		for _, w := range splitDate(w) {
			n, err := strconv.Atoi(w)
			switch {
			case strings.Contains(w, ":"):
				if !parseClock(w, &clock) {
					return time.Time{}
				}
			case w[0] == '+' || w[0] == '-':
				if err == nil && len(w) == 5 && max(n, -n)%100 < 60 {
					zone = n/100*3600 + n%100*60
				}
			case err == nil && day == 0 && len(w) <= 2:
				day = n
			case err == nil && year == 0:
				if year = n; len(w) <= 2 && n < 50 { // RFC 5322 4.3
					year += 2000
				} else if len(w) <= 3 {
					year += 1900
				}
			case err != nil && len(w) >= 3:
				w = strings.ToLower(w)
				if h, ok := zones[w]; ok {
					zone = h * 3600
				} else if i := strings.Index(months, w[:3]); i >= 0 && i%3 == 0 && month == 0 {
					month = i/3 + 1
				}
			}
		}
	}
	midnight := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if month == 0 || year < 1 || year > 9999 || day < 1 || midnight.Day() != day {
		return time.Time{}
	}
	loc := time.UTC
	if zone != 0 {
		loc = time.FixedZone("", zone)
	}
	return time.Date(year, time.Month(month), day, clock[0], clock[1], clock[2], 0, loc)
}

// splitDate splits "1-Jan-2026".
func splitDate(w string) []string {
	if l := strings.Split(w, "-"); len(l) == 3 && l[0] != "" && l[1] != "" && l[2] != "" {
		return l
	}
	return []string{w}
}

// parseClock reads "hh:mm" or "hh:mm:ss"; there are leap seconds.
func parseClock(w string, clock *[3]int) bool {
	l := strings.Split(w, ":")
	if len(l) > 3 {
		return false
	}
	for i, limit := range []uint64{23, 59, 60}[:len(l)] {
		n, err := strconv.ParseUint(l[i], 10, 8)
		if err != nil || n > limit {
			return false
		}
		clock[i] = int(n)
	}
	return true
}
