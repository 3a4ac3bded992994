package provider

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
)

func TestSimulatedWordsAreOneTokenEach(t *testing.T) {
	seen := map[string]bool{}
	for i, word := range simulatedWords {
		if seen[word] {
			t.Errorf("%q twice", word)
		}
		seen[word] = true
		for _, form := range []string{word, spacedWords[i]} {
			if n := CountText("gpt-4o", form); n != 1 {
				t.Errorf("%q is %d tokens", form, n)
			}
		}
	}
}

// TestSimulatedCountsAreReal counts what was delivered and compares it with what was reported.
func TestSimulatedCountsAreReal(t *testing.T) {
	p := NewSimulated()
	for _, c := range conformanceCases {
		whole, err := p.Complete(t.Context(), Request{Body: []byte(conformanceBody(c.body, false, false))})
		if err != nil || whole.Report.Usage == nil {
			continue
		}
		u := *whole.Report.Usage
		var counted int64
		gjson.GetBytes(whole.Body, "choices").ForEach(func(_, choice gjson.Result) bool {
			m := choice.Get("message")
			counted += CountText("gpt-4o", m.Get("content").Str)
			call := m.Get("tool_calls.0.function")
			counted += CountText("gpt-4o", call.Get("name").Str) + CountText("gpt-4o", call.Get("arguments").Str)
			return true
		})
		if counted != u.Output-u.Reasoning {
			t.Errorf("%s: %d tokens delivered, %+v reported", c.name, counted, u)
		}
		if _, err := u.Meters(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestSimulatedAnswers(t *testing.T) {
	cases := []struct {
		name, body, finish string
		want               domain.Usage
	}{
		{"tokens", `"messages":[{"role":"user","content":"sim:tokens=12"}]`, "stop", domain.Usage{Output: 12}},
		{"maximum", `"max_tokens":5,"messages":[{"role":"user","content":"sim:tokens=12"}]`, "length", domain.Usage{Output: 5}},
		{"exactly", `"max_tokens":12,"messages":[{"role":"user","content":"sim:tokens=12"}]`, "stop", domain.Usage{Output: 12}},
		{"the newer maximum", `"max_tokens":9,"max_completion_tokens":4,"messages":[{"role":"user","content":"sim:tokens=12"}]`,
			"length", domain.Usage{Output: 4}},
		{"choices", `"n":3,"messages":[{"role":"user","content":"sim:tokens=4 sim:reasoning=2"}]`, "stop",
			domain.Usage{Output: 18, Reasoning: 6}},
		{"reasoning first", `"max_tokens":10,"messages":[{"role":"user","content":"sim:tokens=4 sim:reasoning=8"}]`, "length",
			domain.Usage{Output: 10, Reasoning: 8}},
		{"cached", `"messages":[{"role":"user","content":"sim:tokens=1 sim:cached=5"}]`, "stop", domain.Usage{Output: 1, CachedInput: 5}},
		{"bounded", `"messages":[{"role":"user","content":"sim:tokens=16384 sim:reasoning=1"}]`, "length",
			domain.Usage{Output: SimulatedMaxOutput, Reasoning: 1}},
	}
	p := NewSimulated()
	for _, c := range cases {
		body := []byte(conformanceBody(c.body, false, false))
		got, err := p.Complete(t.Context(), Request{Body: body})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		c.want.Input, _ = CountPrompt("sim-small", body)
		if *got.Report.Usage != c.want || got.Report.FinishReason != c.finish {
			t.Errorf("%s: %s; want %+v", c.name, showReport(got.Report), c.want)
		}
	}
}

func TestSimulatedStreamsLikeOpenAI(t *testing.T) {
	body := conformanceBody(`"n":2,"messages":[{"role":"user","content":"sim:tokens=3"}]`, true, true)
	s := readStream(t.Context(), NewSimulated(), body)
	if s.err != nil || len(s.data) != 2*(3+2)+1 || s.usages != 1 {
		t.Fatalf("%d chunks, %d usages, %v", len(s.data), s.usages, s.err)
	}
	for i, data := range s.data {
		choice, last := gjson.Get(data, "choices.0"), i == len(s.data)-1
		if last != (gjson.Get(data, "choices").Raw == "[]") || last != gjson.Get(data, "usage").IsObject() {
			t.Errorf("chunk %d: %s", i, data)
		}
		if gjson.Get(data, "id").Str != gjson.Get(s.data[0], "id").Str || !gjson.Get(data, "usage").Exists() {
			t.Errorf("chunk %d: %s", i, data)
		}
		step := i % 5
		if !last && ((step == 0) != choice.Get("delta.role").Exists() ||
			(step == 4) != (choice.Get("finish_reason").Str == "stop")) {
			t.Errorf("chunk %d: %s", i, data)
		}
	}
	without := readStream(t.Context(), NewSimulated(), conformanceBody(`"messages":[{"role":"user","content":"x"}]`, true, false))
	if without.usages != 0 || without.report.Usage != nil || strings.Contains(without.data[0], "usage") {
		t.Errorf("usage was not asked for: %s", without.data[0])
	}
}

// TestSimulatedSaysWhatItServes: as real providers do, it names the model that it was called for, whatever the
// client had asked for: an alias, or the model whose fallback it is.
func TestSimulatedSaysWhatItServes(t *testing.T) {
	p := NewSimulated()
	r := Request{Model: "sim-small", Body: []byte(`{"model":"another","messages":[{"role":"user","content":"Hi"}]}`)}
	whole, err := p.Complete(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if gjson.GetBytes(whole.Body, "model").Str != "sim-small" || whole.Report.Model != "sim-small" {
		t.Errorf("%q served: %s", whole.Report.Model, whole.Body)
	}
	stream, err := p.Stream(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close() //nolint:errcheck // it has nothing to say
	chunk, err := stream.Next()
	if err != nil || gjson.GetBytes(chunk.Data, "model").Str != "sim-small" {
		t.Errorf("%v: %s", err, chunk.Data)
	}
}

func TestSimulatedIsDeterministic(t *testing.T) {
	body := Request{Body: []byte(conformanceBody(`"messages":[{"role":"user","content":"x"}]`, false, false))}
	a, _ := NewSimulated().Complete(t.Context(), body)
	b, _ := NewSimulated().Complete(t.Context(), body)
	if string(a.Body) != string(b.Body) {
		t.Errorf("%s\n%s", a.Body, b.Body)
	}
	other, _ := NewSimulated().Complete(t.Context(), Request{Body: []byte(strings.Replace(string(body.Body), `"x"`, `"y"`, 1))})
	if a.Text() == other.Text() || a.Report.UpstreamID == other.Report.UpstreamID {
		t.Error("another request got the same answer")
	}
}

func TestSimulatedStructuredAnswers(t *testing.T) {
	p := NewSimulated()
	tool, err := p.Complete(t.Context(), Request{Body: []byte(conformanceBody(
		`"messages":[{"role":"user","content":"x"}],"tool_choice":"required",`+weatherTool, false, false))})
	if err != nil {
		t.Fatal(err)
	}
	call := gjson.GetBytes(tool.Body, "choices.0.message.tool_calls.0")
	if call.Get("function.name").Str != "weather" || tool.Report.FinishReason != "tool_calls" || call.Get("id").Str == "" ||
		call.Get("function.arguments").Str != `{"stadt":"the","größe":"日本語 \"groß\""}` {
		t.Errorf("%s", tool.Body)
	}
	book, err := p.Complete(t.Context(), Request{Body: []byte(conformanceBody(
		`"messages":[{"role":"user","content":"x"}],"response_format":`+bookSchema, false, false))})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Title string
		Year  int
		Price float64
		New   bool
		Tags  []string
		Kind  string
		By    struct {
			Name string
			Boss json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(book.Text()), &got); err != nil || got.Year != 1900 || len(got.Tags) != 2 ||
		got.Kind != "book" || got.By.Name == "" || got.By.Boss == nil {
		t.Errorf("%s: %v", book.Text(), err)
	}
}

func TestSimulatedWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := readStream(t.Context(), NewSimulated(), conformanceBody(
			`"messages":[{"role":"user","content":"sim:delay=2s sim:pace=1s sim:tokens=3"}]`, true, true))
		if took := time.Since(start); s.err != nil || len(s.data) != 6 || took != 2*time.Second+6*time.Second {
			t.Errorf("%d chunks in %v, %v", len(s.data), took, s.err)
		}
		start = time.Now()
		s = readStream(t.Context(), NewSimulated(), conformanceBody(
			`"messages":[{"role":"user","content":"sim:delay=50s sim:pace=1h sim:tokens=3"}]`, true, true))
		if took := time.Since(start); s.err != nil || took != maxSimulatedWait {
			t.Errorf("bounded waiting took %v, %v", took, s.err)
		}
	})
}

func TestSimulatedEndsWithItsContext(t *testing.T) {
	for _, directive := range []string{"sim:hang", "sim:delay=10s", "sim:pace=10s"} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			start := time.Now()
			s := readStream(ctx, NewSimulated(), conformanceBody(
				`"messages":[{"role":"user","content":"`+directive+`"}]`, true, true))
			wantError(t, directive, s.err, KindCanceled, 0)
			if time.Since(start) != 3*time.Second || !errors.Is(s.err, context.DeadlineExceeded) {
				t.Errorf("%s: %v after %v", directive, s.err, time.Since(start))
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := NewSimulated().Complete(ctx, Request{Body: []byte(`{}`)})
	wantError(t, "canceled before", err, KindCanceled, 0)
}

func TestClosedStreamIsOver(t *testing.T) {
	body := conformanceBody(`"messages":[{"role":"user","content":"x"}]`, true, false)
	for _, p := range []Provider{NewSimulated(), simulatedUpstream(t, nil)} {
		stream, err := p.Stream(t.Context(), Request{Body: []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Next(); err != nil {
			t.Fatal(err)
		}
		if stream.Close() != nil || stream.Close() != nil {
			t.Error("Close may be repeated")
		}
		_, err = stream.Next()
		wantError(t, p.Name(), err, KindCanceled, 0)
		if stream.Report().Model != "sim-small" {
			t.Error("the report is gone")
		}
	}
}
