package bench

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
)

// listening starts a party and returns its address; it ends with the test.
func listening(t *testing.T, party func(ctx context.Context, out io.Writer) error) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- party(ctx, w) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	url, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(url)
}

// TestRun measures a proxy against itself: every request is answered, counted and timed.
func TestRun(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("process times are read from /proc")
	}
	upstream := listening(t, Upstream)
	proxy := listening(t, func(ctx context.Context, out io.Writer) error { return Proxy(ctx, out, upstream) })
	target := func(name string) Target {
		return Target{URL: proxy, Processes: map[string]int{name: os.Getpid()}}
	}
	report, err := Run(t.Context(), Config{Gateway: target("gateway"), Proxy: target("proxy"), Model: "sim-small",
		Requests: 200, Rounds: 2, Connections: 8})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Figures) != 4 {
		t.Fatalf("%d figures, not 2 parties in 2 modes", len(report.Figures))
	}
	for _, f := range report.Figures {
		if f.Requests != 400 || f.CPUMicros[f.Party] <= 0 || f.PerSecond <= 0 || f.P50Millis <= 0 || f.P99Millis < f.P50Millis {
			t.Errorf("implausible: %+v", f)
		}
	}
	var text bytes.Buffer
	report.WriteText(&text)
	for _, want := range []string{"whole", "streamed", "gateway / proxy: "} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, text.String())
		}
	}
}

// TestLoadRefusesBadAnswers: a bench whose requests fail measures nothing.
func TestLoadRefusesBadAnswers(t *testing.T) {
	answers := map[string]struct {
		stream bool
		serve  http.HandlerFunc
	}{
		"error status": {false, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusPaymentRequired) }},
		"no usage":     {false, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{}`) }},
		"cut stream":   {true, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "data: {}\n\n") }},
	}
	for name, a := range answers {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(a.serve)
			defer server.Close()
			_, err := Load(t.Context(), LoadConfig{URL: server.URL, Body: []byte("{}"), Stream: a.stream, Requests: 4, Connections: 2})
			if err == nil {
				t.Error("the load was content with it")
			}
		})
	}
}

// TestBounds: a bench is bounded in count.
func TestBounds(t *testing.T) {
	for _, c := range []Config{{}, {Requests: maxRequests + 1, Connections: 1, Rounds: 1}, {Requests: 1, Connections: maxConnections + 1, Rounds: 1}} {
		if _, err := Run(t.Context(), c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
