package receivertest

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Badness is how a receiver behaves badly.
type Badness string

// The bad receivers.
const (
	Hangs   Badness = "hangs"   // takes the connection, and never answers
	Fails   Badness = "fails"   // answers 500
	Refuses Badness = "refuses" // answers 503 with a long Retry-After
	Garbage Badness = "garbage" // answers what is not HTTP
	Resets  Badness = "resets"  // breaks the connection
	Drips   Badness = "drips"   // answers a byte at a time, for ever
	Floods  Badness = "floods"  // answers without an end
	Absent  Badness = "absent"  // is not there
)

// Bads are all of them.
var Bads = []Badness{Hangs, Fails, Refuses, Garbage, Resets, Drips, Floods, Absent}

const (
	dripEvery = 50 * time.Millisecond
	floodPart = 64 << 10
)

// Bad is a receiver that behaves badly.
type Bad struct {
	how   Badness
	URL   string
	Tries atomic.Int64 // connections that were made
	mu    sync.Mutex
	open  map[net.Conn]bool
	ended chan struct{}
}

// NewBad serves until the test ends.
func NewBad(t testing.TB, how Badness) *Bad {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed when the test ends
	if err != nil {
		t.Fatal(err)
	}
	b := &Bad{how: how, URL: "http://" + listener.Addr().String(), open: map[net.Conn]bool{}, ended: make(chan struct{})}
	if how == Absent {
		listener.Close() //nolint:errcheck // it was only to find a port
		return b
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			b.Tries.Add(1)
			b.hold(conn, true)
			serving.Go(func() {
				b.answer(conn)
				b.hold(conn, false)
				conn.Close() //nolint:errcheck // it has been treated badly
			})
		}
	})
	t.Cleanup(func() {
		close(b.ended)
		listener.Close() //nolint:errcheck // it ends
		b.mu.Lock()
		for conn := range b.open {
			conn.Close() //nolint:errcheck // it ends
		}
		b.mu.Unlock()
		serving.Wait()
	})
	return b
}

func (b *Bad) hold(conn net.Conn, open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if delete(b.open, conn); open {
		b.open[conn] = true
	}
}

// answer answers requests until the connection ends.
func (b *Bad) answer(conn net.Conn) {
	in := bufio.NewReader(conn)
	for {
		request, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if b.how == Resets {
			conn.(*net.TCPConn).SetLinger(0) //nolint:errcheck // then it only ends
			return
		}
		request.Body.Close() //nolint:errcheck // it is read so far as the next request needs
		if !b.misbehave(conn) {
			return
		}
	}
}

// misbehave answers one request, and says whether another may come.
func (b *Bad) misbehave(conn net.Conn) bool {
	say := func(text string) bool {
		_, err := conn.Write([]byte(text))
		return err == nil
	}
	switch b.how {
	case Fails:
		return say("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops")
	case Refuses:
		return say("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n")
	case Garbage:
		say("\x16\x03\x01\x00garbage, and no HTTP\r\n\r\n\x00\xff")
		return false
	case Drips:
		for say("H") {
			select {
			case <-time.After(dripEvery):
			case <-b.ended:
				return false
			}
		}
	case Floods:
		say("HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 1099511627776\r\n\r\n")
		for part := string(make([]byte, floodPart)); say(part); {
		}
	default:
		<-b.ended
	}
	return false
}
