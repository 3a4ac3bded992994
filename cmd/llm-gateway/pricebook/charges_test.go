package pricebook

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"llm-gateway/domain"
)

// TestCharges runs testdata/charges.txt: what a usage costs at the built-in book's prices.
func TestCharges(t *testing.T) {
	t.Parallel()
	f, err := os.Open("testdata/charges.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cases := 0
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		cases++
		usage, want, _ := strings.Cut(line, " -> ")
		if got := answer(strings.Fields(usage)); !strings.HasPrefix(got+" ", want+" ") {
			t.Errorf("line %d: %s -> %s, want %s", n, usage, got, want)
		}
	}
	if err := lines.Err(); err != nil || cases < 30 {
		t.Errorf("%d cases, %v", cases, err)
	}
}

// answer charges `date model [tier=NAME] meter=count...`, or with `bound` as a further word bounds
// the input and output given, and says the amount or the error.
func answer(words []string) string {
	at, err := time.Parse(time.DateOnly, words[0])
	if err != nil {
		return err.Error()
	}
	_, v, err := Builtin().Lookup(words[1], at)
	if err != nil {
		return err.Error()
	}
	var m domain.Meters
	tier, bound := "", false
	for _, w := range words[2:] {
		name, value, _ := strings.Cut(w, "=")
		meter, err := domain.ParseMeter(name)
		switch {
		case name == "tier":
			tier = value
		case name == "bound":
			bound = true
		case err != nil:
			return err.Error()
		default:
			if m[meter], err = strconv.ParseInt(value, 10, 64); err != nil {
				return err.Error()
			}
		}
	}
	if bound {
		return boundOf(v, m, tier)
	}
	c, err := v.Charge(m, tier)
	if err != nil {
		return err.Error()
	}
	return c.Amount.String()
}

func boundOf(v *domain.PriceVersion, m domain.Meters, tier string) string {
	b, err := v.Bound(domain.Need{InputTokens: m[domain.Input] + m[domain.AudioIn], OutputTokens: m[domain.Output],
		AudioIn: m[domain.AudioIn] > 0, WebSearches: m[domain.WebSearch], ServiceTier: tier})
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(b.Amount)
}

// TestEveryModelCanBeCharged walks the whole book, future versions included: plain usage has a
// price, and the bound of the most that the model can do holds it.
func TestEveryModelCanBeCharged(t *testing.T) {
	t.Parallel()
	ids := map[string]bool{}
	for _, m := range Builtin().Models() {
		for i := range m.Versions {
			v := &m.Versions[i]
			if ids[v.ID] {
				t.Errorf("%s is not unique", v.ID)
			}
			ids[v.ID] = true
			usage := domain.Meters{domain.Input: m.Context - 1, domain.CachedInput: 1, domain.Requests: 1}
			need := domain.Need{InputTokens: m.Context}
			if m.Mode != domain.ModeEmbedding {
				usage[domain.Output], usage[domain.Reasoning] = m.OutputLimit()-1, 1
				need.OutputTokens = m.OutputLimit()
			}
			for _, tier := range []string{"", "flex", "priority"} {
				c, err := v.Charge(usage, tier)
				b, errBound := v.Bound(need)
				if err != nil || errBound != nil || b.Amount.Less(c.Amount) {
					t.Errorf("%s at %q: charge %s, bound %s, %v, %v", v.ID, tier, c.Amount, b.Amount, err, errBound)
				}
			}
		}
	}
	if len(ids) != 152+10+7+3+4 { // the facts, their ten further dates, older models, completions, simulated models
		t.Errorf("%d versions", len(ids))
	}
}
