package domain

import (
	"errors"
	"testing"
	"time"
)

func zone(t fataler, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return z
}

// TestParseMonth: where midnight is missing (Asuncion), or comes twice (Havana), or the clocks go back over
// it (St_Johns, one minute after), a month begins with the first second that shows its date.
func TestParseMonth(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ zone, month, from, to string }{
		{"UTC", "2026-11", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"},
		{"UTC", "2028-02", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"},
		{"Europe/Berlin", "2026-03", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"},
		{"Europe/Berlin", "2026-10", "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z"},
		{"Asia/Kolkata", "2026-12", "2026-11-30T18:30:00Z", "2026-12-31T18:30:00Z"},
		{"Pacific/Kiritimati", "2026-01", "2025-12-31T10:00:00Z", "2026-01-31T10:00:00Z"},
		{"America/Havana", "2026-11", "2026-11-01T04:00:00Z", "2026-12-01T05:00:00Z"},
		{"America/Asuncion", "2023-10", "2023-10-01T04:00:00Z", "2023-11-01T03:00:00Z"},
		{"America/St_Johns", "2009-10", "2009-10-01T02:30:00Z", "2009-11-01T02:30:00Z"},
		{"Pacific/Apia", "2011-12", "2011-12-01T10:00:00Z", "2011-12-31T10:00:00Z"},
		{"UTC", "1970-01", "1970-01-01T00:00:00Z", "1970-02-01T00:00:00Z"},
		{"UTC", "9998-12", "9998-12-01T00:00:00Z", "9999-01-01T00:00:00Z"},
	} {
		m, err := ParseMonth(c.month, zone(t, c.zone))
		if err != nil || m.From.Format(time.RFC3339) != c.from || m.To.Format(time.RFC3339) != c.to {
			t.Errorf("%s in %s is from %s to %s: %v", c.month, c.zone, m.From.Format(time.RFC3339), m.To.Format(time.RFC3339), err)
		}
	}
	for _, bad := range []string{"", "2026", "2026-13", "2026-00", "2026-1", "26-11", "2026-11-01", "1969-12", "9999-01", "2026-11 ", "٢٠٢٦-١١"} {
		if m, err := ParseMonth(bad, time.UTC); !errors.Is(err, ErrMonth) {
			t.Errorf("%q is %+v: %v", bad, m, err)
		}
	}
}

// TestMonthsMeet: in any zone the months have neither gap nor overlap, begin with their first day, and have
// all their days.
func TestMonthsMeet(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"UTC", "Europe/Berlin", "America/Havana", "America/Asuncion", "America/St_Johns", "Asia/Beirut", "Pacific/Apia",
		"Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu"} {
		z := zone(t, name)
		last := time.Time{}
		for month := time.Date(2005, 1, 1, 0, 0, 0, 0, time.UTC); month.Year() < 2028; month = month.AddDate(0, 1, 0) {
			m, err := ParseMonth(month.Format(monthForm), z)
			if err != nil {
				t.Fatal(err)
			}
			if !last.IsZero() && !m.From.Equal(last) {
				t.Errorf("%s in %s begins at %s, and the one before ends at %s", m.Name, name, m.From, last)
			}
			before := m.From.Add(-time.Microsecond).In(z).Format(time.DateOnly)
			if first := m.Day(m.From); first != m.Name+"-01" || before >= first {
				t.Errorf("%s in %s begins on %s, after %s", m.Name, name, first, before)
			}
			if end := m.Day(m.To.Add(-time.Microsecond)); end != month.AddDate(0, 1, -1).Format(time.DateOnly) {
				t.Errorf("%s in %s ends on %s", m.Name, name, end)
			}
			last = m.To
		}
	}
}

// TestDayAfterClocksWentBack: the hour that comes twice, and then shows the last day of the month before, is
// of the month all the same.
func TestDayAfterClocksWentBack(t *testing.T) {
	t.Parallel()
	m, err := ParseMonth("2009-11", zone(t, "America/St_Johns"))
	if err != nil {
		t.Fatal(err)
	}
	for _, later := range []time.Duration{0, time.Minute, 30 * time.Minute, time.Hour, 90 * time.Minute} {
		if day := m.Day(m.From.Add(later)); day != "2009-11-01" {
			t.Errorf("%s after it began it is %s", later, day)
		}
	}
}
