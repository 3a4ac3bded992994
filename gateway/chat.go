package gateway

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

const (
	surfaceChat = "chat_completions"
	// writeTime bounds one write to a client: one that takes nothing for that long is gone.
	writeTime = 30 * time.Second
	// maxDelivered bounds the text kept for counting a stream that ends without a usage, in bytes.
	// Beyond it the bound is charged.
	maxDelivered = 8 << 20
)

// chatCompletions is POST /v1/chat/completions.
func (g *Gateway) chatCompletions(c *gin.Context) error { return g.meter(c, surfaceChat, false) }

// chatCompletionsStream is POST /v1/chat/completions/stream: it always streams.
func (g *Gateway) chatCompletionsStream(c *gin.Context) error { return g.meter(c, surfaceChat, true) }

// announce sets the headers that are known before the first byte.
func (h *hold) announce(header http.Header) {
	header.Set("x-billing-request-id", h.id.String())
	if h.call.cap > 0 {
		header.Set("x-billing-output-cap", strconv.FormatInt(h.call.cap, 10))
	}
}

// complete serves a whole answer: it goes out only when its charge is durable.
func (h *hold) complete(c *gin.Context) error {
	answer, err := h.call.upstream.Complete(c.Request.Context(), h.call.request())
	if err != nil {
		return h.fail(err)
	}
	h.first = h.g.now()
	h.attempted(nil)
	u := h.call.measure(answer.Report, answer.Text)
	r, err := h.settle(u)
	if err != nil {
		return err
	}
	recordOf(c).receipt(u, r)
	c.Header("x-billing-cost", r.cost.String())
	c.Header("x-billing-position", r.position.String())
	writeSoon(c)
	c.Data(http.StatusOK, "application/json", answer.Body)
	return nil
}

// writeSoon bounds what is written from now on, by the wall clock. Nobody has to lift the bound: net/http
// does it when the request has ended, after the last bytes have left its buffers.
func writeSoon(c *gin.Context) {
	http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(writeTime)) //nolint:errcheck // a writer without deadlines has none to set
}

// delivery is a stream on its way to a client.
type delivery struct {
	h       *hold
	c       *gin.Context
	control *http.ResponseController
	begun   bool            // the client has been sent something
	text    strings.Builder // what was written to it, for counting
	flushed int             // so much of text has left for it
	lost    bool            // text is longer than is kept
	gone    bool            // the client no longer takes anything
}

// stream passes chunks on as they come, and ends with `data: [DONE]` only when the charge is durable.
func (h *hold) stream(c *gin.Context) error {
	stream, err := h.call.upstream.Stream(c.Request.Context(), h.call.request())
	if err != nil {
		return h.fail(err)
	}
	defer stream.Close() //nolint:errcheck // whatever it says, the answer has been dealt with
	d := &delivery{h: h, c: c, control: http.NewResponseController(c.Writer)}
	for {
		chunk, err := d.next(stream)
		if err != nil {
			return d.finish(stream, err)
		}
		if d.send(chunk, stream.More()); d.gone {
			stream.Close() //nolint:errcheck // the client is gone, and so is the provider's call
			return d.finish(stream, &provider.Error{Kind: provider.KindCanceled, Provider: h.call.upstream.Name()})
		}
	}
}

// next waits for the next chunk. A panic there is an end like any other, because what was delivered
// before it is to be charged.
func (d *delivery) next(stream provider.Stream) (chunk provider.Chunk, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = d.h.g.panicked(d.c, p)
		}
	}()
	return stream.Next()
}

// send passes one chunk on, unless the client did not ask for it. Where more is here already, it
// leaves together with that: a burst costs one system call, and no chunk waits for another's coming.
func (d *delivery) send(chunk provider.Chunk, more bool) {
	if d.h.first.IsZero() {
		d.h.first = d.h.g.now()
	}
	if chunk.UsageOnly && !d.h.call.asked.includeUsage {
		return
	}
	d.begin()
	d.write("data: ", chunk.Data, "\n\n")
	if d.text.Len()+len(chunk.Text) > maxDelivered {
		d.lost = true
	} else {
		d.text.Write(chunk.Text)
	}
	if !more {
		d.flush()
	}
}

// begin sends the headers, once.
func (d *delivery) begin() {
	if d.begun {
		return
	}
	d.begun = true
	header := d.c.Writer.Header()
	header.Set("Content-Type", "text/event-stream; charset=utf-8")
	header.Set("Cache-Control", "no-cache")
	header.Set("X-Accel-Buffering", "no")
	d.c.Status(http.StatusOK)
}

// write writes one frame. After a failure the client counts as gone.
func (d *delivery) write(before string, data []byte, after string) {
	d.control.SetWriteDeadline(time.Now().Add(writeTime)) //nolint:errcheck // a writer without deadlines has none to set
	_, err1 := io.WriteString(d.c.Writer, before)
	_, err2 := d.c.Writer.Write(data)
	_, err3 := io.WriteString(d.c.Writer, after)
	if errors.Join(err1, err2, err3) != nil {
		d.gone = true
	}
}

// flush sends what was written. Only then does it count as delivered.
func (d *delivery) flush() {
	if d.gone || !d.begun {
		return
	}
	if d.control.Flush() != nil {
		d.gone = true
		return
	}
	d.flushed = d.text.Len()
}

// finish settles a stream that has ended, well (io.EOF) or not. What was delivered or reported is
// committed; where there was neither, everything goes back.
func (d *delivery) finish(stream provider.Stream, ended error) error {
	h := d.h
	d.flush()
	whole := errors.Is(ended, io.EOF)
	report := stream.Report()
	if !whole && d.flushed == 0 && report.Usage == nil {
		if err := h.fail(ended); !d.begun {
			return err
		}
		d.cut(ended)
		return nil
	}
	if whole {
		ended = nil
	}
	h.attempted(ended)
	u := d.used(report)
	r, err := h.settle(u)
	switch {
	case err != nil && !d.begun:
		return err
	case err != nil:
		d.cut(err)
		return err
	}
	recordOf(d.c).receipt(u, r)
	if !whole {
		d.cut(ended)
		return nil
	}
	d.done(r)
	return nil
}

func (d *delivery) used(report provider.Report) used {
	k := d.h.call
	u := k.measure(report, func() string { return d.text.String()[:d.flushed] })
	if d.lost && u.source == domain.UsageCounted {
		u.meters[domain.Output] = k.need.OutputTokens
	}
	return u
}

// done ends a whole stream: the bill as a comment, which clients pass over, then the last byte.
func (d *delivery) done(r receipt) {
	d.begin()
	bill := `: billing {"request_id":"` + d.h.id.String() + `","cost":"` + r.cost.String() +
		`","position":"` + r.position.String() + `"}` + "\n\n"
	d.write(bill, []byte("data: [DONE]"), "\n\n")
	d.flush()
}

// cut ends a stream that broke off, so that it fails in the client: an error event and no [DONE].
func (d *delivery) cut(cause error) {
	if d.gone {
		return
	}
	e := new(Error)
	if !errors.As(cause, &e) {
		errors.As(providerError(d.h.call.upstream.Name(), cause), &e)
	}
	if failed := new(provider.Error); errors.As(cause, &failed) && failed.Body != nil {
		e = &Error{Body: failed.Body}
	}
	d.begin()
	d.write("data: ", e.body(), "\n\n")
	d.flush()
}
