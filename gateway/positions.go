package gateway

import (
	"strconv"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"llm-gateway/domain"
)

// positionsKept bounds how many accounts' positions are remembered; a full set starts anew.
const positionsKept = 100_000

// positions remembers the last event that each account has from this gateway, so that what is read
// after it includes it. Forgetting one costs a reader freshness, nothing else.
type positions struct {
	mu   sync.Mutex
	last map[string]domain.Position
}

func newPositions() *positions { return &positions{last: map[string]domain.Position{}} }

func (p *positions) note(account string, at domain.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.last[account]
	if ok && at.Seq <= known.Seq { // settlements may come here in another order than they were made
		return
	}
	if !ok && len(p.last) >= positionsKept {
		clear(p.last)
	}
	p.last[account] = at
}

// of is the zero Position where nothing is known.
func (p *positions) of(account string) domain.Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last[account]
}

// wrote remembers what an append to an account came to.
func (g *Gateway) wrote(account string, out *domain.Outcome) {
	if at := out.Position(); at.Seq > 0 {
		g.positions.note(account, at)
		g.metrics.Balance(account, at.Seq, out.Account.Available)
	}
	if g.gate != nil {
		g.gate.saw(account, &out.Account)
	}
}

// headerPosition is the header by which a client says what a read has to include.
const headerPosition = "x-billing-position"

// atLeast is what a read has to include: what the account has from this gateway, and what the client
// asks for. Which shard an account is in is known here only by its own events: a position of another one
// is passed on where there are none, and says nothing of this account where there are.
func (g *Gateway) atLeast(c *gin.Context) (domain.Position, error) {
	own, text := g.positions.of(identityOf(c).Account), c.GetHeader(headerPosition)
	if text == "" {
		return own, nil
	}
	asked, err := domain.ParsePosition(text)
	if err != nil {
		return domain.Position{}, invalid("invalid_value", headerPosition,
			"`"+headerPosition+"` must be a position (shard:seq) as an answer gave it.")
	}
	if own.Seq > 0 && (asked.Shard != own.Shard || asked.Seq < own.Seq) {
		return own, nil
	}
	return asked, nil
}

// reading is the part of an answer that says how current it is.
type reading struct {
	AsOf     *time.Time `json:"as_of"`    // nil: of before the first event, or not known
	Position *string    `json:"position"` // the last event that is included; nil: none yet
	Behind   *int64     `json:"behind"`   // events that are not included; nil: not known
}

// positionText is nil for no position.
func positionText(p domain.Position) *string {
	if p.Seq <= 0 {
		return nil
	}
	text := p.String()
	return &text
}

// reading tells a projection's reading, in the answer and in its header.
func (g *Gateway) reading(c *gin.Context, r domain.Reading) reading {
	out := reading{Behind: &r.Behind, Position: positionText(r.Position)}
	asOf := domain.EventTime(r.AsOf)
	if r.Behind == 0 {
		asOf = domain.EventTime(g.now())
	} else {
		c.Header("x-billing-behind", strconv.FormatInt(r.Behind, 10))
	}
	if r.Position.Seq > 0 || r.Behind == 0 {
		out.AsOf = &asOf
	}
	return out
}
