package reconcile

import (
	"regexp"
	"slices"
	"strings"
)

// searches is what the cost of web searches is called where an export tells it apart, of no model.
const searches = "(web searches)"

// openAI reads pages of organization/usage/* and organization/costs, and the dashboard's CSV exports. A
// line of the costs is `model, meter`; some are of no model.
var openAI = &form{
	ledger: "openai",
	start:  []string{"start_time", "start_time_iso", "date"},
	end:    []string{"end_time", "end_time_iso"},
	model: func(r record) string {
		if model := r.first([]string{"model", "snapshot_id"}); model != "" {
			return model
		}
		model, _, _ := strings.Cut(r["line_item"], ",")
		if model = strings.TrimSpace(model); strings.HasPrefix(strings.ToLower(model), "web search") {
			return searches
		}
		return model
	},
	counts: counted(map[Quantity][]string{
		"requests": {"num_model_requests"}, "input_tokens": {"input_tokens"}, "cached_input_tokens": {"input_cached_tokens"},
		"audio_input_tokens": {"input_audio_tokens"}, "output_tokens": {"output_tokens"}, "audio_output_tokens": {"output_audio_tokens"},
	}),
	cost: func(r record) (string, string, int) { return r["amount_value"], r["amount_currency"], 0 },
}

// anthropicCents says that the cost report's amounts are hundredths.
const anthropicCents = 2

// anthropic reads pages of usage_report/messages and cost_report, and the console's CSV exports, whose
// costs are dollars and whose models have names for people.
var anthropic = &form{
	ledger: "anthropic",
	start:  []string{"starting_at", "usage_date_utc"},
	end:    []string{"ending_at"},
	model: func(r record) string {
		model := r.first([]string{"model", "model_version"})
		if model == "" && r["cost_type"] == "web_search" {
			return searches
		}
		return model
	},
	counts: counted(map[Quantity][]string{
		"uncached_input_tokens": {"uncached_input_tokens", "usage_input_tokens_no_cache"},
		"cached_input_tokens":   {"cache_read_input_tokens", "usage_input_tokens_cache_read"},
		"cache_write_5m_tokens": {"cache_creation_ephemeral_5m_input_tokens", "usage_input_tokens_cache_write_5m"},
		"cache_write_1h_tokens": {"cache_creation_ephemeral_1h_input_tokens", "usage_input_tokens_cache_write_1h"},
		"output_tokens":         {"output_tokens", "usage_output_tokens"},
		"web_searches":          {"server_tool_use_web_search_requests", "web_search_count"},
	}),
	cost: func(r record) (string, string, int) {
		if r["cost_usd"] != "" {
			return r["cost_usd"], "USD", 0
		}
		return r["amount"], r["currency"], anthropicCents
	},
}

// google reads rows of the Cloud Billing export, in the columns of BigQuery or of the console's table.
// What was used is in the SKU's description only, and a description names a family of models. Credits are left
// out: BigQuery has them beside a row's cost, the console as rows of their own.
var google = &form{
	ledger: "gemini",
	start:  []string{"usage_start_time", "usage_start_date"},
	last:   []string{"usage_end_date"},
	model: func(r record) string {
		if family := geminiFamily(sku(r)); family != "" {
			return family
		}
		if of := strings.ToLower(sku(r)); strings.Contains(of, "grounding") && strings.Contains(of, "search") {
			return searches
		}
		return sku(r)
	},
	counts: googleCounts,
	cost: func(r record) (string, string, int) {
		for _, column := range []string{"unrounded_cost", "unrounded_cost_usd", "cost"} {
			if r[column] != "" {
				currency := r["currency"]
				if currency == "" {
					currency = "USD"
				}
				return r[column], currency, 0
			}
		}
		return "", "", 0
	},
	foreign: func(r record) bool {
		if r["credit_type"] != "" {
			return true
		}
		of := strings.ToLower(r["service_description"] + " " + sku(r))
		return !strings.Contains(of, "gemini") && !strings.Contains(of, "generative language")
	},
	family: func(model string) string {
		if family := geminiFamily(model); family != "" {
			return family
		}
		return model
	},
	wholeDay: true,
}

func sku(r record) string { return r["sku_description"] }

// googleCounts reads what a SKU counts: tokens of one kind, or searches. Storage of caches is a cost only.
func googleCounts(r record) map[Quantity]string {
	amount, of := r["usage_amount"], strings.ToLower(sku(r))
	unit := strings.ToLower(r["usage_unit"])
	if amount == "" || unit != "" && unit != "count" && unit != "tokens" && unit != "token" {
		return nil
	}
	switch {
	case strings.Contains(of, "storage"):
		return nil
	case strings.Contains(of, "search"), strings.Contains(of, "grounding"):
		return map[Quantity]string{"web_searches": amount}
	case strings.Contains(of, "cach") && strings.Contains(of, "input"):
		return map[Quantity]string{"cached_input_tokens": amount}
	case strings.Contains(of, "input"):
		return map[Quantity]string{"uncached_input_tokens": amount}
	case strings.Contains(of, "output"):
		return map[Quantity]string{"output_tokens": amount}
	}
	return nil
}

var geminiForm = regexp.MustCompile(`gemini[ -](embedding[ -])?(\d+(?:\.\d+)?)(?:[ -](pro|flash|ultra|nano))?(?:[ -](lite))?`)

// geminiFamily is the family of a model's name, or of a SKU's description: `gemini 2.5 flash lite short
// input text` and gemini-2.5-flash-lite-preview-06-17 are both gemini-2.5-flash-lite. "" where it names
// none.
func geminiFamily(text string) string {
	parts := geminiForm.FindStringSubmatch(strings.ToLower(text))
	if parts == nil {
		return ""
	}
	words := []string{"gemini"}
	if parts[1] != "" {
		words = append(words, "embedding")
	}
	words = append(words, strings.TrimSuffix(parts[2], ".0"), parts[3], parts[4])
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), "-")
}
