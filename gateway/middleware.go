package gateway

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"llm-gateway/gateway/observe/trace"
)

// Keys of what the middleware keeps in gin's context.
const (
	keyIdentity = "identity"
	keyRecord   = "record"
	keyError    = "error"
)

// record is what is known of a request when it ends: its log line and its metrics.
type record struct {
	requestID string
	model     string // from the price book only, so that labels are bounded
	hold      *hold
	used      used
	bill      receipt
	billed    bool
	trace     *trace.Request // nil: nobody follows it
	limited   string         // whose limit refused it: account, key or all; "" = none did
	bodyRead  bool           // as far as it came
	room      bodyRoom       // of its body
	replayed  uuid.UUID      // the request whose answer this one's is; uuid.Nil = its own
}

func (r *record) receipt(u used, bill receipt) { r.used, r.bill, r.billed = u, bill, true }

func recordOf(c *gin.Context) *record { return c.MustGet(keyRecord).(*record) }

func identityOf(c *gin.Context) *Identity { return c.MustGet(keyIdentity).(*Identity) }

// recorded gives a request its id and writes its log line and metrics when it has ended.
func (g *Gateway) recorded(c *gin.Context) {
	g.tasks.Add(1) // Close waits for requests that outlive the server's patience
	defer g.tasks.Done()
	began := g.now()
	r := &record{requestID: requestID(c.GetHeader("x-request-id")), room: bodyRoom{bodies: g.bodies}}
	c.Set(keyRecord, r)
	c.Header("x-request-id", r.requestID)
	c.Header("request-id", r.requestID)
	http.NewResponseController(c.Writer).SetReadDeadline(time.Now().Add(bodyTime)) //nolint:errcheck // a reader without deadlines has none to set
	writeSoon(c)
	defer r.room.leave()
	r.trace = g.follow(c, r.requestID)
	defer g.followed(c, r)
	defer func() { // also where the connection is aborted
		if c.FullPath() == "" || r.hold == nil && r.replayed == uuid.Nil && c.Writer.Status() < http.StatusBadRequest {
			return // probes and reads are not news
		}
		g.report(c, r, g.now().Sub(began))
	}()
	c.Next()
}

// mostAttrs is how many attributes a request's line has at most.
const mostAttrs = 20

// report counts and logs a model call or a failure.
func (g *Gateway) report(c *gin.Context, r *record, took time.Duration) {
	status, code := c.Writer.Status(), ""
	attrs := append(make([]slog.Attr, 0, mostAttrs),
		slog.String("method", c.Request.Method), slog.String("path", c.FullPath()), slog.Int("status", status),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000), slog.String("request_id", r.requestID))
	if r.trace != nil {
		attrs = append(attrs, slog.String("trace_id", r.trace.Trace.String()))
	}
	if who, ok := c.Get(keyIdentity); ok {
		attrs = append(attrs, slog.String("user_id", who.(*Identity).Account))
	}
	if client := c.ClientIP(); client != "" {
		attrs = append(attrs, slog.String("client_ip", client))
	}
	if r.hold != nil {
		r.model = r.hold.call.model.Name // a fallback's, where that was called
		attrs = append(attrs, slog.String("provider", r.hold.call.model.Provider), slog.String("billing_request_id", r.hold.id.String()))
	}
	if r.model != "" { // also of a call that was refused
		attrs = append(attrs, slog.String("model", r.model))
	}
	if cache := c.Writer.Header().Get(headerCache); cache != "" {
		attrs = append(attrs, slog.String("cache", cache))
	}
	if r.limited != "" {
		attrs = append(attrs, slog.String("limited", r.limited))
	}
	if r.replayed != uuid.Nil {
		attrs = append(attrs, slog.String("billing_request_id", r.replayed.String()), slog.Bool("replayed", true))
	}
	if r.billed {
		attrs = append(attrs, slog.Int64("tokens", r.used.meters.InputTokens()+r.used.meters.OutputTokens()),
			slog.String("cost", r.bill.cost.String()))
	}
	if r.bill.position.Seq > 0 {
		attrs = append(attrs, slog.String("position", r.bill.position.String()))
	}
	level := slog.LevelInfo
	if e, ok := c.Get(keyError); ok {
		failed := e.(*Error)
		code = failed.Code
		attrs = append(attrs, slog.String("code", code))
		if failed.Status >= http.StatusInternalServerError {
			level = slog.LevelError
			attrs = append(attrs, slog.String("error", failed.Error()))
		}
	}
	g.metrics.Request(r.model, status, code, took)
	g.log.LogAttrs(c.Request.Context(), level, "request", attrs...)
}

// maxRequestID bounds a client's own request id, in bytes.
const maxRequestID = 128

// requestID takes the client's own id if it is fit for logs and headers, or makes one.
func requestID(own string) string {
	if !plainID(own) {
		return uuid.NewString()
	}
	return own
}

// plainID says whether a client's id is fit for logs and headers.
func plainID(own string) bool {
	for i := range len(own) {
		c := own[i]
		if fit := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == ':'; !fit {
			return false
		}
	}
	return own != "" && len(own) <= maxRequestID
}

// recovered turns a panic into a 500, or where the answer has begun into a broken connection: it must
// not look whole. The hold has been released by then: deferred calls run first.
func (g *Gateway) recovered(c *gin.Context) {
	defer func() {
		p := recover()
		switch p {
		case nil:
			return
		case http.ErrAbortHandler:
			panic(p)
		}
		begun := c.Writer.Written()
		g.fail(c, g.panicked(c, p))
		if begun {
			panic(http.ErrAbortHandler)
		}
	}()
	c.Next()
}

// panicked logs a panic and makes an error of it. It is called where the panic is recovered.
func (g *Gateway) panicked(c *gin.Context, p any) error {
	g.log.Error("panic", "request_id", recordOf(c).requestID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return internal(fmt.Errorf("panic: %v", p))
}

// identified says who makes the request, and opens the account of whoever is new.
func (g *Gateway) identified(c *gin.Context) error {
	who, err := g.authenticate(c)
	if err != nil {
		return err
	}
	c.Set(keyIdentity, who)
	return g.ensureOpen(c.Request.Context(), who.Account)
}

// administrator says who makes the request, and refuses everybody else.
func (g *Gateway) administrator(c *gin.Context) error {
	who, err := g.authenticate(c)
	if err != nil {
		return err
	}
	c.Set(keyIdentity, who)
	if who.Role != RoleAdmin {
		return &Error{Status: http.StatusForbidden, Type: typePermission, Code: "forbidden",
			Message: "This is for administrators: it takes a token or key with the role admin."}
	}
	return nil
}
