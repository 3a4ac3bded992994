package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

const (
	maxPageBytes = 8 << 20 // of records that are held at a time; a page may be full before
	maxGaps      = 1000    // what is missing so far, and may yet come out of order
)

// copyCheck holds a shard's records in the topic against its events. Each record is looked up by its seq,
// so that however they are mixed up, each crime is named for what it is.
type copyCheck struct {
	*shardCheck
	page  []copiedRecord
	bytes int
	last  int64  // the highest seq so far
	gaps  []span // what was passed over below last, ascending
	full  bool   // gaps had no room for all
}

// copiedRecord is a record with the digest of its bytes.
type copiedRecord struct {
	*topic.Record
	digest [sha256.Size]byte
}

// span is the places from first to last.
type span struct{ first, last int64 }

// stored is an event as the ledger has it. The bytes are compared by their digest.
type stored struct {
	account string
	hash    domain.Hash
	digest  [sha256.Size]byte
}

const selectStored = `SELECT seq, account, hash, sha256(payload) FROM ledger_events WHERE shard = $1 AND seq = ANY($2::bigint[])`

// copied is the step of Verify that asks the topic.
//
// What the topic has was committed before it was published, but perhaps after this verification began to
// see its one state of the ledger. So a record behind the end of that state is no crime by itself: it is
// compared with what is committed now. The other way round, events behind the topic's last record are what
// the relay has yet to publish.
func (s *shardCheck) copied(ctx context.Context) error {
	if s.topic == nil {
		return nil
	}
	c := &copyCheck{shardCheck: s}
	for record, err := range s.topic.Scan(ctx, s.shard) {
		if err == nil {
			err = c.add(ctx, record)
		}
		if err != nil {
			return fmt.Errorf("comparing the topic: %w", err)
		}
	}
	if err := c.flush(ctx); err != nil {
		return fmt.Errorf("comparing the topic: %w", err)
	}
	for _, gap := range c.gaps {
		c.missing(gap)
	}
	s.report.Unpublished += max(0, s.seq-c.last)
	return nil
}

func (c *copyCheck) add(ctx context.Context, record *topic.Record) error {
	c.report.TopicRecords++
	c.page = append(c.page, copiedRecord{record, sha256.Sum256(record.Payload)})
	if c.bytes += len(record.Payload); len(c.page) < verifyPage && c.bytes < maxPageBytes {
		return nil
	}
	return c.flush(ctx)
}

// flush compares a page of records.
func (c *copyCheck) flush(ctx context.Context) error {
	seqs := map[int64]bool{}
	for _, record := range c.page {
		seqs[record.Seq] = true
	}
	have := map[int64]stored{}
	if err := c.lookUp(ctx, seqs, have); err != nil {
		return err
	}
	own := c.ownSeqs(have)
	seqs = map[int64]bool{}
	for _, seq := range own {
		if _, there := have[seq]; !there {
			seqs[seq] = true
		}
	}
	if err := c.lookUp(ctx, seqs, have); err != nil {
		return err
	}
	for i, record := range c.page {
		c.record(record, own[i], have)
	}
	c.page, c.bytes = c.page[:0], 0
	if c.progress != nil {
		c.progress(c.shard, c.last, c.heads[c.shard].seq)
	}
	return nil
}

// lookUp adds the events of the given places to have: those of the state that is verified as they are
// there, and those behind it as they are now.
func (c *copyCheck) lookUp(ctx context.Context, seqs map[int64]bool, have map[int64]stored) error {
	var past, later []int64
	for _, seq := range slices.Sorted(maps.Keys(seqs)) {
		if seq <= c.seq {
			past = append(past, seq)
		} else {
			later = append(later, seq)
		}
	}
	scan := func(rows pgx.Rows) error {
		var seq int64
		var e stored
		var hash, digest []byte
		if err := rows.Scan(&seq, &e.account, &hash, &digest); err != nil {
			return err
		}
		copy(e.hash[:], hash)
		copy(e.digest[:], digest)
		have[seq] = e
		return nil
	}
	if len(past) > 0 {
		if err := c.each(ctx, scan, selectStored, c.shard, past); err != nil {
			return err
		}
	}
	if len(later) > 0 {
		return eachOf(ctx, c.now, scan, selectStored, c.shard, later)
	}
	return nil
}

