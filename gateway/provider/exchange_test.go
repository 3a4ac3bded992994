package provider

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// TestReaderBeyondTheTotal: what is here already is not read when a call may take no longer.
func TestReaderBeyondTheTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := NewOpenAI(Config{BaseURL: "http://upstream.test", TotalTimeout: time.Minute,
			Transport: &scripted{parts: []string{chunkEvent, doneEvent}}})
		if err != nil {
			t.Fatal(err)
		}
		stream, err := p.Stream(t.Context(), Request{})
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close() //nolint:errcheck // it was read
		if _, err := stream.Next(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		_, err = stream.Next()
		wantError(t, "too late", err, KindTimeout, 200)
	})
}

// TestUnreached: which failures say that there was no connection.
func TestUnreached(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + listener.Addr().String()
	_ = listener.Close()
	serve := func(handle func(net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				handle(conn)
			}
		}()
		return l.Addr().String()
	}
	leaves := serve(func(c net.Conn) { _, _ = c.Read(make([]byte, 1)); _ = c.Close() })
	silent := serve(func(c net.Conn) { t.Cleanup(func() { _ = c.Close() }) })
	selfSigned := httptest.NewTLSServer(http.NotFoundHandler())
	selfSigned.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(selfSigned.Close)
	for name, c := range map[string]struct {
		url       string
		kind      Kind
		unreached bool
	}{ // where a timeout is meant it is short; elsewhere a machine may be as slow as it likes
		"nobody listens":           {closed, KindUpstream, true},
		"no such name":             {"http://no-such-host.invalid", KindUpstream, true},
		"it leaves":                {"http://" + leaves, KindUpstream, false},
		"it says nothing":          {"http://" + silent, KindTimeout, false},
		"no TLS in time":           {"https://" + silent, KindTimeout, true},
		"no TLS at all":            {"https://" + leaves, KindUpstream, false},
		"a certificate of its own": {selfSigned.URL, KindUpstream, true},
	} {
		patience := time.Minute
		if c.kind == KindTimeout {
			patience = 100 * time.Millisecond
		}
		connect, header := time.Minute, patience
		if c.unreached {
			connect, header = patience, time.Minute
		}
		p := client(t, c.url, func(c *Config) { c.ConnectTimeout, c.HeaderTimeout = connect, header })
		_, err := p.Complete(t.Context(), Request{Body: []byte("{}")})
		if e := wantError(t, name, err, c.kind, 0); e.Unreached != c.unreached {
			t.Errorf("%s: unreached: %t: %v", name, e.Unreached, e)
		}
	}
}
