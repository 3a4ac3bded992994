package gateway

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

const (
	// writeTime bounds one write to a client: one that does not take so much in that time is gone.
	writeTime = 30 * time.Second
	writePart = 32 << 10
	// maxDelivered bounds the text kept for counting a stream that ends without a usage, in bytes.
	// Beyond it the bound is charged.
	maxDelivered = 8 << 20
)

// announce sets the headers that are known before the first byte.
func (h *hold) announce(header http.Header) {
	header.Set("x-billing-request-id", h.id.String())
	if h.call.cap > 0 {
		header.Set("x-billing-output-cap", strconv.FormatInt(h.call.cap, 10))
	}
}

// complete serves a whole answer: it goes out only when its charge is durable.
func (h *hold) complete(c *gin.Context) error {
	var answer *provider.Completion
	err := h.attempts(func() (err error) {
		answer, err = h.call.complete(h.ctx)
		return err
	})
	if err != nil {
		return h.fail(err)
	}
	h.first = h.g.now()
	h.attempted(nil)
	h.g.circuits.ended(h.leave, nil)
	u := h.call.measure(answer.Report, answer.Text)
	h.kept.add(answer.Body)
	r, err := h.settle(u, false)
	if err != nil {
		return err
	}
	recordOf(c).receipt(u, r)
	r.announce(c.Writer.Header())
	c.Header("Content-Type", "application/json")
	writeParts(c, answer.Body)
	h.g.responses.keep(h.call, &u, answer.Body)
	return nil
}

// announce sets the headers of a whole answer's charge.
func (r receipt) announce(header http.Header) {
	header.Set("x-billing-cost", r.cost.String())
	if r.position.Seq > 0 {
		header.Set("x-billing-position", r.position.String())
	}
}

// comment is the frame that tells a stream's charge; clients pass over it.
func (r receipt) comment(id uuid.UUID) string {
	position := "null" // it waits in the journal, and has none yet
	if r.position.Seq > 0 {
		position = `"` + r.position.String() + `"`
	}
	return `: billing {"request_id":"` + id.String() + `","cost":"` + r.cost.String() + `","position":` + position + "}\n\n"
}

// controllerOf controls what is behind gin's writer, whose own Flush keeps to itself that it failed.
func controllerOf(c *gin.Context) *http.ResponseController {
	if gins, ok := c.Writer.(interface{ Unwrap() http.ResponseWriter }); ok {
		return http.NewResponseController(gins.Unwrap())
	}
	return http.NewResponseController(c.Writer)
}

// writeSoon bounds what is written from now on, by the wall clock. Nobody has to lift the bound: net/http
// does it when the request has ended, after the last bytes have left its buffers.
func writeSoon(c *gin.Context) {
	http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(writeTime)) //nolint:errcheck // a writer without deadlines has none to set
}

// writeParts answers with a body that is here already, part by part: whoever takes it slowly has all of it
// in the end, for it is paid for. A client that went away has lost nothing.
func writeParts(c *gin.Context, body []byte) {
	c.Status(http.StatusOK)
	for part := range slices.Chunk(body, writePart) {
		writeSoon(c)
		if _, err := c.Writer.Write(part); err != nil {
			return
		}
	}
}

// delivery is a stream on its way to a client.
type delivery struct {
	h       *hold
	c       *gin.Context
	control *http.ResponseController
	begun   bool    // the client has been sent something
	text    wording // what was written to it, for counting
	flushed int     // so much of text has left for it
	events  framing
	last    []byte // the frame that ends the answer, which waits for the charge; nil = none yet
	lost    bool   // text is longer than is kept
	gone    bool   // the client no longer takes anything
}

