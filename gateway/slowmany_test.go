package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"llm-gateway/gateway"
)

// sloth is a connection whose body does not come to its end.
type sloth struct {
	net.Conn
	answer *bufio.Reader
}

// ofLength frames a body by its length, of which little comes.
func ofLength(size int) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n          ", size) }

// inChunks frames a body whose length nobody says, of which a chunk comes.
func inChunks(size int) string {
	return fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", size, strings.Repeat(" ", size))
}

// sluggish begins so many requests of an account, each with a part of its body, and returns when the gateway has
// that and waits for more. It must be in a bubble.
func (p *pipes) sluggish(e *env, account string, many int, body string) []sloth {
	e.t.Helper()
	out := make([]sloth, many)
	for i := range out {
		conn := p.dial()
		out[i] = sloth{conn, bufio.NewReader(conn)}
		go fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s", chatPath, e.token(account), body) //nolint:errcheck // the answer tells
	}
	synctest.Wait()
	return out
}

// refusal is the status that a sloth was answered with; 0: nothing yet.
func (s sloth) refusal(t *testing.T) int {
	t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil { // of the bubble
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(s.answer, nil)
	if err != nil {
		return 0
	}
	resp.Body.Close() //nolint:errcheck // nobody reads it
	return resp.StatusCode
}

// TestSlowSendersHoldNoSlot: whoever sends bodies slowly has no slot meanwhile, however many they are; the calls
// of others are served, and so are their own.
func TestSlowSendersHoldNoSlot(t *testing.T) {
	t.Parallel()
	for name, most := range map[string]gateway.InFlight{"in all": {Most: 2}, "of an account": {Most: 2, PerAccount: 1}} {
		synctest.Test(t, func(t *testing.T) {
			p := newPipes()
			e := start(t, options{listen: p.listen, inFlight: most})
			slow := p.sluggish(e, "sloth", 10, ofLength(1000))
			for _, account := range []string{"alice", "bob", "sloth"} {
				if a := e.through(p, account, chatBody("sim-small", "x", "")); a != http.StatusOK {
					t.Errorf("%s: %s: %d", name, account, a)
				}
			}
			for i, s := range slow {
				if status := s.refusal(t); status != 0 {
					t.Errorf("%s: slow sender %d: %d", name, i, status)
				}
				s.Close() //nolint:errcheck // it is no longer needed
			}
			synctest.Wait()
			if taken, accounts, waiting := gateway.SlotsOf(e.gw).Kept(); taken+accounts+waiting != 0 {
				t.Errorf("%s: %d, %d, %d are kept", name, taken, accounts, waiting)
			}
		})
	}
}

// through sends a chat completion over a pipe of its own, and returns its status.
func (e *env) through(p *pipes, account, body string) int {
	e.t.Helper()
	conn := p.dial()
	defer conn.Close() //nolint:errcheck // it is no longer needed
	// Through a pipe nothing is written before it is read, and a refusal may come before all is.
	go fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", chatPath, e.token(account), len(body), body) //nolint:errcheck // the answer tells
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		e.t.Errorf("%s: %v", account, err)
		return 0
	}
	defer resp.Body.Close() //nolint:errcheck // the connection is closed
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		e.t.Errorf("%s: %v", account, err)
	}
	return resp.StatusCode
}

