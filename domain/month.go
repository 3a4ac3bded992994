package domain

import (
	"errors"
	"fmt"
	"time"
)

// ErrMonth is wrapped by the refusal of what is no month.
var ErrMonth = errors.New("not a month")

// The years that a Month may be in: what JSON and databases have a form for in any time zone.
const (
	firstMonthYear = 1970
	lastMonthYear  = 9998
)

// monthForm is how a month is written.
const monthForm = "2006-01"

// Month is a calendar month in a time zone: all instants from From on, and before To. To is From of the
// month that follows in the same zone, so that months have no gap and no overlap, whatever the clocks do.
type Month struct {
	Name     string // 2026-11
	Zone     *time.Location
	From, To time.Time // UTC, whole seconds
}

// ParseMonth reads a month like 2026-11; ErrMonth where it is none.
func ParseMonth(text string, zone *time.Location) (Month, error) {
	first, err := time.Parse(monthForm, text)
	if err != nil || first.Year() < firstMonthYear || first.Year() > lastMonthYear {
		return Month{}, fmt.Errorf("%w: a month is written like 2026-11, not %.40q", ErrMonth, text)
	}
	return Month{Name: text, Zone: zone, From: firstInstant(first, zone), To: firstInstant(first.AddDate(0, 1, 0), zone)}, nil
}

// farthestZone is above what any zone's clock has ever been from UTC.
const farthestZone = 16 * time.Hour

// firstInstant is the first instant at which a zone's calendar shows the date of day, or a later one. Between
// two changes of a zone's clock, midnight is where it always is; where the clocks are set at midnight there
// may be none, or two.
func firstInstant(day time.Time, zone *time.Location) time.Time {
	for t := day.Add(-farthestZone); ; {
		local := t.In(zone)
		_, offset := local.Zone()
		midnight := day.Add(-time.Duration(offset) * time.Second)
		if midnight.Before(t) {
			midnight = t
		}
		_, change := local.ZoneBounds()
		if change.IsZero() || midnight.Before(change) {
			return midnight
		}
		t = change.UTC()
	}
}

// Day is the date of an instant of the month in its zone. Where clocks were set back over midnight into the
// month before, it is the month's first day all the same.
func (m Month) Day(t time.Time) string {
	return max(t.In(m.Zone).Format(time.DateOnly), m.Name+"-01")
}
