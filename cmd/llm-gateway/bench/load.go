package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// LoadConfig is one burst of equal requests.
type LoadConfig struct {
	URL         string // of the server; the path is added
	Token       string
	Body        []byte
	Stream      bool
	Requests    int
	Connections int
}

// LoadResult is what a burst came to.
type LoadResult struct {
	Took      time.Duration
	Latencies []time.Duration // one per request, in no order
}

// Load sends the requests over so many connections at once, each waiting for its answer before it
// asks again. The first answer that is not a good one ends it with an error.
func Load(ctx context.Context, c LoadConfig) (*LoadResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	transport := &http.Transport{MaxIdleConnsPerHost: c.Connections, MaxConnsPerHost: c.Connections,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	result := &LoadResult{Latencies: make([]time.Duration, c.Requests)}
	var next atomic.Int64
	var wait sync.WaitGroup
	began := time.Now()
	for range c.Connections {
		wait.Go(func() {
			var buffer bytes.Buffer
			for i := next.Add(1) - 1; i < int64(c.Requests) && ctx.Err() == nil; i = next.Add(1) - 1 {
				asked := time.Now()
				if err := c.one(ctx, client, &buffer); err != nil {
					cancel(fmt.Errorf("request %d: %w", i, err))
					return
				}
				result.Latencies[i] = time.Since(asked)
			}
		})
	}
	wait.Wait()
	result.Took = time.Since(began)
	return result, context.Cause(ctx)
}

// one sends a request and reads its whole answer.
func (c *LoadConfig) one(ctx context.Context, client *http.Client, buffer *bytes.Buffer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+"/v1/chat/completions", bytes.NewReader(c.Body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+c.Token)
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it has been read to its end
	buffer.Reset()
	if _, err := io.Copy(buffer, answer.Body); err != nil {
		return err
	}
	switch {
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("status %d: %.200s", answer.StatusCode, buffer.String())
	case c.Stream && !bytes.HasSuffix(buffer.Bytes(), []byte("data: [DONE]\n\n")):
		return fmt.Errorf("the stream does not end with [DONE]: ...%.80s", tail(buffer.Bytes()))
	case !c.Stream && !bytes.Contains(buffer.Bytes(), []byte(`"usage"`)):
		return fmt.Errorf("the answer has no usage: %.200s", buffer.String())
	}
	return nil
}

func tail(b []byte) []byte { return b[max(0, len(b)-80):] }
