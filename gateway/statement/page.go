package statement

import (
	_ "embed"
	"html/template"
	"strconv"
	"strings"
	"time"

	"llm-gateway/domain"
)

//go:embed page.html
var pageText string

// page escapes by itself whatever it is given.
var page = template.Must(template.New("statement").Funcs(template.FuncMap{
	"money": money, "count": count, "clock": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"words": func(r domain.RefundReason) string { return strings.ReplaceAll(string(r), "_", " ") },
}).Parse(pageText))

// view is what the page shows.
type view struct {
	*domain.Statement
	Title       string // November 2026
	First, Last string // the month's days, as its zone dates them
	Movements   []movements
}

// movements are one list of movements and its sum.
type movements struct {
	Name  string
	Lines []domain.StatementLine
	Sum   domain.Amount
}

func viewOf(s *domain.Statement) view {
	v := view{Statement: s, Title: s.Month, First: csvDate(s, s.From), Last: csvDate(s, s.To.Add(-time.Microsecond))}
	if month, err := time.Parse("2006-01", s.Month); err == nil {
		v.Title = month.Format("January 2006")
	}
	for _, m := range []movements{{"Credits", s.Credits, s.Sums.Credits}, {"Debits", s.Debits, s.Sums.Debits},
		{"Corrections", s.Corrections, s.Sums.Corrections}} {
		if len(m.Lines) > 0 {
			v.Movements = append(v.Movements, m)
		}
	}
	return v
}

// leastDecimals is how many decimals the page shows at least.
const leastDecimals = 2

// money writes an amount with all its digits, two decimals or more, groups of three and a minus sign.
func money(a domain.Amount) string {
	text, negative := strings.CutPrefix(a.String(), "-")
	whole, fraction, _ := strings.Cut(text, ".")
	fraction += strings.Repeat("0", max(0, leastDecimals-len(fraction)))
	if negative {
		return "\u2212" + grouped(whole) + "." + fraction
	}
	return grouped(whole) + "." + fraction
}

func count(n int64) string { return grouped(strconv.FormatInt(n, 10)) }

// grouped sets digits in groups of three.
func grouped(digits string) string {
	var b strings.Builder
	for i, c := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}
