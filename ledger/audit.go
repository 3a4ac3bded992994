package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"llm-gateway/domain"
)

const (
	// auditPage is of how many events one statement of Audit reads the charges. It asks for no more than these, by
	// their seqs: of a ledger whose statistics nobody has gathered yet, such as one just restored, Postgres may
	// read and sort all that it is asked for, whatever the limit.
	auditPage = 6000
	// auditLanes is how many shards are read at once, if there are as many processors.
	auditLanes = 4
	// maxDiffering is how many differences an AuditReport lists. All are counted.
	maxDiffering = 1000
)

// Differing is a charge that is not what calculating it again gives.
type Differing struct {
	Position  string    `json:"position"`
	RequestID uuid.UUID `json:"request_id"`
	Account   string    `json:"account"`
	Problems  []string  `json:"problems"`

	at domain.Position
}

// Unlisted is a price version that charges name and the book does not have.
type Unlisted struct {
	PriceVersion string `json:"price_version"`
	Charges      int64  `json:"charges"`
	First        string `json:"first"` // the position of the first of them

	at domain.Position
}

// AuditReport is what Audit found. Clean says that nothing differs; charges by versions that the book does
// not have are clean where their own lines multiply, add up, and are their meters.
type AuditReport struct {
	Clean       bool          `json:"clean"`
	Charges     int64         `json:"charges"`
	Amount      domain.Amount `json:"amount"` // of all charges
	Differ      int64         `json:"differ"`
	Differences []Differing   `json:"differences"` // the first, up to maxDiffering
	Unlisted    []Unlisted    `json:"unlisted"`
	Millis      int64         `json:"ms"` // that the audit took
}

// auditedRow is what Audit reads of a charge's event.
type auditedRow struct {
	RequestID uuid.UUID     `json:"request_id"`
	Account   string        `json:"account"`
	Amount    domain.Amount `json:"amount"`
	Data      struct {
		Reason       domain.OverageReason `json:"reason"`
		Meters       domain.Meters        `json:"meters"`
		Lines        []domain.Line        `json:"lines"`
		CostLines    []domain.Line        `json:"cost_lines"`
		PriceVersion string               `json:"price_version"`
		CostVersion  string               `json:"cost_version"`
		ServiceTier  string               `json:"service_tier"`
		Region       string               `json:"region"`
	} `json:"data"`
}

// Audit calculates every charge in the ledger again, from its meters and its price version, which version
// finds by its ID (nil where it is not known; it is called by several goroutines). Events come in the order
// of their shards, as they are stored, a page at a time: a large ledger takes no more memory than a small
// one. What is appended after it began is left out.
func (r *Reader) Audit(ctx context.Context, version func(id string) *domain.PriceVersion, progress Progress) (*AuditReport, error) {
	began := time.Now()
	heads, err := r.Heads(ctx)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	a := &auditor{reader: r, version: version, progress: progress, report: &AuditReport{Differences: []Differing{}, Unlisted: []Unlisted{}},
		unlisted: map[string]Unlisted{}}
	work := make(chan Head, len(heads))
	for _, h := range heads {
		work <- h
	}
	close(work)
	lanes := min(runtime.GOMAXPROCS(0), auditLanes, len(heads))
	failed := make([]error, lanes)
	var wait sync.WaitGroup
	for lane := range lanes {
		wait.Go(func() {
			for h := range work {
				if failed[lane] == nil {
					failed[lane] = a.shard(ctx, h)
				}
			}
		})
	}
	wait.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	a.finish()
	a.report.Millis = time.Since(began).Milliseconds()
	return a.report, nil
}

// auditor is one run of Audit.
type auditor struct {
	reader  *Reader
	version func(id string) *domain.PriceVersion

	mu       sync.Mutex // guards all below
	progress Progress   // may be nil
	report   *AuditReport
	unlisted map[string]Unlisted
}

// shardAudit is the audit of one shard: what it found so far, and the commit that waits for the overage that
// may follow it.
type shardAudit struct {
	auditor  *auditor
	shard    int32
	open     *auditedRow
	at       domain.Position // of open
	taken    domain.Amount   // by open and its overage
	found    AuditReport
	unlisted map[string]Unlisted
}

// pageOfCharges is what reads some columns of the charges of shard $1 behind seq $2, up to seq $3: a page by its
// seqs, without a limit.
const pageOfCharges = ` FROM ledger_events
	WHERE shard = $1 AND seq > $2 AND seq <= $3 AND kind IN ('commit', 'overage') ORDER BY seq`

const selectCharges = `SELECT seq, kind, payload` + pageOfCharges

