package pricebook

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"llm-gateway/domain"
)

// The list of genai-prices is providers with models. A price is per million tokens or per thousand searches
// or requests, and either a number or a base with tiers; once the whole input exceeds a tier's start, all
// tokens take its price. Prices that change are a list, whose entries but the first say from when on.

// genaiMeters are the fields that are prices of this project's meters, and of how many (a power of ten).
var genaiMeters = map[string]struct {
	meter domain.Meter
	power int
}{
	"input_mtok": {domain.Input, 6}, "output_mtok": {domain.Output, 6}, "cache_read_mtok": {domain.CachedInput, 6},
	"cache_write_mtok": {domain.CacheWrite5m, 6}, "cache_write_5m_mtok": {domain.CacheWrite5m, 6}, "cache_write_1h_mtok": {domain.CacheWrite1h, 6},
	"input_audio_mtok": {domain.AudioIn, 6}, "cache_audio_read_mtok": {domain.CachedAudioIn, 6}, "output_audio_mtok": {domain.AudioOut, 6},
	"input_image_mtok": {domain.ImageIn, 6}, "output_image_mtok": {domain.ImageOut, 6}, "output_reasoning_mtok": {domain.Reasoning, 6},
	"web_searches_kcount": {domain.WebSearch, 3}, "requests_kcount": {domain.Requests, 3},
}

// genaiWholes are the fields of prices that this project has no meters for, because text costs what its whole does.
var genaiWholes = map[string]string{
	"input_text_mtok": "input_mtok", "output_text_mtok": "output_mtok", "cache_text_read_mtok": "cache_read_mtok",
	"cache_text_write_mtok": "cache_write_mtok", "cache_text_write_5m_mtok": "cache_write_5m_mtok", "cache_text_write_1h_mtok": "cache_write_1h_mtok",
}

func (i *importer) genai(list any) error {
	providers, ok := list.([]any)
	if !ok {
		return errors.New("it is not a list of providers")
	}
	for n, entry := range providers {
		o, _ := entry.(object)
		models, ok := o.get("models").([]any)
		if o.text("id") == "" || !ok {
			return fmt.Errorf("the provider %d has no id or no models", n)
		}
		for _, entry := range models {
			model, _ := entry.(object)
			m := &domain.Model{Provider: ours(o.text("id")), Name: model.text("id"), Context: model.count("context_window")}
			if i.keep(m.Provider, m.Name) {
				i.add(m, i.genaiModel(m, model))
			}
		}
	}
	return nil
}

func (i *importer) genaiModel(m *domain.Model, o object) error {
	if m.Context == 0 {
		return errors.New("context_window is missing")
	}
	dated, ok := o.get("prices").([]any)
	if !ok {
		dated = []any{object{{"prices", o.get("prices")}}}
	}
	for n, entry := range dated {
		conditional, _ := entry.(object)
		prices, ok := conditional.get("prices").(object)
		if !ok {
			return errors.New("prices are missing")
		}
		v, err := i.genaiVersion(m, prices)
		if err == nil && n > 0 { // the first one holds wherever no other does
			v.From, err = startOf(conditional)
		}
		if err != nil {
			return err
		}
		m.Versions = append(m.Versions, v)
	}
	m.Mode = domain.ModeEmbedding // the list does not say; what has no output is one
	if slices.ContainsFunc(m.Versions, func(v domain.PriceVersion) bool { _, has := v.Rates.Get(domain.Output); return has }) {
		m.Mode = domain.ModeChat
	}
	return nil
}

// startOf is the day from which prices hold. Hours of the day, which they may be for instead, are no version.
func startOf(o object) (time.Time, error) {
	constraint, _ := o.get("constraint").(object)
	for _, f := range constraint {
		if f.name != "start_date" && f.name != "type" {
			return time.Time{}, fmt.Errorf("constraint.%s: prices change by the day here, at midnight UTC", f.name)
		}
	}
	from, err := time.Parse(time.DateOnly, constraint.text("start_date"))
	if err != nil {
		return from, fmt.Errorf("constraint.start_date: %.40q is not a day", constraint.text("start_date"))
	}
	return from, nil
}

func (i *importer) genaiVersion(m *domain.Model, prices object) (v domain.PriceVersion, err error) {
	tiers := map[int64]domain.Rates{}
	for _, f := range prices {
		field, known := genaiMeters[f.name]
		whole := genaiWholes[f.name]
		if whole != "" && !reflect.DeepEqual(f.value, prices.get(whole)) {
			return v, fmt.Errorf("%s: text costs the same as the whole here", f.name)
		}
		if whole != "" || f.name == "cache_write_mtok" && prices.get("cache_write_5m_mtok") != nil {
			continue // another field says it
		}
		if !known {
			i.left(m.Provider+"/"+m.Name, "%s: there is no meter for it", f.name)
			continue
		}
		base := f.value
		if tiered, ok := f.value.(object); ok {
			if field.meter >= domain.WebSearch {
				return v, fmt.Errorf("%s: only tokens have tiers here", f.name)
			}
			base = tiered.get("base")
			if err := genaiTiers(tiers, field.meter, field.power, f.name, tiered); err != nil {
				return v, err
			}
		}
		if err := setPrice(&v.Rates, field.meter, f.name, base, field.power); err != nil {
			return v, err
		}
	}
	for above, rates := range tiers {
		v.Tiers = append(v.Tiers, domain.Tier{AboveInput: above, Rates: rates})
	}
	slices.SortFunc(v.Tiers, func(a, b domain.Tier) int { return int(a.AboveInput - b.AboveInput) })
	return v, nil
}

func genaiTiers(tiers map[int64]domain.Rates, meter domain.Meter, power int, name string, tiered object) error {
	list, ok := tiered.get("tiers").([]any)
	if !ok {
		return fmt.Errorf("%s.tiers is not a list", name)
	}
	for _, entry := range list {
		tier, _ := entry.(object)
		start, _ := tier.get("start").(json.Number)
		above, err := strconv.ParseInt(start.String(), 10, 64)
		if err != nil || above < 1 || above > domain.MaxTokens {
			return fmt.Errorf("%s.tiers.start: %.40q is not a number of tokens", name, start.String())
		}
		rates := tiers[above]
		if _, twice := rates.Get(meter); twice {
			return fmt.Errorf("%s.tiers: %d is there twice", name, above)
		}
		if err := setPrice(&rates, meter, name+".tiers.price", tier.get("price"), power); err != nil {
			return err
		}
		tiers[above] = rates
	}
	return nil
}
