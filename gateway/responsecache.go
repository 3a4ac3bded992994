package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"llm-gateway/domain"
	"llm-gateway/gateway/observe"
	"llm-gateway/gateway/provider"
)

// The response cache answers a request that was answered before with the same answer. It is off unless the
// operator chose it, and what it answers is still a request like any other: reserved, committed with the
// meters of the first answer, at a price of its own (domain.PriceVersion.Cached), and refunded. Only the
// provider is not called, so that it has no attempts and cost nothing.
//
// Two requests are the same if the same would be sent to the same model of the same provider, in the same form,
// and, unless the operator shares answers on purpose, for the same account. What depends on more than the request
// (earlier responses, files, links, web searches) is never kept, nor is an answer that did not come to its end.

// ResponseCache keeps values for a while. It may lose them at any time. It is safe for concurrent use.
type ResponseCache interface {
	// Get is the value of a key; nil where there is none.
	Get(ctx context.Context, key string) ([]byte, error)
	Put(ctx context.Context, key string, value []byte, keep time.Duration) error
}

// Caching says which answers are kept and what they cost. The zero value: none.
type Caching struct {
	Store   ResponseCache
	Keep    time.Duration
	Shared  bool // between accounts
	Percent int  // of what the answer would have cost, from 0 to 100
}

const (
	// cacheTime bounds one look into the cache (as long as admitTime: one that is given up stops the limits, too),
	// cacheRest how long it is left alone after a failure.
	cacheTime = 250 * time.Millisecond
	cacheRest = time.Second
	// maxCachedAsk bounds the body of a request that is looked for, in bytes.
	maxCachedAsk = 1 << 20

	headerCache  = "x-cache"
	responseForm = 1 // of an entry; others are not read
)

// keptAnswers is the cache as the gateway uses it: whatever is wrong with it, there is no answer in it.
type keptAnswers struct {
	Caching
	now       func() time.Time
	metrics   *observe.Metrics
	restUntil atomic.Int64 // Unix nanoseconds
}

// keptAnswer is an entry, beside the answer's bytes.
type keptAnswer struct {
	Form         int                `json:"form"`
	Meters       domain.Meters      `json:"meters"`
	Source       domain.UsageSource `json:"source"`
	Model        string             `json:"model"`
	FinishReason string             `json:"finish_reason"`
	ServiceTier  string             `json:"service_tier"`
	Geo          string             `json:"geo,omitempty"`
	Speed        string             `json:"speed,omitempty"`
	Usage        json.RawMessage    `json:"usage,omitempty"`
	body         []byte
}

// used is what the answer came to when it was made.
func (a *keptAnswer) used() used {
	return used{meters: a.Meters, source: a.Source,
		report: provider.Report{Model: a.Model, FinishReason: a.FinishReason, ServiceTier: a.ServiceTier, Geo: a.Geo, Speed: a.Speed, Raw: a.Usage}}
}

// asks says whether a call is looked for in the cache, and tells the client.
func (r *keptAnswers) asks(c *gin.Context, k *call) bool {
	if r.Store == nil {
		return false
	}
	control := strings.ToLower(strings.Join(c.Request.Header.Values("Cache-Control"), ","))
	f := k.asked
	if strings.Contains(control, "no-store") || strings.Contains(control, "no-cache") || f.Opaque || f.WebSearch || f.Searches > 0 || k.model.AlwaysSearches ||
		k.door.counted != nil || len(k.asking.body) > maxCachedAsk {
		r.tell(c, "bypass")
		return false
	}
	var err error
	k.canonical, err = canonical(k.asking.body)
	return err == nil
}

// canonical is a JSON object with its members in order and without blanks. Numbers stay as they are written, and
// so does all of an object that has U+FFFD when it is decoded: that may have been any half of a surrogate pair.
func canonical(body []byte) ([]byte, error) {
	in := json.NewDecoder(bytes.NewReader(body))
	in.UseNumber()
	var v any
	if err := in.Decode(&v); err != nil {
		return nil, err
	}
	inOrder, err := json.Marshal(v)
	if bytes.ContainsRune(inOrder, utf8.RuneError) {
		return body, err
	}
	return inOrder, err
}

