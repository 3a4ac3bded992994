package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"llm-gateway/cmd/llm-gateway/pricebook"
)

type changesOut struct {
	Changes []changeOut `json:"changes"`
}

const ownBook = `# ours
currency: USD
unit: per_million
as_of: 2026-01-01
models:
  - provider: acme
    model: big
    mode: chat
    context: 10
    sources: []
    versions:
      - prices: {input: "1", output: "2"} # of launch
`

// TestPriceSet: one version more, all else as it was, and a refusal changes nothing.
func TestPriceSet(t *testing.T) {
	t.Parallel()
	path := writeFile(t, filepath.Join(t.TempDir(), "own.yaml"), ownBook)
	link := filepath.Join(t.TempDir(), "link.yaml")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	env := []string{"PRICE_BOOK=" + link}
	for _, c := range []struct {
		status int
		args   string
		want   string
	}{
		{2, "price set", "PROVIDER/MODEL is missing"}, {2, "price set big input=1 --from 2099-01-01", "not PROVIDER/MODEL"},
		{2, "price set acme/big --from 2099-01-01", "METER=PRICE is missing"}, {2, "price set acme/big input=1", "--from is mandatory"},
		{2, "price set acme/big input=1 --from soon", "is not YYYY-MM-DD"}, {2, "price set acme/big input=1 --from 2020-01-01", "2020-01-01 has begun"},
		{2, "price set acme/big inputs=1 --from 2099-01-01", "is not METER=PRICE"}, {2, "price set acme/big input=1 input=2 --from 2099-01-01", "input is given twice"},
		{1, "price set acme/big input=-1 --from 2099-01-01", "is negative"}, {1, "price set acme/big input=1e400 --from 2099-01-01", "not an amount"},
		{1, "price set acme/none input=1 --from 2099-01-01", "has no model acme/none"},
	} {
		fails(t, c.status, c.want, env, strings.Fields(c.args)...)
	}
	fails(t, 1, "set PRICE_BOOK to a file of your own", nil, "price", "set", "openai/gpt-4o", "--from", "2099-01-01", "input=1")
	if text := readFile(t, path); text != ownBook {
		t.Errorf("a refusal left\n%s", text)
	}
	changes := parsed[changesOut](t, env, "price", "set", "acme/big", "--from", "2099-01-01", "output=3").Changes
	if len(changes) != 2 || changes[0] != (changeOut{"acme/big", "2099-01-01", "base", "output", "0.000002", "0.000003"}) || changes[1].Meter != "reasoning" {
		t.Errorf("%+v", changes)
	}
	if text := readFile(t, path); text != ownBook+"      - from: 2099-01-01\n        prices: {input: \"1\", output: \"3\"}\n" {
		t.Errorf("the book is now\n%s", text)
	}
	before := writeFile(t, filepath.Join(t.TempDir(), "before.yaml"), ownBook)
	if same := parsed[changesOut](t, nil, "price", "diff", before, path).Changes; len(same) != 2 || same[0] != changes[0] {
		t.Errorf("%+v", same)
	}
	if text := succeeds(t, env, "price", "diff", before); !strings.Contains(text, "acme/big") || !strings.Contains(text, "per million") {
		t.Errorf("price diff says\n%s", text)
	}
	if text := succeeds(t, env, "price", "diff", link); !strings.Contains(text, "no price differs") {
		t.Errorf("price diff says\n%s", text)
	}
	fails(t, 2, "FILE is missing", nil, "price", "diff")
	fails(t, 2, "too many arguments", nil, "price", "diff", "a", "b", "c")
	fails(t, 1, "no such file", nil, "price", "diff", "/no/such")
}