func (a *auditor) shard(ctx context.Context, h Head) error {
	s := &shardAudit{auditor: a, shard: h.Shard, unlisted: map[string]Unlisted{}}
	for after := int64(0); after < h.Seq; {
		end := min(after+auditPage, h.Seq)
		err := eachOf(ctx, a.reader.pool, func(rows pgx.Rows) error {
			var seq int64
			var kind domain.Kind
			var payload pgtype.DriverBytes // it is read where it lies
			if err := rows.Scan(&seq, &kind, &payload); err != nil {
				return err
			}
			s.event(domain.Position{Shard: h.Shard, Seq: seq}, kind, payload)
			return nil
		}, selectCharges, h.Shard, after, end)
		if err != nil {
			return fmt.Errorf("shard %d after %d: %w", h.Shard, after, err)
		}
		after = end
		a.tell(h, after)
	}
	s.settle()
	a.take(s)
	return nil
}

func (a *auditor) tell(h Head, seq int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.progress != nil {
		a.progress(h.Shard, seq, h.Seq)
	}
}

// event takes in the next charge of the shard.
func (s *shardAudit) event(at domain.Position, kind domain.Kind, payload []byte) {
	row, err := readAudited(payload)
	if err != nil {
		s.settle()
		s.found.Charges++
		s.differs(at, row, []string{"the event is unreadable: " + err.Error()})
		return
	}
	if kind == domain.KindOverage && row.Data.Reason == domain.OverageBeyondBound {
		s.beyond(at, row)
		return
	}
	s.settle()
	s.open, s.at, s.taken = row, at, row.Amount
}

// readAudited reads a row, quickly where the payload has the usual form.
func readAudited(payload []byte) (*auditedRow, error) {
	row := &auditedRow{}
	if row.scan(payload) {
		return row, nil
	}
	*row = auditedRow{}
	return row, json.Unmarshal(payload, row)
}

// beyond takes in the rest of a charge that exceeded its reserve: it follows its commit, and repeats what the
// whole is made of.
func (s *shardAudit) beyond(at domain.Position, row *auditedRow) {
	if s.open == nil || s.at.Seq != at.Seq-1 || s.open.RequestID != row.RequestID {
		s.settle()
		s.differs(at, row, []string{"it is the rest of a charge, and does not follow its commit"})
		return
	}
	s.taken = s.taken.Add(row.Amount)
	if row.Data.Meters != s.open.Data.Meters || row.Data.PriceVersion != s.open.Data.PriceVersion || row.Data.Region != s.open.Data.Region ||
		row.Data.CostVersion != s.open.Data.CostVersion || !domain.SameLines(row.Data.Lines, s.open.Data.Lines) || !domain.SameLines(row.Data.CostLines, s.open.Data.CostLines) {
		s.differs(at, row, []string{"it is the rest of a charge, and explains it otherwise than its commit"})
	}
	s.settle()
}

// settle calculates the open charge again, of which all is known now.
func (s *shardAudit) settle() {
	if s.open == nil {
		return
	}
	row := s.open
	s.open = nil
	s.found.Charges++
	s.found.Amount = s.found.Amount.Add(s.taken)
	charge := domain.PastCharge{Amount: s.taken, Meters: row.Data.Meters, Lines: row.Data.Lines, CostLines: row.Data.CostLines,
		PriceVersion: row.Data.PriceVersion, CostVersion: row.Data.CostVersion, ServiceTier: row.Data.ServiceTier, Region: row.Data.Region}
	again := charge.Recheck(s.auditor.version)
	if len(again.Problems) > 0 {
		s.differs(s.at, row, again.Problems)
	}
	for _, id := range again.Unlisted {
		u, known := s.unlisted[id]
		if !known {
			u = Unlisted{PriceVersion: id, First: s.at.String(), at: s.at}
		}
		u.Charges++
		s.unlisted[id] = u
	}
}

func (s *shardAudit) differs(at domain.Position, row *auditedRow, problems []string) {
	if s.found.Differ++; len(s.found.Differences) < maxDiffering {
		s.found.Differences = append(s.found.Differences, Differing{at.String(), row.RequestID, row.Account, problems, at})
	}
}

// take adds what was found in a shard.
func (a *auditor) take(s *shardAudit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.report.Charges += s.found.Charges
	a.report.Amount = a.report.Amount.Add(s.found.Amount)
	a.report.Differ += s.found.Differ
	a.report.Differences = append(a.report.Differences, s.found.Differences...)
	for id, found := range s.unlisted {
		u, known := a.unlisted[id]
		if !known || comparePositions(found.at, u.at) < 0 {
			u.PriceVersion, u.First, u.at = id, found.First, found.at
		}
		u.Charges += found.Charges
		a.unlisted[id] = u
	}
}

// finish puts what was found in order.
func (a *auditor) finish() {
	r := a.report
	r.Clean = r.Differ == 0
	slices.SortFunc(r.Differences, func(x, y Differing) int { return comparePositions(x.at, y.at) })
	r.Differences = r.Differences[:min(len(r.Differences), maxDiffering)]
	for _, id := range slices.Sorted(maps.Keys(a.unlisted)) {
		r.Unlisted = append(r.Unlisted, a.unlisted[id])
	}
}

func comparePositions(a, b domain.Position) int {
	return cmp.Or(cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Seq, b.Seq))
}
