package provider_test

import (
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"llm-gateway/gateway/provider"
)

// TestPackedAnswer: an answer that is short on the way and long when it is unpacked is cut off at the bound of
// unpacked ones.
func TestPackedAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "application/json")
		packed := gzip.NewWriter(w)
		part := []byte(strings.Repeat(" ", 1<<20))
		for range provider.MaxAnswerBytes/len(part) + 8 {
			if _, err := packed.Write(part); err != nil {
				return // it was cut off
			}
		}
		packed.Close() //nolint:errcheck // nobody reads that far
	}))
	t.Cleanup(server.Close)
	p, err := provider.NewOpenAI(provider.Config{BaseURL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := p.Complete(t.Context(), provider.Request{Model: "m", Body: []byte(`{"model":"m","messages":[]}`)})
	if err == nil || answer != nil {
		t.Errorf("%v, %v", answer, err)
	}
}