// TestSlowSendersHoldNoRoom: bodies that are being read are bounded by their size, whether they say it or not, and
// those of one account leave others half of the room. Small bodies need none. What was taken is given back.
func TestSlowSendersHoldNoRoom(t *testing.T) {
	t.Parallel()
	const (
		room = 1 << 20
		big  = 200_000 // bytes, for which a quarter of that is taken
	)
	large := chatBody("sim-small", strings.Repeat("x", big), "")
	for name, slowly := range map[string]string{"a length": ofLength(big), "chunks": inChunks(big)} {
		synctest.Test(t, func(t *testing.T) {
			p := newPipes()
			e := start(t, options{listen: p.listen})
			gateway.BoundBodies(e.gw, room)
			slow := p.sluggish(e, "sloth", 3, slowly)
			slow = append(slow, p.sluggish(e, "sloth", 40, ofLength(60_000))...)
			if taken, accounts := gateway.BodiesOf(e.gw); taken != room/2 || accounts != 1 {
				t.Errorf("%s: %d bytes of %d accounts are taken", name, taken, accounts)
			}
			if a := e.through(p, "sloth", large); a != http.StatusServiceUnavailable {
				t.Errorf("%s: its own next: %d", name, a)
			}
			for account, body := range map[string]string{"sloth": chatBody("sim-small", "x", ""), "alice": large, "bob": large} {
				if a := e.through(p, account, body); a != http.StatusOK {
					t.Errorf("%s: %s: %d", name, account, a)
				}
			}
			metrics := httptest.NewRecorder()
			if e.gw.Handler().ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil)); !strings.Contains(metrics.Body.String(),
				`rate_limit_requests_total{result="refused",scope="bodies"} 2`) { // the third of the slow ones, and its own next
				t.Errorf("%s: the refusals are not counted", name)
			}
			for _, s := range slow {
				s.Close() //nolint:errcheck // it is no longer needed
			}
			synctest.Wait()
			if taken, accounts := gateway.BodiesOf(e.gw); taken != 0 || accounts != 0 {
				t.Errorf("%s: %d bytes of %d accounts are kept", name, taken, accounts)
			}
		})
	}
}

// TestRoomUntilASlot: a body that waits for a slot has its room, and one that has a slot has given it back.
func TestRoomUntilASlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		e := start(t, options{listen: p.listen, inFlight: gateway.InFlight{Most: 1, Wait: time.Minute}})
		leave, err := gateway.SlotsOf(e.gw).Enter(t.Context(), "somebody")
		if err != nil {
			t.Fatal(err)
		}
		room := func(when string, want bool) {
			t.Helper()
			if taken, _ := gateway.BodiesOf(e.gw); (taken != 0) != want {
				t.Errorf("%s: %d bytes are taken", when, taken)
			}
		}
		ended := make(chan int, 1)
		go func() {
			ended <- e.through(p, "alice", chatBody("sim-small", strings.Repeat("x", 200_000)+" sim:tokens=5 sim:pace=1s", `,"stream":true`))
		}()
		synctest.Wait()
		room("waiting", true)
		leave()
		synctest.Wait()
		room("streaming", false)
		if len(ended) > 0 {
			t.Error("it has ended")
		}
		if status := <-ended; status != http.StatusOK {
			t.Errorf("%d", status)
		}
	})
}

// TestRoomForBodies is the table of who gets room for how much, after the others.
func TestRoomForBodies(t *testing.T) {
	t.Parallel()
	type ask struct {
		account string
		more    int64
		got     bool
	}
	for name, asks := range map[string][]ask{
		"half of all":             {{"a", 50, true}, {"a", 1, false}},
		"bit by bit":              {{"a", 30, true}, {"a", 20, true}, {"a", 1, false}},
		"at once":                 {{"a", 51, false}, {"a", 50, true}},
		"a second has its half":   {{"a", 50, true}, {"b", 26, false}, {"b", 25, true}, {"c", 12, true}, {"c", 1, false}},
		"no less for the first":   {{"b", 20, true}, {"a", 40, true}, {"a", 1, false}, {"b", 10, true}, {"b", 1, false}},
		"more than half was held": {{"a", 50, true}, {"b", 10, true}, {"a", 1, false}},
		"never all":               {{"a", 50, true}, {"b", 25, true}, {"c", 12, true}, {"d", 6, true}, {"e", 3, true}, {"f", 2, true}, {"g", 1, true}, {"h", 1, false}},
	} {
		b := gateway.NewBodies(100)
		for i, a := range asks {
			if got := b.Take(a.account, a.more); got != a.got {
				t.Errorf("%s, step %d: %+v: %v", name, i, a, got)
			}
		}
	}
}