// TestPriceSetAtOnce: what each of several at once said that it set is there.
func TestPriceSetAtOnce(t *testing.T) {
	t.Parallel()
	path := writeFile(t, filepath.Join(t.TempDir(), "own.yaml"), ownBook)
	var all sync.WaitGroup
	days := []string{"2099-01-01", "2099-02-01", "2099-03-01", "2099-04-01"}
	for i, day := range days {
		all.Go(func() {
			if r := run(t, []string{"PRICE_BOOK=" + path}, "price", "set", "acme/big", "--from", day, "input="+strconv.Itoa(i+3)); r.status != 0 {
				t.Errorf("%s: %d: %s", day, r.status, r.stderr)
			}
		})
	}
	all.Wait()
	for _, day := range days {
		if text := readFile(t, path); !strings.Contains(text, day) {
			t.Errorf("what begins on %s is lost:\n%s", day, text)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPriceImport: what a list prices otherwise keeps its price until the day that is given.
func TestPriceImport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := []string{"PRICE_BOOK=" + writeFile(t, filepath.Join(dir, "own.yaml"), ownBook)}
	list := writeFile(t, filepath.Join(dir, "list.json"), `{
		"big": {"litellm_provider": "acme", "mode": "chat", "max_input_tokens": 99, "input_cost_per_token": 1e-06, "output_cost_per_token": 3e-06},
		"new": {"litellm_provider": "acme", "mode": "chat", "max_input_tokens": 99, "input_cost_per_token": 1e-06, "output_cost_per_token": 3e-06, "input_cost_per_image": 1},
		"pixel": {"litellm_provider": "acme", "mode": "image_generation"}}`)
	out := filepath.Join(dir, "out.yaml")
	fails(t, 1, "acme/big from launch: base output: 0.000003 instead of 0.000002 (per unit); give --from", env, "price", "import", "litellm", list)
	fails(t, 2, "2020-01-01 has begun", env, "price", "import", "litellm", list, "--from", "2020-01-01")
	fails(t, 2, "is not litellm or genai-prices", env, "price", "import", "csv", list)
	fails(t, 1, "no model of it can be taken over", env, "price", "import", "litellm", list, "--models", "none*")
	fails(t, 1, "it is not a list of providers", env, "price", "import", "genai-prices", list)
	if text := succeeds(t, env, "price", "import", "litellm", list, "--models", "acme/n*"); !strings.Contains(text, `model: "new"`) || strings.Contains(text, "big") {
		t.Errorf("the new one is\n%s", text)
	}
	succeeds(t, env, "price", "import", "litellm", list, "--from", "2099-01-01", "--out", out)
	fails(t, 1, "exists", env, "price", "import", "litellm", list, "--from", "2099-01-01", "--out", out)
	changes := parsed[changesOut](t, env, "price", "diff", out).Changes
	if changes[0] != (changeOut{"acme/big", "2099-01-01", "base", "output", "0.000002", "0.000003"}) || changes[2].Model != "acme/new" || changes[2].Old != "" {
		t.Errorf("%+v\n%s", changes, readFile(t, out))
	}
	again := writeFile(t, filepath.Join(dir, "same.json"), `{"big": {"litellm_provider": "acme", "mode": "chat", "max_input_tokens": 99, "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}}`)
	if text := succeeds(t, env, "price", "import", "litellm", again, "--from", "2099-01-01"); strings.Contains(text, "2099") {
		t.Errorf("a price that stays has a new version:\n%s", text)
	}
	if _, err := pricebook.Load(strings.NewReader(readFile(t, out))); err != nil {
		t.Error(err)
	}
	tiered := []string{"PRICE_BOOK=" + writeFile(t, filepath.Join(dir, "tiered.yaml"), ownBook+`        service_tiers: {priority: {input: "2"}, flex: {input: "0.5"}}
        regions: {fast: "6"}
`)}
	if r := run(t, tiered, "price", "import", "litellm", list, "--models", "big", "--from", "2099-01-01"); r.status != 0 ||
		!strings.Contains(r.stderr, "acme/big: the list does not tell of flex, priority, fast: from 2099-01-01 on they cost the base price\n") {
		t.Errorf("%d: what the list does not tell is not named:\n%s", r.status, r.stderr)
	}
}