// stream passes chunks on as they come, and ends with `data: [DONE]` only when the charge is durable.
func (h *hold) stream(c *gin.Context) error {
	d := &delivery{h: h, c: c, control: controllerOf(c), events: framing{list: h.call.asking.list}}
	stream, chunk, err := h.open(d)
	if stream == nil {
		return h.fail(err)
	}
	defer stream.Close() //nolint:errcheck // whatever it says, the answer has been dealt with
	for ; err == nil; chunk, err = d.next(stream) {
		if d.send(chunk, stream); d.gone && h.kept == nil {
			stream.Close() //nolint:errcheck // the client is gone, and so is the provider's call
			err = &provider.Error{Kind: provider.KindCanceled, Provider: h.call.upstream.Name()}
			break
		}
	}
	return d.finish(stream, err)
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
func (d *delivery) send(chunk provider.Chunk, stream provider.Stream) {
	if d.h.first.IsZero() {
		d.h.first = d.h.g.now()
	}
	if chunk.UsageOnly && !d.h.call.asked.IncludeUsage {
		return
	}
	d.frame(&chunk)
	if d.text.length()+len(chunk.Text) > maxDelivered {
		d.lost = true
	} else {
		d.text.add(chunk.Text)
	}
	if !stream.More() {
		d.flush()
	}
}

// begin sends the headers, once.
func (d *delivery) begin() {
	if d.begun {
		return
	}
	d.begun = true
	d.events.header(d.c)
}

// frame sends one event, and keeps it where the answer is kept. The one that ends the answer waits.
func (d *delivery) frame(chunk *provider.Chunk) {
	before, after := d.events.around(chunk.Event)
	d.h.kept.add(before, chunk.Data, after)
	d.h.fresh.add(before, chunk.Data, after)
	if chunk.Last {
		d.last = slices.Concat(before, chunk.Data, after)
		return
	}
	d.begin()
	d.write(before, chunk.Data, after)
}

// write writes to the client. After a failure it counts as gone.
func (d *delivery) write(parts ...[]byte) {
	if d.gone {
		return
	}
	d.control.SetWriteDeadline(time.Now().Add(writeTime)) //nolint:errcheck // a writer without deadlines has none to set
	for _, part := range parts {
		if _, err := d.c.Writer.Write(part); err != nil {
			d.gone = true
			return
		}
	}
}

// flush sends what was written. Only then does it count as delivered; what is kept for whoever repeats
// the request is delivered too.
func (d *delivery) flush() {
	if d.begun && !d.gone && d.control.Flush() != nil {
		d.gone = true
	}
	if d.begun && (!d.gone || d.h.kept != nil) {
		d.flushed = d.text.length()
	}
}

// finish settles a stream that has ended, well (io.EOF) or not. What was delivered or reported is
// committed; where there was neither, everything goes back.
func (d *delivery) finish(stream provider.Stream, ended error) error {
	h := d.h
	d.flush()
	whole := errors.Is(ended, io.EOF)
	report := stream.Report()
	if whole {
		h.g.circuits.ended(h.leave, nil)
	} else {
		h.g.circuits.ended(h.leave, ended)
	}
	if !whole && d.flushed == 0 && report.Usage == nil {
		h.attempted(ended)
		if err := h.fail(ended); !d.begun {
			return err
		}
		d.cut(d.failure(ended))
		return nil
	}
	var failure []byte
	if whole {
		ended = nil
		if d.last != nil { // it goes out when it is paid for
			d.flushed = d.text.length()
		}
	} else {
		failure = d.failure(ended)
		h.kept.add(failure)
	}
	h.attempted(ended)
	u := d.used(report)
	r, err := h.settle(u, !whole)
	switch {
	case err != nil && !d.begun:
		return err
	case err != nil:
		d.cut(d.failure(err))
		return err
	}
	recordOf(d.c).receipt(u, r)
	if !whole {
		d.cut(failure)
		return nil
	}
	d.done(r)
	if h.fresh != nil {
		h.g.responses.keep(h.call, &u, h.fresh.body)
	}
	return nil
}

func (d *delivery) used(report provider.Report) used {
	k := d.h.call
	u := k.measure(report, func() string { return d.text.upTo(d.flushed) })
	if d.lost && u.source == domain.UsageCounted {
		u.meters[domain.Output] = k.need.OutputTokens
	}
	return u
}

// done ends a whole stream: the bill as a comment, which clients pass over, then the last byte.
func (d *delivery) done(r receipt) {
	d.begin()
	d.write(d.events.end(d.h.call.door, d.last, r.comment(d.h.id))...)
	d.flush()
}

// failure is the error event of a stream that broke off: the provider's own where it sent one.
func (d *delivery) failure(cause error) []byte {
	e := new(Error)
	errors.As(d.h.failure(cause), &e)
	if failed := new(provider.Error); errors.As(cause, &failed) && failed.Body != nil {
		e.Body = failed.Body
	}
	door := d.h.call.door
	before, after := d.events.around(door.event)
	return slices.Concat(before, door.failure(e), after)
}

// cut ends a stream that broke off, so that it fails in the client: an error event and no end.
func (d *delivery) cut(failure []byte) {
	if d.gone {
		return
	}
	d.begin()
	d.write(failure)
	d.flush()
}
