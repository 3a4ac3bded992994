package anthropic

import (
	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

// UsageOf reads Anthropic's usage object: input_tokens leaves out what was read from and written to the
// cache, domain.Usage has it in; output_tokens includes thinking. Parts may be absent or null: then they
// are 0. The two totals may not: a usage without them, or with a count that is no JSON integer from 0
// to domain.MaxTokens, is nil. Iterations are not looked at.
func UsageOf(usage gjson.Result) *domain.Usage {
	var t tally
	t.set(usage)
	return t.usage()
}

// tally is a usage as it comes together: in a stream later events set some of its counts again, and what
// they do not name stays.
type tally struct {
	input, output      int64
	read, created      int64
	written5m          int64 // of created; what the split does not account for was written for 5 minutes
	written1h          int64
	thinking, searches int64

	hasInput, hasOutput, bad bool

	raw []byte // as it came, later events over earlier ones
}

func (t *tally) set(u gjson.Result) {
	if !u.IsObject() {
		return
	}
	t.raw = chat.RawUsageOver(t.raw, chat.RawUsage(u))
	before := t.created
	t.count(u.Get("input_tokens"), &t.input, &t.hasInput)
	t.count(u.Get("output_tokens"), &t.output, &t.hasOutput)
	t.count(u.Get("cache_read_input_tokens"), &t.read, nil)
	t.count(u.Get("cache_creation_input_tokens"), &t.created, nil)
	split := u.Get("cache_creation")
	if t.created != before && !split.IsObject() {
		t.written5m, t.written1h = 0, 0
	}
	t.count(split.Get("ephemeral_5m_input_tokens"), &t.written5m, nil)
	t.count(split.Get("ephemeral_1h_input_tokens"), &t.written1h, nil)
	t.count(u.Get("output_tokens_details.thinking_tokens"), &t.thinking, nil)
	t.count(u.Get("server_tool_use.web_search_requests"), &t.searches, nil)
}

// count takes one count over, if it is there, and says so in has.
func (t *tally) count(v gjson.Result, to *int64, has *bool) {
	if v.Type == gjson.Null {
		return
	}
	n, ok := chat.Tokens(v)
	if !ok {
		t.bad = true
		return
	}
	*to = n
	if has != nil {
		*has = true
	}
}

// usage is the tally in the terms of the ledger; nil where it is not usable.
func (t *tally) usage() *domain.Usage {
	if t.bad || !t.hasInput || !t.hasOutput {
		return nil
	}
	u := &domain.Usage{CachedInput: t.read, CacheWrite5m: t.written5m, CacheWrite1h: t.written1h,
		Output: t.output, Reasoning: t.thinking, WebSearch: t.searches}
	u.CacheWrite5m += max(0, t.created-t.written5m-t.written1h)
	u.Input = t.input + t.read + u.CacheWrite5m + u.CacheWrite1h
	if u.Input > domain.MaxTokens {
		return nil
	}
	return u
}

// bill puts into the report what an answer came to. Where several models served, or one model in several
// rounds that the headline leaves out (fallbacks, compaction), that is the sum of all iterations.
func bill(report *chat.Report, headline *domain.Usage, iterations gjson.Result) {
	report.Usage, report.Iterations = headline, nil
	if headline == nil {
		return
	}
	sum, each, ok := iterate(iterations, report.Model)
	if !ok || len(each) == 0 || alone(each, report.Model) && sameTokens(&sum, headline) {
		return
	}
	// What iterations do not tell of, searches and the share of thinking, is the last one's.
	last := &each[len(each)-1].Usage
	last.WebSearch += max(0, headline.WebSearch-sum.WebSearch)
	last.Reasoning += min(max(0, headline.Reasoning-sum.Reasoning), last.Output-min(last.Output, last.Reasoning))
	sum, ok = sumOf(each)
	if !ok {
		return
	}
	report.Usage, report.Iterations = &sum, each
}

// iterate reads the iterations of a usage; not ok if one of them is unusable. One that names no model is
// the answer's.
func iterate(iterations gjson.Result, model string) (sum domain.Usage, each []chat.Iteration, ok bool) {
	ok = true
	iterations.ForEach(func(_, v gjson.Result) bool {
		i := chat.Iteration{Model: domain.CleanText(v.Get("model").Str, chat.MaxModelName)}
		if i.Model == "" {
			i.Model = model
		}
		u := UsageOf(v)
		if ok = u != nil; ok {
			i.Usage = *u
			each = append(each, i)
		}
		return ok
	})
	if ok {
		sum, ok = sumOf(each)
	}
	return sum, each, ok
}

func sumOf(each []chat.Iteration) (sum domain.Usage, ok bool) {
	for i := range each {
		u := &each[i].Usage
		sum.Input += u.Input
		sum.CachedInput += u.CachedInput
		sum.CacheWrite5m += u.CacheWrite5m
		sum.CacheWrite1h += u.CacheWrite1h
		sum.Output += u.Output
		sum.Reasoning += u.Reasoning
		sum.WebSearch += u.WebSearch
		if sum.Input > domain.MaxTokens || sum.Output > domain.MaxTokens || sum.Reasoning > domain.MaxTokens || sum.WebSearch > domain.MaxTokens {
			return sum, false
		}
	}
	return sum, true
}

// alone says whether the answer's model served all by itself.
func alone(each []chat.Iteration, model string) bool {
	for i := range each {
		if each[i].Model != model {
			return false
		}
	}
	return true
}

// sameTokens compares what iterations tell of: all but searches and thinking. How writes to the cache
// split is the headline's to say where the totals agree.
func sameTokens(a, b *domain.Usage) bool {
	return a.Input == b.Input && a.Output == b.Output && a.CachedInput == b.CachedInput &&
		a.CacheWrite5m+a.CacheWrite1h == b.CacheWrite5m+b.CacheWrite1h
}
