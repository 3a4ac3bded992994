package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"llm-gateway/domain"
)

const (
	// defaultStatsSpan is how far back statistics go where nothing else is asked for.
	defaultStatsSpan = 30 * 24 * time.Hour
	// maxHourlySpan and maxDailySpan bound the rows of an answer: 8,784 hours, 3,660 days. Models and
	// providers are few over any time.
	maxHourlySpan = 366 * 24 * time.Hour
	maxDailySpan  = 3660 * 24 * time.Hour
	// firstStatsYear and lastStatsYear keep times within what JSON and databases have a form for.
	firstStatsYear = 1970
	lastStatsYear  = 9998
)

// consumption is what one or many charged requests used and cost.
type consumption struct {
	Requests int64         `json:"requests"`
	Meters   domain.Meters `json:"meters"`
	Amount   number        `json:"amount"`
}

// statsRow is one group: one of the first three says which.
type statsRow struct {
	Start    *time.Time `json:"start,omitempty"`
	Model    *string    `json:"model,omitempty"`
	Provider *string    `json:"provider,omitempty"`
	consumption
}

type statsAnswer struct {
	UserID   string            `json:"user_id"`
	Currency string            `json:"currency"`
	From     time.Time         `json:"from"`
	To       time.Time         `json:"to"`
	GroupBy  domain.StatsGroup `json:"group_by"`
	Data     []statsRow        `json:"data"`
	Total    consumption       `json:"total"`
	reading
}

// stats is GET /billing/stats?from&to&group_by.
func (g *Gateway) stats(c *gin.Context) error {
	q, err := g.statsQuery(c, "hour, day, model or provider")
	if err != nil {
		return err
	}
	atLeast, err := g.atLeast(c)
	if err != nil {
		return err
	}
	who := identityOf(c)
	rows, r, err := g.projections.Stats(c.Request.Context(), who.Account, q, atLeast)
	if err != nil {
		return ledgerError(fmt.Errorf("reading the statistics: %w", err))
	}
	a := statsAnswer{UserID: who.Account, Currency: g.currency, From: q.From, To: q.To, GroupBy: q.Group,
		Data: make([]statsRow, len(rows)), reading: g.reading(c, r)}
	var total domain.Consumption
	for i := range rows {
		total = total.Add(rows[i].Consumption)
		a.Data[i] = statsRowOf(q.Group, &rows[i])
	}
	a.Total = consumptionOf(total)
	c.JSON(http.StatusOK, a)
	return nil
}

func statsRowOf(group domain.StatsGroup, r *domain.StatsRow) statsRow {
	out := statsRow{consumption: consumptionOf(r.Consumption)}
	switch group {
	case domain.StatsByModel:
		out.Model = &r.Name
	case domain.StatsByProvider:
		out.Provider = &r.Name
	default:
		start := r.Start.UTC()
		out.Start = &start
	}
	return out
}

func consumptionOf(c domain.Consumption) consumption {
	return consumption{Requests: c.Requests, Meters: c.Meters, Amount: number(c.Amount)}
}

// statsQuery reads what is asked for, in whole hours: nothing that was asked for is left out. groups names
// those that there are, as a person reads them.
func (g *Gateway) statsQuery(c *gin.Context, groups string) (domain.StatsQuery, error) {
	q := domain.StatsQuery{Group: domain.StatsGroup(c.Query("group_by"))}
	known := strings.FieldsFunc(strings.Replace(groups, " or ", ",", 1), func(r rune) bool { return r == ',' || r == ' ' })
	if q.Group == "" {
		q.Group = domain.StatsByDay
	}
	if !slices.Contains(known, string(q.Group)) {
		return q, invalid("invalid_value", "group_by", "`group_by` must be "+groups+".")
	}
	thisHour := g.now().UTC().Truncate(time.Hour)
	to, err := queryTime(c, "to", thisHour.Add(time.Hour))
	if err != nil {
		return q, err
	}
	if q.To = to.Truncate(time.Hour); q.To.Before(to) {
		q.To = q.To.Add(time.Hour)
	}
	from, err := queryTime(c, "from", q.To.Add(-defaultStatsSpan))
	if err != nil {
		return q, err
	}
	q.From = from.Truncate(time.Hour)
	return q, checkSpan(&q, from.Before(to))
}

// checkSpan refuses a time that ends before it begins, or that has too many groups.
func checkSpan(q *domain.StatsQuery, forward bool) error {
	most := time.Duration(0)
	switch q.Group {
	case domain.StatsByHour:
		most = maxHourlySpan
	case domain.StatsByDay:
		most = maxDailySpan
	}
	switch {
	case !forward:
		return invalid("invalid_value", "from", "`from` must be before `to`.")
	case most > 0 && q.To.Sub(q.From) > most:
		return invalid("invalid_value", "from", fmt.Sprintf("By %s, `from` and `to` may be at most %d days apart.",
			q.Group, most/(24*time.Hour)))
	}
	return nil
}

// queryTime reads a point in time: RFC 3339, or a date, which is its midnight UTC.
func queryTime(c *gin.Context, name string, otherwise time.Time) (time.Time, error) {
	text := c.Query(name)
	if text == "" {
		return otherwise, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t, err = time.Parse(time.DateOnly, text)
	}
	if t = t.UTC(); err != nil || t.Year() < firstStatsYear || t.Year() > lastStatsYear {
		return t, invalid("invalid_value", name, "`"+name+"` must be a time like 2026-01-31T12:00:00Z, or a date like 2026-01-31.")
	}
	return t, nil
}
