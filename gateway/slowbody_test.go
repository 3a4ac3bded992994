package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestSlowBody: who sends a body byte by byte is answered and cut off after two minutes, whether its length is
// known or not, and who is refused anyway after ten seconds. Nothing was held for them.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	const head, pace = "POST " + chatPath + " HTTP/1.1\r\nHost: x\r\n", 3 * time.Second
	for _, c := range []struct {
		name, account, framing, piece string
		status                        int
		after                         time.Duration
	}{
		{"a length", "sloth", "Content-Length: 1000\r\n\r\n", " ", http.StatusBadRequest, 2 * time.Minute},
		{"chunks", "sloth", "Transfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n", http.StatusBadRequest, 2 * time.Minute},
		{"nobody's", "", "Content-Length: 1000\r\n\r\n", " ", http.StatusUnauthorized, 10 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPipes()
			e := start(t, options{listen: p.listen})
			conn, began, credential := p.dial(), time.Now(), ""
			if c.account != "" {
				credential = "Authorization: Bearer " + e.token(c.account) + "\r\n"
			}
			sender := make(chan struct{})
			go func() { // ends when the other half is closed
				defer close(sender)
				fmt.Fprint(conn, head+credential+c.framing) //nolint:errcheck // the answer tells
				for tick := time.Tick(pace); ; <-tick {
					if _, err := io.WriteString(conn, c.piece); err != nil {
						return
					}
				}
			}()
			answer := bufio.NewReader(conn)
			resp, err := http.ReadResponse(answer, nil) //nolint:bodyclose // the connection is closed
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if _, err := io.Copy(io.Discard, answer); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if took := time.Since(began); resp.StatusCode != c.status || took < c.after-pace || took > c.after+pace {
				t.Errorf("%s: %d after %s", c.name, resp.StatusCode, took)
			}
			e.untouched(c.name, "sloth")
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			<-sender
		})
	}
}
