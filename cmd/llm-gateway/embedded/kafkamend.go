package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// ErrDamaged is wrapped when a directory holds what no orderly end and no kill leaves behind. It is
// left as it is.
var ErrDamaged = errors.New("damaged data directory")

// mending is what a directory of kfake's needs before kfake may read it.
//
// kfake (as of the pinned version) does not survive a kill as Kafka does. What it lets happen, each
// of which a test here shows on kfake alone:
//
//   - A transaction that was open when the process died is aborted in memory only. Its producer has
//     the same id afterwards, so clients drop the records of the next transaction too, which was
//     committed; and after the next restart the open one's records count as part of that.
//   - A batch whose index entry was not written is taken for one outside any transaction; all later
//     entries belong to the wrong batch.
//   - A transaction that was open at an orderly stop is forgotten by the second start if nothing was
//     written between, and its records count then.
//   - A batch with a wrong checksum, and all behind it, is cut off and gone, acknowledged or not.
//   - A log of its state with a torn end is appended to behind that end, where nobody reads.
//
// So every start first reads all segments, refuses damage, and writes what a broker would have: abort
// markers for open transactions, new epochs for their producers, indexes and snapshots from the
// batches. It can die at any point and begin again: epochs are raised before transactions are ended,
// and the rest is derived from the batches each time.
type mending struct {
	dir        string
	partitions []*partition
	logs       []*stateLog
	fences     [][]byte // for the first of the logs, the producers'
	now        int64    // milliseconds, for the markers
}

// mendKafka makes a directory of kfake's one that kfake reads rightly. Nothing acknowledged is ever
// removed; where that cannot be had, the error is ErrDamaged and nothing has been changed.
func mendKafka(ctx context.Context, dir string, log *slog.Logger) error {
	partitions, err := readKafkaLayout(dir)
	if err != nil {
		return err
	}
	m := &mending{dir: dir, now: time.Now().UnixMilli()}
	if err := m.read(ctx, partitions); err != nil {
		return err
	}
	torn, ended := m.extent()
	if err := m.write(); err != nil {
		return fmt.Errorf("mending it: %w", err)
	}
	if torn+ended > 0 {
		log.Info("embedded kafka: mended what an end in the middle of work left", "torn_files", torn, "transactions_aborted", ended)
	}
	return nil
}

// read reads everything and plans. Of the partitions it is known which may have gaps.
func (m *mending) read(ctx context.Context, partitions map[string]bool) (err error) {
	open := map[int64]int16{}
	for name, gaps := range partitions {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, err := readPartition(filepath.Join(m.dir, kafkaPartitions, name), gaps)
		if err != nil {
			return err
		}
		for producer, t := range p.open {
			open[producer] = max(open[producer], t.epoch)
		}
		m.partitions = append(m.partitions, p)
	}
	for _, name := range []string{kafkaProducers, kafkaGroups} {
		l, err := readStateLog(filepath.Join(m.dir, name))
		if err != nil {
			return err
		}
		m.logs = append(m.logs, l)
	}
	m.fences, err = m.logs[0].fences(open)
	return err
}

// extent counts torn files and transactions to end.
func (m *mending) extent() (torn, open int) {
	for _, l := range m.logs {
		torn += map[bool]int{true: 1}[l.torn]
	}
	for _, p := range m.partitions {
		open += len(p.open)
		for _, s := range p.segments {
			torn += min(s.torn, 1)
		}
	}
	return torn, open
}

func (m *mending) write() error {
	// It says which transactions were open at an orderly stop. They are ended here.
	if err := os.Remove(filepath.Join(m.dir, kafkaSession)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for i, l := range m.logs {
		if err := l.mend(map[int][][]byte{0: m.fences}[i]); err != nil {
			return err
		}
	}
	for _, p := range m.partitions {
		if err := p.mend(m.now); err != nil {
			return err
		}
	}
	return nil
}

// mend brings a partition's files to where no transaction is open.
func (p *partition) mend(now int64) error {
	if len(p.segments) == 0 {
		return nil
	}
	s := &p.segments[len(p.segments)-1]
	size, markers := s.size, []byte(nil)
	for _, producer := range p.openProducers() {
		b := p.abortMarker(producer, p.open[producer], now)
		markers = b.AppendTo(markers)
		if err := p.follow(s, b); err != nil {
			return err
		}
	}
	if s.torn > 0 || len(markers) > 0 {
		if err := rewriteEnd(p.file(s.base, segmentSuffix), size, markers); err != nil {
			return err
		}
		s.size += int64(len(markers))
	}
	// What follows need not be synced: it is derived from the batches at the next start again.
	for _, s := range p.segments {
		if err := writeChanged(p.file(s.base, indexSuffix), s.index); err != nil {
			return err
		}
	}
	return p.writeSummary()
}

// summary is what kfake reads instead of working a partition's state out of all its batches, if the
// segments have these sizes; otherwise it would hold all of them in memory at once. The JSON is kfake's.
type summary struct {
	Version  int            `json:"version"`
	End      int64          `json:"high_watermark"`
	Stable   int64          `json:"last_stable_offset"`
	Start    int64          `json:"log_start_offset"`
	Epoch    int32          `json:"epoch"`
	Leader   int32          `json:"leader_node,omitempty"`
	Latest   int64          `json:"max_timestamp"`
	Created  time.Time      `json:"created_at"`
	Aborted  []abortedRange `json:"aborted_txns,omitempty"`
	Segments []summaryFile  `json:"segments"`
}

type summaryFile struct {
	Base     int64 `json:"base_offset"`
	Size     int64 `json:"size"`
	MinEpoch int32 `json:"min_epoch,omitempty"`
	MaxEpoch int32 `json:"max_epoch,omitempty"`
}

func (p *partition) writeSummary() error {
	path := filepath.Join(p.dir, kafkaSnapshot)
	var before summary
	if text, err := os.ReadFile(path); err == nil && json.Unmarshal(text, &before) != nil {
		before = summary{} // it is kfake's summary, which this one replaces
	}
	now := summary{Version: stateVersion, End: p.end, Stable: p.end, Start: p.first, Epoch: p.epoch,
		Latest: p.latest, Created: before.Created, Aborted: p.aborted}
	// Records that somebody deleted may share a batch, or a segment, with others: only the old
	// summary says so.
	if before.Start > p.first && before.Start <= p.end {
		now.Start = before.Start
	}
	for _, s := range p.segments {
		now.Segments = append(now.Segments, summaryFile{s.base, s.size, s.epochs[0], s.epochs[1]})
	}
	text, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return writeChanged(path, text)
}

// writeChanged writes a file that does not have the content yet.
func writeChanged(path string, content []byte) error {
	if present, err := os.ReadFile(path); err == nil && bytes.Equal(present, content) {
		return nil
	}
	return os.WriteFile(path, content, 0o600)
}