// key is what a call of a target is kept by.
func (r *keptAnswers) key(k *call, t *target) string {
	account := k.who.Account
	if r.Shared {
		account = ""
	}
	sum := sha256.New()
	for _, part := range []string{account, k.door.surface, k.asking.method, k.asking.model, t.model.Provider, t.model.Name, t.model.UpstreamName(),
		fmt.Sprint(k.stream, k.asking.list, k.cap), k.header.Get("Anthropic-Version"), strings.Join(k.header.Values("Anthropic-Beta"), ","),
		strings.Join(k.header.Values("OpenAI-Beta"), ","), string(k.canonical)} {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// tell says what the cache had for a call, to the client and in the metrics.
func (r *keptAnswers) tell(c *gin.Context, result string) {
	r.metrics.Cached(result)
	c.Header(headerCache, result)
}

// find is the kept answer of a call; nil where there is none, which the client is told. What is found is told of
// when it is used: a call that its balance cuts down is another call.
func (r *keptAnswers) find(c *gin.Context, k *call) *keptAnswer {
	if !r.asks(c, k) {
		return nil
	}
	found := r.read(c.Request.Context(), r.key(k, k.target))
	if found == nil {
		r.tell(c, "miss")
	}
	return found
}

func (r *keptAnswers) read(ctx context.Context, key string) *keptAnswer {
	if r.now().UnixNano() < r.restUntil.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTime)
	defer cancel()
	value, err := r.Store.Get(ctx, key)
	if r.failed(err); err != nil || value == nil {
		return nil
	}
	found, ok := parseKept(key, value)
	if !ok {
		r.metrics.Cached("broken")
	}
	return found
}

// failed leaves the cache alone for a while after a failure.
func (r *keptAnswers) failed(err error) {
	if err != nil {
		r.metrics.Cached("error")
		r.restUntil.Store(r.now().Add(cacheRest).UnixNano())
	}
}

// keep keeps the answer of a call that came to its end and was charged.
func (r *keptAnswers) keep(k *call, u *used, body []byte) {
	if k.canonical == nil || u.report.Partial || len(u.report.Iterations) > 1 || len(body) == 0 || len(body) > maxKept || r.now().UnixNano() < r.restUntil.Load() {
		return
	}
	entry := keptAnswer{Form: responseForm, Meters: u.meters, Source: u.source, Model: u.report.Model, FinishReason: u.report.FinishReason,
		ServiceTier: u.report.ServiceTier, Geo: u.report.Geo, Speed: u.report.Speed, Usage: u.report.Raw, body: body}
	key := r.key(k, k.target)
	value, err := entry.render(key)
	if err != nil {
		return // a usage that is no JSON
	}
	ctx, cancel := context.WithTimeout(context.Background(), cacheTime)
	defer cancel()
	r.failed(r.Store.Put(ctx, key, value, r.Keep))
}

// render is an entry as it is kept: a digest of the rest and its key, the facts in one line, the answer.
func (a *keptAnswer) render(key string) ([]byte, error) {
	facts, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	rest := append(append(facts, '\n'), a.body...)
	digest := digestOf(key, rest)
	return append(digest[:], rest...), nil
}

func digestOf(key string, rest []byte) [sha256.Size]byte {
	return sha256.Sum256(append([]byte(key+"\n"), rest...))
}

// parseKept reads an entry. What is not whole, or another key's, is none.
func parseKept(key string, value []byte) (*keptAnswer, bool) {
	if len(value) < sha256.Size || digestOf(key, value[sha256.Size:]) != [sha256.Size]byte(value) {
		return nil, false
	}
	facts, body, ok := bytes.Cut(value[sha256.Size:], []byte("\n"))
	a := &keptAnswer{body: body}
	if !ok || json.Unmarshal(facts, a) != nil || a.Form != responseForm || len(body) == 0 {
		return nil, false
	}
	return a, true
}

// answerKept answers with a kept answer, when its charge is durable.
func (h *hold) answerKept(c *gin.Context, kept *keptAnswer) error {
	h.g.responses.tell(c, "hit")
	h.hit, h.tried, h.first = true, []domain.Attempt{}, h.g.now()
	u := kept.used()
	h.kept.add(kept.body)
	bill, err := h.settle(u, false)
	if err != nil {
		return err
	}
	recordOf(c).receipt(u, bill)
	if h.call.stream {
		replayStream(c, h.call, h.id, bill, &domain.Response{Body: kept.body})
		return nil
	}
	bill.announce(c.Writer.Header())
	c.Header("Content-Type", "application/json")
	writeParts(c, kept.body)
	return nil
}
