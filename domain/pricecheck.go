package domain

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Bounds of a price book. They are far above any real one.
const (
	maxModels       = 100_000
	maxVersions     = 1000 // of one model
	maxTiers        = 16   // of one version
	maxServiceTiers = 16   // of one version
	maxRegions      = 64   // of one version
	maxBookName     = 128  // bytes of a model's, provider's, tier's or region's name
)

// maxUnitPrice keeps every charge in the ledger's range: all meters at their largest quantity and
// this price come to less than 10^18.
var maxUnitPrice = MustAmount("1000000")

// PriceBookError says what is wrong with a price book, and where: Model is the model's name ("" for
// the book itself), Field the path within it.
type PriceBookError struct{ Model, Field, Problem string }

// Error is one line for whoever edits the book.
func (e *PriceBookError) Error() string {
	if e.Model == "" {
		return fmt.Sprintf("price book: %s: %s", e.Field, e.Problem)
	}
	return fmt.Sprintf("price book: model %.128q: %s: %s", e.Model, e.Field, e.Problem)
}

func (m *Model) bad(field, problem string, args ...any) error {
	return &PriceBookError{m.Name, field, fmt.Sprintf(problem, args...)}
}

// check refuses a model that could not be charged for without surprise.
func (m *Model) check() error {
	switch {
	case !isBookName(m.Name):
		return m.bad("model", "not a name: %.40q", m.Name)
	case !isBookName(m.Provider) || strings.Contains(m.Provider, "/"):
		return m.bad("provider", "not a name: %.40q", m.Provider)
	case m.Mode != ModeChat && m.Mode != ModeCompletion && m.Mode != ModeEmbedding:
		return m.bad("mode", "%.40q is neither chat nor completion nor embedding", string(m.Mode))
	case m.Context < 1 || m.Context > MaxTokens:
		return m.bad("context", "%d is not between 1 and %d", m.Context, MaxTokens)
	case m.MaxOutput < 0 || m.MaxOutput > MaxTokens:
		return m.bad("max_output", "%d is not between 0 and %d", m.MaxOutput, MaxTokens)
	case len(m.Versions) == 0 || len(m.Versions) > maxVersions:
		return m.bad("versions", "%d of them; a model has 1 to %d", len(m.Versions), maxVersions)
	}
	for i := range m.Versions {
		if err := m.checkVersion(i); err != nil {
			return err
		}
	}
	return nil
}

func (m *Model) checkVersion(i int) error {
	v, at := &m.Versions[i], fmt.Sprintf("versions[%d]", i)
	switch {
	case !v.From.Equal(v.From.Truncate(time.Second)):
		return m.bad(at+".from", "%s is not a whole second", v.From.UTC().Format(time.RFC3339Nano))
	case i > 0 && !v.From.After(m.Versions[i-1].From):
		return m.bad(at+".from", "not after the version before it")
	}
	if err := m.checkBase(at, &v.Rates); err != nil {
		return err
	}
	if err := m.checkTiers(at, v.Tiers); err != nil {
		return err
	}
	return m.checkNamed(at, v)
}

// checkBase demands the prices that the other rules stand on: details are completed from, and
// folded into, input and (where there is any) output.
func (m *Model) checkBase(at string, r *Rates) error {
	if err := m.checkRates(at+".prices", r); err != nil {
		return err
	}
	if !r.priced[Input] {
		return m.bad(at+".prices.input", "missing")
	}
	if m.Mode != ModeEmbedding && !r.priced[Output] {
		return m.bad(at+".prices.output", "missing")
	}
	return nil
}

func (m *Model) checkRates(at string, r *Rates) error {
	if r.Empty() {
		return m.bad(at, "empty")
	}
	for i, unit := range r.unit {
		field := at + "." + meterNames[i]
		switch {
		case unit.Sign() < 0:
			return m.bad(field, "%s is negative", unit)
		case !unit.InRange():
			return m.bad(field, "a unit price finer than 1e-%d or out of range", AmountScale)
		case maxUnitPrice.Less(unit):
			return m.bad(field, "more than %s per unit", maxUnitPrice)
		}
	}
	return nil
}

func (m *Model) checkTiers(at string, tiers []Tier) error {
	if len(tiers) > maxTiers {
		return m.bad(at+".tiers", "more than %d", maxTiers)
	}
	last := int64(0)
	for i := range tiers {
		field, above := fmt.Sprintf("%s.tiers[%d]", at, i), tiers[i].AboveInput
		if above <= last || above > MaxTokens {
			return m.bad(field+".above_input", "%d; thresholds are above 0 and ascend", above)
		}
		last = above
		if err := m.checkRates(field+".prices", &tiers[i].Rates); err != nil {
			return err
		}
	}
	return nil
}

func (m *Model) checkNamed(at string, v *PriceVersion) error {
	if len(v.ServiceTiers) > maxServiceTiers {
		return m.bad(at, "more than %d service tiers", maxServiceTiers)
	}
	for _, name := range slices.Sorted(maps.Keys(v.ServiceTiers)) {
		rates, field := v.ServiceTiers[name], at+".service_tiers."+name
		if isBaseTier(name) || !isBookName(name) {
			return m.bad(field, "%.40q cannot have a price of its own", name)
		}
		if err := m.checkRates(field, &rates); err != nil {
			return err
		}
	}
	return m.checkRegions(at, v.Regions)
}

// isBookName accepts what may go into columns, keys and logs as it is.
func isBookName(s string) bool {
	if s == "" || len(s) > maxBookName {
		return false
	}
	for i := range len(s) {
		if !isNameByte(s[i]) {
			return false
		}
	}
	return true
}

// contentID hashes a canonical text of the completed rates: the ID stands for what is charged. Factors of regions
// are none of it: what is charged in a region has an ID of its own, and the base price keeps its ID when they change.
func (v *PriceVersion) contentID() string {
	name := fmt.Sprintf("%s/%s@%s", v.Provider, v.Model, startName(v.From))
	return name + "#" + v.hash("rules 1\n"+name)
}

// hash is 8 hex digits that stand for a name and all rates of a version.
func (v *PriceVersion) hash(name string) string {
	var b strings.Builder
	b.WriteString(name + "\n")
	v.render(&b)
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:4])
}

// render writes all rates of a version.
func (v *PriceVersion) render(b *strings.Builder) {
	v.Rates.render(b, "base")
	for i := range v.Tiers {
		v.Tiers[i].Rates.render(b, fmt.Sprintf("above %d", v.Tiers[i].AboveInput))
	}
	for _, name := range slices.Sorted(maps.Keys(v.ServiceTiers)) {
		rates := v.ServiceTiers[name]
		rates.render(b, "service "+name)
	}
}

func (r *Rates) render(b *strings.Builder, name string) {
	b.WriteString(name)
	for m, priced := range r.priced {
		if priced {
			fmt.Fprintf(b, " %s=%s", meterNames[m], r.unit[m])
		}
	}
	b.WriteByte('\n')
}
