package domain

import (
	"fmt"
	"time"
)

// StartText is how a book writes when a price begins: a day, where that is midnight UTC, else a time to the
// second; "" for the zero time, which is since launch.
func StartText(t time.Time) string {
	switch {
	case t.IsZero():
		return ""
	case t.Equal(t.UTC().Truncate(24 * time.Hour)):
		return t.UTC().Format(time.DateOnly)
	}
	return t.UTC().Format(time.RFC3339)
}

// ParseStart reads what StartText writes, and times of any offset.
func ParseStart(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		t, err = time.Parse(time.RFC3339, text)
	}
	if t = t.UTC(); err != nil || t.IsZero() || !t.Equal(t.Truncate(time.Second)) { // 0001-01-01 would silently mean "since launch"
		return time.Time{}, fmt.Errorf("%.40q is not YYYY-MM-DD, nor a time in whole seconds like 2026-05-01T12:00:00Z", text)
	}
	return t, nil
}

// startName is StartText, and launch for the zero time.
func startName(t time.Time) string {
	if t.IsZero() {
		return "launch"
	}
	return StartText(t)
}
