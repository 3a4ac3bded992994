package provider

import (
	"bytes"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

// benchChunk is a chunk as OpenAI sends it today.
const benchChunk = `{"id":"chatcmpl-D8EA5fF3qB9JXQ0fMSoKp3Li7ab0g","object":"chat.completion.chunk",` +
	`"created":1770853433,"model":"gpt-4.1-2025-04-14","service_tier":"default",` +
	`"system_fingerprint":"fp_a127cc0295","choices":[{"index":0,"delta":{"content":" plus"},` +
	`"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"dGvBcZD"}`

func BenchmarkEventReader(b *testing.B) {
	const events = 1000
	in := []byte(strings.Repeat("data: "+benchChunk+"\n\n", events))
	b.SetBytes(int64(len(in) / events))
	b.ReportAllocs()
	r := bytes.NewReader(in)
	e := newEventReader(r)
	for i := 0; b.Loop(); i++ {
		if i%events == 0 {
			r.Reset(in)
			*e = eventReader{r: r, buf: e.buf, data: e.data}
		}
		if _, _, err := e.next(); err != nil && err != io.EOF {
			b.Fatal(err)
		}
	}
}

func BenchmarkChunk(b *testing.B) {
	for name, data := range map[string]string{"text": benchChunk,
		"escaped": strings.Replace(benchChunk, " plus", `\n\u00e9`, 1)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			in := []byte(data)
			var a answer
			for b.Loop() {
				if _, err := a.chunk("p", in, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCountPrompt(b *testing.B) {
	body := []byte(`{"model":"sim-small","messages":[{"role":"user","content":"Write one short ` +
		`sentence about the sea, and stop."}]}`)
	b.ReportAllocs()
	for b.Loop() {
		CountPrompt("sim-small", body)
	}
}

// BenchmarkStream reads streams of 100 chunks: from the simulated provider directly, and from it
// over HTTP on loopback, both ends counted.
func BenchmarkStream(b *testing.B) {
	const text = `"messages":[{"role":"user","content":"hello sim:tokens=98"}]`
	server := httptest.NewServer(Handler(NewSimulated()))
	defer server.Close()
	remote, err := NewOpenAI(Config{BaseURL: server.URL})
	if err != nil {
		b.Fatal(err)
	}
	defer remote.CloseIdle()
	body := []byte(conformanceBody(text, true, false))
	for name, p := range map[string]Provider{"direct": NewSimulated(), "http": remote} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				stream, err := p.Stream(b.Context(), Request{Body: body})
				if err != nil {
					b.Fatal(err)
				}
				chunks := 0
				for err == nil {
					_, err = stream.Next()
					chunks++
				}
				if err != io.EOF || chunks != 101 {
					b.Fatalf("%d chunks, %v", chunks, err)
				}
				_ = stream.Close()
			}
		})
	}
}

func BenchmarkComplete(b *testing.B) {
	server := httptest.NewServer(Handler(NewSimulated()))
	defer server.Close()
	remote, err := NewOpenAI(Config{BaseURL: server.URL})
	if err != nil {
		b.Fatal(err)
	}
	defer remote.CloseIdle()
	body := []byte(conformanceBody(`"messages":[{"role":"user","content":"hello"}]`, false, false))
	for name, p := range map[string]Provider{"direct": NewSimulated(), "http": remote} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Complete(b.Context(), Request{Body: body}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
