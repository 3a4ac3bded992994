package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// dial sends a request over a connection of its own, which the test then treats badly.
func (e *env) dial(conn net.Conn, account, path, body string) {
	e.t.Helper()
	_, err := io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+e.token(account)+
		"\r\nContent-Length: "+itoa(int64(len(body)))+"\r\n\r\n"+body)
	if err != nil {
		e.t.Fatal(err)
	}
}

// frames reads until so many frames of an event stream have come, and returns the response's header.
func frames(t *testing.T, r *bufio.Reader, n int) (header string) {
	t.Helper()
	for n > 0 {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%d frames are missing: %v", n, err)
		}
		if strings.HasPrefix(line, "data: ") {
			n--
		} else {
			header += line
		}
	}
	return header
}

// TestClientGone: clients that close their connection in the middle of things.
func TestClientGone(t *testing.T) {
	t.Parallel()
	upstreams, openai := both(t)
	simulated := &spy{Provider: upstreams["simulated"]}
	upstreams["simulated"] = simulated
	e := start(t, options{providers: upstreams})
	for _, model := range []string{"sim-small", "gpt-4o-mini"} {
		watched := simulated
		if model == "gpt-4o-mini" {
			watched = openai
		}
		watched.called = make(chan struct{}, 10)
		for _, c := range []struct {
			name, prompt, more string
			read               int // frames before the client goes
			life               string
		}{
			{"after some chunks", "sim:tokens=400 sim:pace=10ms", `,"stream":true`, 6, "reserve commit(counted) refund(remainder)"},
			{"after many chunks", "sim:tokens=3000 sim:pace=1ms", `,"stream":true`, 300, "reserve commit(counted) refund(remainder)"},
			{"after the role", "sim:tokens=400 sim:pace=20s", `,"stream":true`, 1, "reserve refund(client_abort)"},
			{"before the first chunk", "sim:delay=30s", `,"stream":true`, 0, "reserve refund(client_abort)"},
			{"of a stream that hangs", "sim:hang", `,"stream":true`, 0, "reserve refund(client_abort)"},
			{"of a whole answer", "sim:delay=30s", "", 0, "reserve refund(client_abort)"},
			{"of a whole answer that hangs", "sim:hang", "", 0, "reserve refund(client_abort)"},
		} {
			account := strings.ReplaceAll(model+"-"+c.name, " ", "-")
			conn, err := net.Dial("tcp", e.server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			before := e.endedSoFar()
			e.dial(conn, account, chatPath, chatBody(model, c.prompt, c.more))
			<-watched.called
			frames(t, bufio.NewReader(conn), c.read)
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			e.await(before + 1)
			checkAbort(t, e, account, c.name, c.life, int64(c.read))
		}
	}
}

func (e *env) endedSoFar() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ended
}

// checkAbort: the one request of the account lived as it should; a commit is for what was read, or a
// little more that was under way.
func checkAbort(t *testing.T, e *env, account, name, want string, read int64) {
	t.Helper()
	ids := e.asked.reserved(account)
	if len(ids) != 1 {
		t.Fatalf("%s: %d requests", name, len(ids))
	}
	l := e.life(account, ids[0])
	if l.String() != want {
		t.Errorf("%s of %s: %q, want %q", name, account, l, want)
	}
	if l.commit == nil {
		return
	}
	d := l.commitData()
	if out := d.Meters[domain.Output]; out < read-1 || out > read+200 {
		t.Errorf("%s of %s: %d tokens committed after %d frames", name, account, out, read)
	}
	if d.Meters[domain.Input] < 8 || d.Attempts[0].Error != "canceled" || d.ServiceTier != "default" {
		t.Errorf("%s of %s: %+v", name, account, d)
	}
}

// pipes is a listener without a network: its connections hold nothing back, so that a write waits
// for its reader, on the bubble's clock.
type pipes struct {
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func newPipes() *pipes { return &pipes{incoming: make(chan net.Conn), closed: make(chan struct{})} }

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.incoming:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.incoming <- there
	return here
}

func (p *pipes) listen(h http.Handler) *httptest.Server {
	s := &httptest.Server{Listener: p, Config: &http.Server{Handler: h}}
	s.Start()
	return s
}

// stalled serves one request whose client reads some frames and then nothing more, and returns how
// long the request lasted.
func stalled(t *testing.T, body string, read int, o options, check func(e *env)) time.Duration {
	var took time.Duration
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		o.listen = p.listen
		e := start(t, o)
		conn := p.dial()
		began := time.Now()
		e.dial(conn, "slow", chatPath, body)
		frames(t, bufio.NewReaderSize(conn, 16), read)
		e.await(1)
		took = time.Since(began)
		check(e)
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return took
}

// TestClientThatStopsReading: nobody can keep a stream, or the money held for it, open by not
// reading: a write that takes half a minute ends it.
func TestClientThatStopsReading(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, prompt, more string
		read               int
		life               string
		most               time.Duration
	}{
		{"stream", "sim:tokens=300", `,"stream":true`, 4, "reserve commit(counted) refund(remainder)", 31 * time.Second},
		{"stream, slow provider", "sim:tokens=300 sim:pace=2s", `,"stream":true`, 4, "reserve commit(counted) refund(remainder)", 50 * time.Second},
		{"stream, from the start", "sim:tokens=300", `,"stream":true`, 0, "reserve refund(client_abort)", 31 * time.Second},
		{"whole", "sim:tokens=9000", "", 0, "reserve commit(provider) refund(remainder)", 31 * time.Second},
		{"whole, slow provider", "sim:tokens=9000 sim:delay=50s", "", 0, "reserve commit(provider) refund(remainder)", 81 * time.Second},
	} {
		took := stalled(t, chatBody("sim-small", c.prompt, c.more), c.read, options{}, func(e *env) {
			if l := e.life("slow", e.asked.reserved("slow")[0]); l.String() != c.life {
				e.t.Errorf("%s: %q, want %q", c.name, l, c.life)
			}
		})
		if took < 29*time.Second || took > c.most {
			t.Errorf("%s: it lasted %s", c.name, took)
		}
	}
}

