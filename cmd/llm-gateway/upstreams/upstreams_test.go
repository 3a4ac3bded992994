package upstreams

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
)

// row is one case of a table in testdata: a file, and what comes of it.
type row struct{ name, file, want string }

const (
	modelText    = `{model: m, context: 100, prices: {input: "1", output: "2"}}`
	upstreamFlow = `name: up, base_url: "http://h"`
	upstreamText = "name: up\n    base_url: http://h"
)

// table reads `== name`, the file's lines, and the wanted lines after `-- `.
func table(t *testing.T, name string, least int) (rows []row) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range strings.Split(string(text), "\n== ") {
		if i == 0 {
			continue // what the table says of itself
		}
		title, body, _ := strings.Cut(part, "\n")
		r := row{name: title}
		for line := range strings.Lines(body) {
			if want, ok := strings.CutPrefix(line, "-- "); ok {
				r.want += want
			} else if strings.TrimSpace(line) != "" {
				r.file += line
			}
		}
		r.want = strings.TrimSuffix(r.want, "\n")
		r.file = strings.NewReplacer("$M", modelText, "{$U", "{"+upstreamFlow, "$U", upstreamText).Replace(r.file)
		rows = append(rows, r)
	}
	if len(rows) < least {
		t.Fatalf("%s has %d rows", name, len(rows))
	}
	return rows
}

// read loads a text as a file that has keys beside it.
func read(t testing.TB, text string) (*File, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"upstreams.yaml": text, "k.key": "sk-file\n", "l.key": "sk-other\r\n", "empty.key": "\n",
		"lines.key": "hunter2\nsecond\n", "large.key": strings.Repeat("hunter2", maxKeyBytes)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(filepath.Join(dir, "upstreams.yaml"), Options{Currency: "USD", Getenv: func(name string) string {
		return map[string]string{"KEY_ENV": "sk-env"}[name]
	}})
}

func TestGood(t *testing.T) {
	t.Parallel()
	for _, r := range table(t, "good.txt", 8) {
		f, err := read(t, r.file)
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
			continue
		}
		if got := strings.Join(dump(f), "\n"); got != r.want {
			t.Errorf("%s:\n got %s\nwant %s", r.name, got, r.want)
		}
	}
}