// ownSeqs are the places that the records' own bytes give, where those are not the ledger's at the place
// that the header gives; by index in the page.
func (c *copyCheck) ownSeqs(have map[int64]stored) map[int]int64 {
	own := map[int]int64{}
	for i, record := range c.page {
		if e, there := have[record.Seq]; there && e.digest == record.digest {
			continue
		}
		var says struct {
			Seq int64 `json:"seq"`
		}
		if json.Unmarshal(record.Payload, &says) == nil && says.Seq != record.Seq {
			own[i] = says.Seq
		}
	}
	return own
}

// record compares one record with the event of its place. That is the header's, unless the bytes are those
// of another event.
func (c *copyCheck) record(record copiedRecord, own int64, have map[int64]stored) {
	seq := record.Seq
	var d differences
	if e, there := have[own]; there && own != seq && e.digest == record.digest {
		d = append(d, fmt.Sprintf("the header ledger_seq says %d", seq))
		seq = own
	}
	e, there := have[seq]
	if !there {
		c.extra(record.Record)
		return
	}
	if e.digest != record.digest {
		d = append(d, "its bytes are not the ledger's")
	}
	if record.Hash != e.hash {
		d = append(d, fmt.Sprintf("the header ledger_hash is %x, the ledger has %x", record.Hash, e.hash))
	}
	if record.Key != e.account {
		d = append(d, fmt.Sprintf("its key is %.140q", record.Key))
	}
	if source := c.meta.source(); record.Source != source {
		d = append(d, fmt.Sprintf("the header ce_source is %.80q, not %s", record.Source, source))
	}
	if record.Shard != c.shard {
		d = append(d, fmt.Sprintf("it is in partition %d", record.Shard))
	}
	if _, err := record.Event(); len(d) == 0 && err != nil { // the other headers
		d = append(d, err.Error())
	}
	if wrong := d.text(); wrong != "" {
		c.report.findf(CheckTopic, c.at(seq), e.account, "the record at offset %d: %s", record.Offset, wrong)
	}
	c.order(seq, record.Record)
}

// extra reports a record that is of no event. Between the ledger's events it has its place in the order all
// the same: there the event is what is missing.
func (c *copyCheck) extra(record *topic.Record) {
	at := domain.Position{}
	if record.Seq > 0 {
		at = c.at(record.Seq)
	}
	c.report.findf(CheckTopic, at, record.Key, "the record at offset %d of partition %d is extra: the ledger, which ends at %d, has no such event",
		record.Offset, c.shard, c.seq)
	if record.Seq > 0 && record.Seq <= c.seq {
		c.order(record.Seq, record)
	}
}

// order checks that each place comes once, and behind those before it.
func (c *copyCheck) order(seq int64, record *topic.Record) {
	switch {
	case seq == c.last+1:
		c.last = seq
	case seq > c.last:
		c.skip(span{c.last + 1, seq - 1})
		c.last = seq
	case c.fill(seq):
		c.report.findf(CheckTopic, c.at(seq), record.Key, "the record at offset %d is out of order: it comes after that of seq %d", record.Offset, c.last)
	case c.full:
		c.report.findf(CheckTopic, c.at(seq), record.Key, "the record at offset %d is repeated or out of order", record.Offset)
	default:
		c.report.findf(CheckTopic, c.at(seq), record.Key, "the record at offset %d is repeated: there is one of this seq before it", record.Offset)
	}
}

// skip notes that places were passed over. They may yet come, unless too much is missing to note it all.
func (c *copyCheck) skip(gap span) {
	if len(c.gaps) >= maxGaps {
		c.full = true
		c.missing(gap)
		return
	}
	c.gaps = append(c.gaps, gap)
}

// fill takes a place out of what is missing, and says whether it was.
func (c *copyCheck) fill(seq int64) bool {
	i, _ := slices.BinarySearchFunc(c.gaps, seq, func(g span, seq int64) int {
		if g.last < seq {
			return -1
		}
		return 0
	})
	if i == len(c.gaps) || c.gaps[i].first > seq {
		return false
	}
	gap := c.gaps[i]
	var rest []span
	for _, part := range []span{{gap.first, seq - 1}, {seq + 1, gap.last}} {
		if part.first <= part.last {
			rest = append(rest, part)
		}
	}
	c.gaps = slices.Replace(c.gaps, i, i+1, rest...)
	return true
}

func (c *copyCheck) missing(gap span) {
	what := "it is"
	if gap.last > gap.first {
		what = fmt.Sprintf("it and all up to %d are", gap.last)
	}
	c.report.findf(CheckTopic, c.at(gap.first), "", "%s missing in the topic, which has later ones", what)
}
