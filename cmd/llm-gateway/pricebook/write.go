package pricebook

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"llm-gateway/domain"
)

// source is what models that were imported cite.
const source = "imported"

// Text writes models as a price book that Load reads, with one source for all of them.
func Text(info Info, from string, models []domain.Model) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "currency: %s\nunit: per_million\nas_of: %s\n\nsources:\n  %s: %s\n\nmodels:\n", info.Currency, info.AsOf, source, strconv.Quote(from))
	for i := range models {
		writeModel(&b, &models[i])
	}
	return []byte(b.String())
}

func writeModel(b *strings.Builder, m *domain.Model) {
	fmt.Fprintf(b, "  - provider: %s\n    model: %s\n    mode: %s\n    context: %d\n", strconv.Quote(m.Provider), strconv.Quote(m.Name), m.Mode, m.Context)
	if m.MaxOutput > 0 {
		fmt.Fprintf(b, "    max_output: %d\n", m.MaxOutput)
	}
	if m.ResponsesOnly {
		b.WriteString("    responses_only: true\n")
	}
	if m.AlwaysSearches {
		b.WriteString("    always_searches: true\n")
	}
	if !m.Deprecated.IsZero() {
		fmt.Fprintf(b, "    deprecated: %s\n", m.Deprecated.Format(time.DateOnly))
	}
	fmt.Fprintf(b, "    sources: [%s]\n    versions:\n", source)
	for i := range m.Versions {
		for _, line := range versionLines(&m.Versions[i]) {
			b.WriteString("      " + line + "\n")
		}
	}
	b.WriteByte('\n')
}

// versionLines writes a version as an entry of a list, without indentation.
func versionLines(v *domain.PriceVersion) (out []string) {
	if !v.From.IsZero() {
		out = append(out, "from: "+domain.StartText(v.From))
	}
	out = append(out, "prices: "+tokenPrices(&v.Rates))
	if single := unitPrices(&v.Rates); single != "" {
		out = append(out, "per_unit: "+single)
	}
	if len(v.Tiers) > 0 {
		out = append(out, "tiers:")
	}
	for i := range v.Tiers {
		out = append(out, fmt.Sprintf("  - above_input: %d", v.Tiers[i].AboveInput), "    prices: "+tokenPrices(&v.Tiers[i].Rates))
	}
	if len(v.ServiceTiers) > 0 {
		out = append(out, "service_tiers:")
	}
	for _, name := range slices.Sorted(maps.Keys(v.ServiceTiers)) {
		rates := v.ServiceTiers[name]
		out = append(out, fmt.Sprintf("  %s: %s", strconv.Quote(name), tokenPrices(&rates)))
	}
	var regions []string
	for _, name := range slices.Sorted(maps.Keys(v.Regions)) {
		regions = append(regions, fmt.Sprintf("%s: %q", strconv.Quote(name), v.Regions[name]))
	}
	if len(regions) > 0 {
		out = append(out, "regions: {"+strings.Join(regions, ", ")+"}")
	}
	for i, line := range out {
		if out[i] = "  " + line; i == 0 {
			out[i] = "- " + line
		}
	}
	return out
}

// tokenPrices are the prices per million tokens.
func tokenPrices(r *domain.Rates) string {
	var out []string
	for m := range domain.WebSearch {
		if unit, priced := r.Get(m); priced {
			out = append(out, fmt.Sprintf("%s: %q", m, unit.Times(1_000_000)))
		}
	}
	return "{" + strings.Join(out, ", ") + "}"
}

// unitPrices are those of one search and one request; a request that costs nothing is not listed.
func unitPrices(r *domain.Rates) string {
	var out []string
	for m := domain.WebSearch; int(m) < domain.MeterCount; m++ {
		if unit, priced := r.Get(m); priced && (m != domain.Requests || !unit.IsZero()) {
			out = append(out, fmt.Sprintf("%s: %q", m, unit))
		}
	}
	if out == nil {
		return ""
	}
	return "{" + strings.Join(out, ", ") + "}"
}
