package pricebook

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"llm-gateway/domain"
)

// LiteLLM's list is one object, by model; its prices are per token. A field's name says meter, threshold and
// service tier: output_cost_per_token_above_200k_tokens, input_cost_per_token_priority.

// litellmMeters are the fields that are prices of this project's meters.
var litellmMeters = map[string]domain.Meter{
	"input_cost_per_token": domain.Input, "output_cost_per_token": domain.Output,
	"cache_read_input_token_cost": domain.CachedInput, "cache_creation_input_token_cost": domain.CacheWrite5m,
	"cache_creation_input_token_cost_above_1hr": domain.CacheWrite1h, "output_cost_per_reasoning_token": domain.Reasoning,
	"input_cost_per_audio_token": domain.AudioIn, "output_cost_per_audio_token": domain.AudioOut,
	"cache_read_input_audio_token_cost": domain.CachedAudioIn, "input_cost_per_image_token": domain.ImageIn,
	"output_cost_per_image_token": domain.ImageOut, "input_cost_per_request": domain.Requests,
}

var (
	litellmField = regexp.MustCompile(`^(.+?)(?:_above_(\d{1,6})k_tokens)?(?:_(flex|priority|batches))?$`)
	litellmModes = map[string]domain.Mode{"chat": domain.ModeChat, "responses": domain.ModeChat,
		"completion": domain.ModeCompletion, "embedding": domain.ModeEmbedding}
)

// sample is the entry that explains the others.
const sample = "sample_spec"

func (i *importer) litellm(list any) error {
	all, ok := list.(object)
	if !ok {
		return errors.New("it is not an object of models")
	}
	slices.SortStableFunc(all, func(a, b member) int { return strings.Compare(a.name, b.name) })
	for _, entry := range all {
		o, ok := entry.value.(object)
		if entry.name == sample {
			continue
		}
		provider := ours(o.text("litellm_provider"))
		name := strings.TrimPrefix(strings.TrimPrefix(entry.name, o.text("litellm_provider")+"/"), provider+"/")
		if !ok || provider == "" {
			i.left(entry.name, "left out: it has no litellm_provider")
			continue
		}
		if !i.keep(provider, name) {
			continue
		}
		m := &domain.Model{Provider: provider, Name: name}
		i.add(m, i.litellmModel(m, o))
	}
	return nil
}

func (i *importer) litellmModel(m *domain.Model, o object) error {
	mode, ok := litellmModes[o.text("mode")]
	if !ok {
		return fmt.Errorf("the mode %.40q is not priced by tokens here", o.text("mode"))
	}
	m.Mode, m.ResponsesOnly = mode, o.text("mode") == "responses"
	if m.Context = o.count("max_input_tokens"); m.Context == 0 {
		m.Context = o.count("max_tokens")
	}
	if mode != domain.ModeEmbedding {
		m.MaxOutput = o.count("max_output_tokens")
	}
	if day := o.text("deprecation_date"); day != "" {
		var err error
		if m.Deprecated, err = time.Parse(time.DateOnly, day); err != nil {
			i.left(m.Provider+"/"+m.Name, "deprecation_date: %.40q is not a date", day)
		}
	}
	v := domain.PriceVersion{ServiceTiers: map[string]domain.Rates{}}
	tiers := map[int64]domain.Rates{}
	for _, f := range o {
		if err := i.litellmPrice(m, &v, tiers, f); err != nil {
			return err
		}
	}
	for above, rates := range tiers {
		v.Tiers = append(v.Tiers, domain.Tier{AboveInput: above, Rates: rates})
	}
	slices.SortFunc(v.Tiers, func(a, b domain.Tier) int { return int(a.AboveInput - b.AboveInput) })
	m.Versions = []domain.PriceVersion{v}
	return nil
}

// litellmPrice takes over one field, where it is a price. One that this project has no meter for is left and
// named; one that is a meter's and cannot be read is an error, because without it the model would be charged
// wrongly.
func (i *importer) litellmPrice(m *domain.Model, v *domain.PriceVersion, tiers map[int64]domain.Rates, f member) error {
	parts := litellmField.FindStringSubmatch(f.name)
	if parts == nil || f.value == nil {
		return nil
	}
	meter, known := litellmMeters[parts[1]]
	if !known {
		return i.litellmOther(m, v, f)
	}
	service := strings.TrimSuffix(parts[3], "es") // batches are of the tier batch
	switch {
	case meter >= domain.WebSearch && parts[2]+service != "":
		return fmt.Errorf("%s: only tokens have tiers here", f.name)
	case parts[2] != "" && service != "":
		i.left(m.Provider+"/"+m.Name, "%s: a service tier has one price whatever the input; the dearer of the two is charged", f.name)
		return nil
	case parts[2] != "":
		thousands, _ := strconv.ParseInt(parts[2], 10, 64) // at most six digits
		rates := tiers[thousands*1000]
		err := setPrice(&rates, meter, f.name, f.value, 0)
		tiers[thousands*1000] = rates
		return err
	case service != "":
		rates := v.ServiceTiers[service]
		err := setPrice(&rates, meter, f.name, f.value, 0)
		v.ServiceTiers[service] = rates
		return err
	}
	return setPrice(&v.Rates, meter, f.name, f.value, 0)
}

// litellmOther takes over searches and regions, and names all other prices.
func (i *importer) litellmOther(m *domain.Model, v *domain.PriceVersion, f member) error {
	name := m.Provider + "/" + m.Name
	o, isObject := f.value.(object)
	switch {
	case f.name == "search_context_cost_per_query" && isObject:
		return i.litellmSearches(name, v, o)
	case f.name == "provider_specific_entry" && isObject:
		v.Regions = map[string]domain.Amount{}
		for _, region := range o {
			n, _ := region.value.(json.Number)
			factor, err := amountOf(n, 0)
			if err != nil || factor.Sign() <= 0 {
				return fmt.Errorf("%s.%s is not a factor", f.name, region.name)
			}
			v.Regions[region.name] = factor
		}
	case isThreshold(f.name):
		return fmt.Errorf("%s: a threshold that is not in thousands of tokens", f.name)
	case f.name == "tiered_pricing":
		return fmt.Errorf("%s: prices change above one threshold for the whole request here, not by steps", f.name)
	case strings.Contains(f.name, "cost") || strings.Contains(f.name, "price") || strings.Contains(f.name, "pricing"):
		if n, ok := f.value.(json.Number); ok && strings.Trim(n.String(), "0.") == "" {
			return nil // it costs nothing
		}
		i.left(name, "%s: there is no meter for it", f.name)
	}
	return nil
}

// isThreshold says whether a field that is not known is a meter's price above something.
func isThreshold(field string) bool {
	meter, _, above := strings.Cut(field, "_above_")
	_, known := litellmMeters[meter]
	return above && known
}

// litellmSearches takes the dearest of the sizes that a search's context can have.
func (i *importer) litellmSearches(name string, v *domain.PriceVersion, sizes object) error {
	for _, size := range sizes {
		var one domain.Rates
		if err := setPrice(&one, domain.WebSearch, "search_context_cost_per_query."+size.name, size.value, 0); err != nil {
			return err
		}
		unit, _ := one.Get(domain.WebSearch)
		most, had := v.Rates.Get(domain.WebSearch)
		if had && !most.Equal(unit) {
			i.left(name, "search_context_cost_per_query: a search has one price whatever its size; the dearest of them is charged")
		}
		if !had || most.Less(unit) {
			v.Rates.Set(domain.WebSearch, unit)
		}
	}
	return nil
}
