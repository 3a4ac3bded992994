package telemetry

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

const (
	// dialTime bounds TCP and TLS set-up, each.
	dialTime = 5 * time.Second
	// maxAnswer bounds what is read of a receiver's answer, in bytes.
	maxAnswer = 64 << 10
	// maxAnswerHeader bounds its headers.
	maxAnswerHeader = 16 << 10
	// firstPause is before the second try, and doubles up to longestPause.
	firstPause, longestPause = time.Second, 5 * time.Second
)

// newHTTPClient is a client of one receiver. Proxies are those that the providers are reached by.
func newHTTPClient() *http.Client {
	dialer := &net.Dialer{Timeout: dialTime}
	return &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSHandshakeTimeout: dialTime,
			ForceAttemptHTTP2: true, MaxConnsPerHost: 2, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxAnswerHeader},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// errUnanswered is all that is told of a transport's error: its own text has addresses in it.
var errUnanswered = errors.New("it cannot be reached, or does not answer in time")

// statusError is a refusal. What the receiver said of it stays unsaid: it may have quoted a key.
type statusError struct {
	status int
	after  time.Duration // when to come again; 0 = as you like
}

func (e *statusError) Error() string { return fmt.Sprintf("it answered with status %d", e.status) }

// again says whether the same may be taken later, as OTLP has it.
func again(err error) (time.Duration, bool) {
	refused := new(statusError)
	if !errors.As(err, &refused) {
		return 0, true
	}
	switch refused.status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return refused.after, true
	}
	return 0, false
}

// post sends a body until it is taken, refused for good, or ctx ends.
func post(ctx context.Context, client *http.Client, url string, header http.Header, body []byte) ([]byte, error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		answer, err := postOnce(ctx, client, url, header, body)
		if err == nil {
			return answer, nil
		}
		after, more := again(err)
		deadline, bounded := ctx.Deadline()
		wait := max(pause, after)
		if !more || bounded && time.Until(deadline) < wait {
			return nil, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}

func postOnce(ctx context.Context, client *http.Client, url string, header http.Header, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, errUnanswered
	}
	request.Header = header
	response, err := client.Do(request)
	if err != nil {
		return nil, errUnanswered
	}
	defer response.Body.Close() //nolint:errcheck // its answer has been read
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if response.StatusCode < 200 || response.StatusCode > 299 {
		seconds, _ := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 16)
		return nil, &statusError{response.StatusCode, time.Duration(seconds) * time.Second}
	}
	if err != nil {
		return nil, errUnanswered
	}
	return answer, nil
}

// packed is a body in gzip.
func packed(body []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(body) //nolint:errcheck // a buffer takes everything
	w.Close()     //nolint:errcheck // the same
	return out.Bytes()
}
