package topic

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The bounds of every client.
const (
	dialTime    = 3 * time.Second        // to connect, TLS included
	keepAlive   = 5 * time.Second        // between TCP's questions whether the other side is there
	requestTime = 5 * time.Second        // for the answer to one request
	retryTime   = 8 * time.Second        // for all tries of one request
	firstPause  = 20 * time.Millisecond  // before the first retry; it doubles
	longPause   = 500 * time.Millisecond // the longest pause
	metadataAge = 250 * time.Millisecond // metadata are asked for at most this often
	maxResponse = 1 << 30                // bytes of one answer that still is one
)

// options are those of every client. A topic is made by Ensure or not at all: what a client made by
// asking would have the broker's retention, which deletes money.
func (c Config) options() []kgo.Opt {
	opts := []kgo.Opt{
		kgo.ClientID("llm-gateway"),
		kgo.SeedBrokers(c.Brokers...),
		kgo.Dialer(c.dial),
		kgo.RequestTimeoutOverhead(requestTime),
		kgo.RetryTimeout(retryTime),
		kgo.RetryBackoffFn(pause),
		kgo.MetadataMinAge(metadataAge),
		kgo.BrokerMaxReadBytes(maxResponse),
		kgo.DisableClientMetrics(),
	}
	if c.SASL != nil {
		opts = append(opts, kgo.SASL(c.SASL))
	}
	if c.Log != nil {
		opts = append(opts, kgo.WithLogger(debugLog{c.Log}))
	}
	return opts
}

// pause is the wait before a retry, after so many failures.
func pause(failures int) time.Duration {
	p := firstPause
	for range failures - 1 {
		if p *= 2; p >= longPause {
			return longPause
		}
	}
	return p
}

// dial connects, as c.Dial does it if that is set, with TLS on top if that is.
func (c Config) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: keepAlive}).DialContext
	}
	plain, err := dial(ctx, network, address)
	if err != nil || c.TLS == nil {
		return plain, err
	}
	config := c.TLS.Clone()
	if config.ServerName == "" {
		if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
			config.ServerName = address
		}
	}
	conn := tls.Client(plain, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		plain.Close() //nolint:errcheck // nothing has been sent on it
		return nil, err
	}
	return conn, nil
}

// debugLog takes what the client says about itself. What matters comes back as an error; the rest is
// for whoever looks for a fault, whatever the client thinks of its weight.
type debugLog struct{ log *slog.Logger }

// Level implements kgo.Logger.
func (d debugLog) Level() kgo.LogLevel {
	if d.log.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelNone
}

// Log implements kgo.Logger.
func (d debugLog) Log(level kgo.LogLevel, message string, pairs ...any) {
	d.log.Debug("kafka: "+message, append(pairs, "kafka_level", level.String())...)
}

// promptly makes a call end when ctx does. The client's own calls do not always: one that waits for a
// connection which is being opened stays until that is open or has failed. What it finds then, within
// requestTime or when its client is closed, is for nobody.
func promptly[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		value, err := call()
		done <- answer{value, err}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}