// TestAnswerThatIsNotRead: the last bytes of a short answer are written when the handler is done, and
// have to be bounded too: the connection ends.
func TestAnswerThatIsNotRead(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"whole": chatBody("sim-small", "sim:tokens=1", ""),
		"late": chatBody("sim-small", "sim:tokens=1 sim:delay=50s", ""), "error": "{", "late error": chatBody("sim-small", "sim:delay=50s sim:status=500", "")} {
		synctest.Test(t, func(t *testing.T) {
			p := newPipes()
			e := start(t, options{listen: p.listen})
			conn := p.dial()
			began := time.Now()
			e.dial(conn, "slow", chatPath, body)
			e.await(1)
			// The server's half of the pipe closes when it gives the client up; a write tells.
			if err := conn.SetWriteDeadline(began.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			for {
				if _, err := conn.Write([]byte("x")); err != nil {
					break
				}
			}
			if took := time.Since(began); took > 2*time.Minute {
				t.Errorf("%s: the connection was held for %s", name, took)
			}
			conn.Close() //nolint:errcheck // it is closed
		})
	}
}

// TestSlowClients: whoever takes an answer slowly, but takes it, gets all of it: it has been paid for.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	const size = 900 << 10
	frame := `{"x":"` + strings.Repeat("x", 1000) + `"}`
	p := &scripted{complete: func(context.Context, provider.Request) (*provider.Completion, error) {
		return &provider.Completion{Body: []byte(`{"choices":[],"x":"` + strings.Repeat("x", size) + `"}`), Report: provider.Report{Usage: &domain.Usage{Input: 9, Output: 3}}}, nil
	}, stream: func(context.Context, provider.Request) (provider.Stream, error) {
		return &chunks{list: repeated(frame, size/len(frame)), burst: true, report: provider.Report{Usage: &domain.Usage{Input: 9, Output: 3}}}, nil
	}}
	for _, path := range []string{chatPath, streamPath} {
		bubble(t, options{providers: map[string]provider.Provider{"simulated": p}}, func(t *testing.T, e *env) {
			body := chatBody("sim-small", "x", "")
			for _, what := range []string{"first", "repeat"} {
				began := time.Now()
				response, err := e.client.Do(e.keyed("slow", "k", path, body))
				if err != nil {
					t.Fatal(err)
				}
				got, err := int64(0), error(nil)
				for n := int64(0); err == nil; got += n { // 8 KiB a second
					<-time.After(time.Second)
					n, err = io.CopyN(io.Discard, response.Body, 8<<10)
				}
				if err != io.EOF || got < size-2000 || time.Since(began) < time.Minute {
					t.Errorf("%s, %s: %d bytes after %s, then %v", path, what, got, time.Since(began), err)
				}
				response.Body.Close() //nolint:errcheck // it has been read
			}
		})
	}
}

// TestBodyThatDoesNotCome: a request whose body never comes is over all the same, and costs nothing. One
// that was refused unread may go without its answer: net/http wants the body first.
func TestBodyThatDoesNotCome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, path, token, code string }{
		{"wanted", chatPath, "", "invalid_json"}, {"of a stranger", chatPath, "x", ""}, {"of nothing", "/nothing", "x", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPipes()
			e := start(t, options{listen: p.listen})
			conn := p.dial()
			began := time.Now()
			if c.token == "" {
				c.token = e.token("slow")
			}
			head := "POST " + c.path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + c.token + "\r\nContent-Length: 500\r\n\r\n{"
			if _, err := io.WriteString(conn, head); err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(conn) // until the server gives up
			if took := time.Since(began); took > 5*time.Minute || !strings.Contains(string(got), c.code) {
				t.Errorf("a body %s: after %s: %s", c.name, took, got)
			}
			e.untouched("half a body", "slow")
		})
	}
}

// TestLongStreamsAreNotCut: the bound is one of each write, not of the stream, and waiting for the
// provider does not count.
func TestLongStreamsAreNotCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		e := start(t, options{listen: p.listen, providers: map[string]provider.Provider{"simulated": &scripted{
			stream: func(_ context.Context, _ provider.Request) (provider.Stream, error) {
				return &chunks{list: repeated(`{"choices":[{"index":0,"delta":{"content":"a"}}]}`, 10), text: " a",
					at: func(int) { <-time.After(10 * time.Minute) }}, nil
			}}}})
		conn := p.dial()
		e.dial(conn, "long", chatPath, chatBody("sim-small", "x", `,"stream":true`))
		r := bufio.NewReader(conn)
		frames(t, r, 11)
		e.await(1)
		if l := e.life("long", e.asked.reserved("long")[0]); l.commitData().Meters[domain.Output] != 10 {
			t.Errorf("%s: %v", l, l.commitData().Meters)
		}
		conn.Close() //nolint:errcheck // done
	})
}

func repeated(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}
