package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// catalogOf opens the catalog of some settings and an upstreams file.
func catalogOf(t *testing.T, file string, set ...string) (*catalogFile, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "upstreams.yaml")
	writeFile(t, path, file)
	src, err := readSources(append(set, "UPSTREAMS="+path), "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := loadSettings(src)
	if err != nil {
		t.Fatal(err)
	}
	c, err := openCatalog(s, src)
	if err != nil {
		t.Fatal(err)
	}
	return c, path
}

const twoUpstreams = `
upstreams:
  - name: groq
    base_url: http://127.0.0.1:1/openai/v1
    keys: [{api_key_env: GROQ_A, weight: 2}, {api_key_env: GROQ_B}]
    weight: 3
    models: [{model: llama, upstream_model: "meta/llama", context: 1000, max_output: 100, prices: {input: "1", output: "2"}}, {model: gpt-4o, context: 1000, prices: {input: "1", output: "2"}}]
  - name: local
    base_url: http://127.0.0.1:1
    models: [{model: tiny, context: 1000, prices: {input: "0", output: "0"}}]
aliases: {fast: llama}
fallbacks: {llama: [gpt-4o-mini]}
`

// TestCatalogOfUpstreams: what the file says is what can be called, beside the built-in models, whose price
// versions stay the same to the last letter.
func TestCatalogOfUpstreams(t *testing.T) {
	t.Parallel()
	c, path := catalogOf(t, twoUpstreams, "GROQ_A=sk-a", "GROQ_B=sk-b", "OPENAI_API_KEY=sk-c", "SIMULATED_PROVIDER=off")
	now := c.now()
	for _, m := range pricebook.Builtin().Models() {
		was := m.Versions[len(m.Versions)-1].ID
		found, _, _ := now.Prices.Lookup(m.Provider+"/"+m.Name, time.Now())
		if found == nil || found.Versions[len(found.Versions)-1].ID != was {
			t.Errorf("%s/%s: %+v, was %s", m.Provider, m.Name, found, was)
		}
	}
	if keys, ok := now.Providers["groq"].(provider.Keys); !ok || len(keys) != 2 || keys[0].Weight != 2 || keys[1].Weight != 1 {
		t.Errorf("%+v", now.Providers["groq"])
	}
	if len(now.Providers) != 3 || now.Providers["openai"] == nil || now.Providers["local"] == nil {
		t.Errorf("%v", now.Providers)
	}
	llama, _, err := now.Prices.Lookup("groq/llama", time.Now())
	if err != nil || llama.UpstreamName() != "meta/llama" || len(now.Prices.Named("gpt-4o")) != 2 {
		t.Errorf("%+v, %v, %v", llama, err, now.Prices.Named("gpt-4o"))
	}
	if r := now.Routing; r.Aliases["fast"] != "llama" || r.Fallbacks["llama"][0] != "gpt-4o-mini" || r.Weights["groq"] != 3 || r.Weights["openai"] != 1 {
		t.Errorf("%+v", r)
	}
	writeFile(t, path, strings.Replace(twoUpstreams, "fast: llama", "fast: nothing", 1))
	if err := c.reload(); err == nil || c.now() != now {
		t.Errorf("a file that is wrong was taken: %v", err)
	}
	writeFile(t, path, strings.Replace(twoUpstreams, "weight: 3", "weight: 0", 1))
	if err := c.reload(); err != nil || c.now().Routing.Weights["groq"] != 0 || now.Routing.Weights["groq"] != 3 {
		t.Errorf("%v, %+v", err, c.now().Routing)
	}
}

// TestExampleUpstreams: what the example promises can be wired.
func TestExampleUpstreams(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("../../deployments/upstreams.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var set []string
	text := string(example)
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" {}[],:\"\n", r) }) {
		if strings.HasSuffix(word, "_KEY") || strings.Contains(word, "_KEY_") {
			set = append(set, word+"=sk-of-the-example-"+word)
		}
	}
	c, _ := catalogOf(t, text, set...)
	if len(c.now().Providers) < 7 {
		t.Errorf("%v", c.now().Providers)
	}
}

// TestCatalogOfSellBook: it prices an upstream's model too, is read again with the rest, and a broken one
// leaves all as it was.
func TestCatalogOfSellBook(t *testing.T) {
	t.Parallel()
	sell := writeFile(t, filepath.Join(t.TempDir(), "sell.yaml"), `{markup: "10", models: {groq/llama: {markup: "50"}}}`)
	c, _ := catalogOf(t, twoUpstreams, "GROQ_A=sk-a", "GROQ_B=sk-b", "SELL_BOOK="+sell)
	paid := func() string {
		now := c.now()
		_, cost, err := now.Prices.Lookup("groq/llama", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		unit, _ := now.Sell.Price("anybody", cost, time.Now()).Rates.Get(domain.Input)
		return unit.Times(perMillion).String()
	}
	if got := paid(); got != "1.5" {
		t.Errorf("paid are %s", got)
	}
	writeFile(t, sell, `{markup: 10}`)
	if err := c.reload(); err == nil || !strings.Contains(err.Error(), "SELL_BOOK "+sell+": sell book: line 1:") || paid() != "1.5" {
		t.Errorf("a broken one: %v, %s", err, paid())
	}
	writeFile(t, sell, `{markup: "20"}`)
	if err := c.reload(); err != nil || paid() != "1.2" {
		t.Errorf("%v, %s", err, paid())
	}
}
