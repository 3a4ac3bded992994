package ledger

import (
	"testing"

	"llm-gateway/domain"
)

// TestUnexplained: a charge follows from its lines, also where a request was served by two models, each at its
// own price.
func TestUnexplained(t *testing.T) {
	line := func(m domain.Meter, quantity int64, unit, version string) domain.Line {
		price := domain.MustAmount(unit)
		return domain.Line{Meter: m, Quantity: quantity, UnitPrice: price, Amount: price.Times(quantity), PriceVersion: version}
	}
	for _, c := range []struct {
		name    string
		lines   []domain.Line
		charged string
		want    string
	}{
		{"one price", []domain.Line{line(domain.Input, 820, "2", ""), line(domain.Output, 264, "3", "")}, "2432", ""},
		{"two prices", []domain.Line{line(domain.Input, 408, "2", ""), line(domain.Input, 412, "1", "b"), line(domain.Output, 264, "3", "b")}, "2020", ""},
		{"a line twice", []domain.Line{line(domain.Input, 410, "2", ""), line(domain.Input, 410, "2", ""), line(domain.Output, 264, "3", "")}, "2432", "the line input is there twice"},
		{"a line of another too little", []domain.Line{line(domain.Input, 408, "2", ""), line(domain.Input, 411, "1", "b"), line(domain.Output, 264, "3", "b")}, "2019",
			"the meter input says 820, its lines have 819"},
		{"a negative line", []domain.Line{line(domain.Input, 821, "2", ""), line(domain.Input, -1, "1", "b"), line(domain.Output, 264, "3", "")}, "2433", "the line input: a quantity of -1"},
		{"another sum", []domain.Line{line(domain.Input, 820, "2", ""), line(domain.Output, 264, "3", "")}, "2431", "the lines sum to 2432, charged is 2431"},
		{"no line", []domain.Line{line(domain.Input, 820, "2", "")}, "1640", "the meter output says 264, its lines have 0"},
	} {
		d := &domain.CommitData{Meters: domain.Meters{domain.Input: 820, domain.Output: 264}, Lines: c.lines}
		if got := unexplained(d, domain.MustAmount(c.charged)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