func TestBad(t *testing.T) {
	t.Parallel()
	for _, r := range table(t, "bad.txt", 70) {
		_, err := read(t, r.file)
		if fmt.Sprint(err) != r.want || strings.Contains(fmt.Sprint(err), "hunter2") {
			t.Errorf("%s:\n got %v\nwant %s", r.name, err, r.want)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	book := []*domain.Model{
		{Provider: "openai", Name: "gpt-4o", Mode: domain.ModeChat}, {Provider: "openai", Name: "gpt-4o-mini", Mode: domain.ModeChat},
		{Provider: "openai", Name: "text-embedding", Mode: domain.ModeEmbedding}, {Provider: "anthropic", Name: "claude", Mode: domain.ModeChat},
	}
	for _, r := range table(t, "check.txt", 15) {
		f, err := read(t, r.file)
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
			continue
		}
		got := "ok"
		if err := f.Check(f.Models(book)); err != nil {
			got = err.Error()
		}
		if got != r.want {
			t.Errorf("%s:\n got %s\nwant %s", r.name, got, r.want)
		}
	}
	made := &File{Aliases: map[string]string{"a": "b"}} // not read from a file, so without lines
	if err := made.Check(book); err == nil || err.Error() != `upstreams: aliases: a: there is no model "b"` {
		t.Errorf("a made file: %v", err)
	}
	if err := made.Check(append(book, book[0])); err == nil || err.Error() != `upstreams: openai has the model "gpt-4o" twice` {
		t.Errorf("a model twice: %v", err)
	}
}

// dump is a file as text, keys included.
func dump(f *File) (lines []string) {
	for i := range f.Upstreams {
		u := &f.Upstreams[i]
		var keys []string
		for _, k := range u.Keys {
			keys = append(keys, fmt.Sprintf("%s:%d", string(k.Secret), k.Weight))
		}
		line := fmt.Sprintf("%s %s %s limit=%s weight=%d keys=%v connect=%s first_byte=%s idle=%s total=%s", u.Name, u.Type, or(u.BaseURL, "-"), u.OutputLimit,
			u.Weight, keys, u.Connect, u.FirstByte, u.Idle, u.Total)
		if u.APIVersion != "" {
			line += " version=" + u.APIVersion
		}
		for _, name := range slices.Sorted(maps.Keys(u.Headers)) {
			line += fmt.Sprintf(" %s=%q", name, u.Headers.Get(name))
		}
		lines = append(lines, line)
		for j := range u.Models {
			lines = append(lines, dumpModel(&u.Models[j]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Aliases)) {
		lines = append(lines, "alias "+name+" = "+f.Aliases[name])
	}
	for _, name := range slices.Sorted(maps.Keys(f.Fallbacks)) {
		lines = append(lines, "fallbacks "+name+" = "+strings.Join(f.Fallbacks[name], " "))
	}
	return lines
}

func dumpModel(m *domain.Model) string {
	line := fmt.Sprintf("  %s/%s %s context=%d output=%d as=%s", m.Provider, m.Name, m.Mode, m.Context, m.MaxOutput, m.Upstream)
	v := &m.Versions[0]
	for i := range domain.MeterCount {
		if unit, priced := v.Rates.Get(domain.Meter(i)); priced {
			line += fmt.Sprintf(" %s=%s", domain.Meter(i), unit)
		}
	}
	for _, n := range []struct {
		name  string
		n, of int
	}{{"tiers", len(v.Tiers), 0}, {"service_tiers", len(v.ServiceTiers), 0}, {"regions", len(v.Regions), 0}, {"versions", len(m.Versions), 1}} {
		if n.n > n.of {
			line += fmt.Sprintf(" %s=%d", n.name, n.n)
		}
	}
	return line
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// TestBounds goes one beyond each bound.
func TestBounds(t *testing.T) {
	t.Parallel()
	many := func(n int, entry string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strings.ReplaceAll(entry, "#", fmt.Sprint(i)) + ", ")
		}
		return b.String()
	}
	const up = `upstreams: [{name: up, base_url: "http://h", `
	for _, c := range []struct{ file, want string }{
		{"# " + strings.Repeat("x", maxFile), "larger than 2097152 bytes"},
		{"upstreams: [" + many(maxUpstreams+1, "{name: u#}") + "]", "upstreams: 101 of them; at most 100"},
		{up + "keys: [" + many(maxKeys+1, "{api_key: k#}") + "]}]", "keys: 65 of them; at most 64"},
		{up + "headers: {" + many(maxHeaders+1, "X-#: v") + "}}]", "headers: 33 of them; at most 32"},
		{up + "headers: {X: " + strings.Repeat("v", maxHeaderValue+1) + "}}]", "1 to 1024 characters"},
		{up + "models: [" + many(maxModels+1, strings.Replace(modelText, "m,", "m#,", 1)) + "]}]", "models: 2001 of them; at most 2000"},
		{up + "api_key: " + strings.Repeat("k", maxKeyBytes+1) + "}]", "longer than 4096 bytes"},
		{"upstreams: [{name: " + strings.Repeat("n", maxName+1) + "}]", "1 to 64 small letters"},
		{`upstreams: [{name: a, base_url: "http://h/` + strings.Repeat("p", maxURL) + `"}]`, "it is not a URL"},
		{"aliases: {" + many(maxAliases+1, "a#: m") + "}", "2001 aliases and 0 lists"},
		{"fallbacks: {" + many(maxFallbacks+1, "a#: [m]") + "}", "0 aliases and 2001 lists"},
	} {
		if _, err := read(t, c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s: %.200v, want %s", c.file, err, c.want)
		}
	}
}

// TestExample holds that the example for operators loads as it is, with keys, and leads somewhere.
func TestExample(t *testing.T) {
	t.Parallel()
	const example = "../../../deployments/upstreams.example.yaml"
	asked := map[string]bool{}
	f, err := Load(example, Options{Currency: "USD", Getenv: func(name string) string {
		asked[name] = true
		return "key-of-" + name
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Check(f.Models(pricebook.Builtin().Models())); err != nil {
		t.Error(err)
	}
	names := map[string]bool{}
	for i := range f.Upstreams {
		names[f.Upstreams[i].Name] = true
	}
	for _, name := range []string{"azure", "openrouter", "groq", "deepseek", "xai", "vllm", "ollama", "openai"} {
		if !names[name] {
			t.Errorf("the example lacks %s", name)
		}
	}
	if len(asked) < 6 || len(f.Aliases) == 0 || len(f.Fallbacks) == 0 {
		t.Errorf("the example asks for %v, and has %d aliases and %d fallbacks", asked, len(f.Aliases), len(f.Fallbacks))
	}
}

// TestSecretsStayIn puts a secret in place of every line's every word of the example, so that whatever
// is broken then: no error quotes it.
func TestSecretsStayIn(t *testing.T) {
	t.Parallel()
	const raw = "sk-hunter2"
	f, err := read(t, `upstreams: [{`+upstreamFlow+`, api_key: `+raw+`, models: [`+modelText+`]}]`)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(f), fmt.Sprint(*f), fmt.Sprintf("%+v %#v %v %+v", f, *f, f.Upstreams, f.Upstreams[0].Keys), string(asJSON)} {
		if strings.Contains(text, raw) {
			t.Errorf("printed: %s", text)
		}
	}
	broken := 0
	for _, place := range []string{raw, raw + ": x", "*" + raw, "&" + raw, "[" + raw + "]", "{" + raw + "}", "{" + raw + ": 1}", "!" + raw + " x", "@" + raw, "%" + raw,
		"\"" + raw, "'" + raw, "\"" + raw + "\\z\"", "`" + raw, "| " + raw, "> " + raw, "- " + raw, "? " + raw, raw + "\t: 1", "\"a\" " + raw, "[" + raw, raw + "]", ""} {
		for _, field := range []string{"api_key: ", "api_key_file: ", "api_key_env: ", "api_key ", "", "keys: ", "keys: [", "keys: [{api_key: ", "base_url: ", "headers: ", "headers: {X-A: ", "weight: "} {
			text := "upstreams:\n  - name: up\n    " + field + place + "\n    base_url: http://h\n    api_key: " + raw + "\n    models: [" + modelText + "]\n"
			_, err := read(t, text)
			if err != nil {
				broken++
			}
			if strings.Contains(fmt.Sprint(err), "hunter2") {
				t.Errorf("%q: %v", text, err)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: more than one line: %v", text, err)
			}
		}
	}
	if broken < 200 {
		t.Errorf("only %d of the files are broken", broken)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("upstreams: [{" + upstreamFlow + ", models: [" + modelText + "]}]\naliases: {a: m}\nfallbacks: {a: [b]}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := read(t, string(text))
		if (file == nil) == (err == nil) {
			t.Fatalf("%v and %v", file, err)
		}
		if err == nil {
			_ = file.Check(file.Models(nil))
		}
	})
}
