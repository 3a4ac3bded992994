package embedded

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A partition's files, as kfake writes them: segments, N.dat, of Kafka's record batches one after the
// other, N being the first offset; and beside each an index, N.idx, of one entry per batch. kfake
// tells by the index alone whether a batch is part of a transaction.
const (
	segmentSuffix = ".dat"
	indexSuffix   = ".idx"

	batchHead     = 12 // bytes before what a batch's length counts
	batchFormat   = 16 // where the format's number is
	batchSum      = 17 // where the checksum is
	batchSummed   = 21 // where the bytes begin that it is of
	minBatch      = 61 // bytes of one without records
	maxBatch      = 100 << 20
	inTransaction = 0x10 // of a batch's attributes
	isControl     = 0x20

	indexVersion = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errCut says that bytes end within a batch.
var errCut = errors.New("the file ends within a batch")

// readBatch reads the batch that raw begins with, and says how many bytes it has.
func readBatch(raw []byte) (b kmsg.RecordBatch, size int, err error) {
	if len(raw) < batchHead {
		return b, 0, errCut
	}
	size = batchHead + int(binary.BigEndian.Uint32(raw[8:]))
	switch {
	case size < minBatch || size > maxBatch:
		return b, 0, errors.New("a batch has an impossible length")
	case size > len(raw):
		return b, 0, errCut
	case raw[batchFormat] != 2:
		return b, 0, errors.New("a batch has an unknown format")
	case binary.BigEndian.Uint32(raw[batchSum:]) != crc32.Checksum(raw[batchSummed:size], castagnoli):
		return b, 0, errors.New("a batch's checksum is wrong")
	}
	return b, size, b.UnsafeReadFrom(raw[:size])
}

// torn reports whether the end of a segment can be what a write that was cut short has left: no more
// than the beginning of the batch that was due, or blocks that were never filled. Such a batch was not
// acknowledged: each is synced before the next is written.
func torn(tail []byte, due int64, problem error) bool {
	if len(bytes.Trim(tail, "\x00")) == 0 {
		return true
	}
	offset := binary.BigEndian.AppendUint64(nil, uint64(due))
	n := min(len(tail), len(offset))
	return errors.Is(problem, errCut) && bytes.Equal(tail[:n], offset[:n]) && !hasBatch(tail, due)
}

// hasBatch reports whether a whole batch stands anywhere in the bytes, so that they are no torn one
// but damage before it.
func hasBatch(raw []byte, due int64) bool {
	for at := 0; at+minBatch <= len(raw); at++ {
		if raw[at+batchFormat] != 2 {
			continue
		}
		if b, _, err := readBatch(raw[at:]); err == nil && b.FirstOffset >= due {
			return true
		}
	}
	return false
}

// partition is what the files of one partition hold.
type partition struct {
	dir      string
	gaps     bool // records may be missing: the topic is compacted
	segments []segment
	first    int64 // offset of the first record
	end      int64 // offset of the next one
	epoch    int32 // of the leader that wrote last
	latest   int64 // timestamp, the greatest
	open     map[int64]transaction
	aborted  []abortedRange
}

// segment is one pair of files.
type segment struct {
	base   int64
	size   int64  // bytes of whole batches
	torn   int    // bytes after them
	index  []byte // as the index must be
	epochs [2]int32
}

// transaction is one that no control batch has ended.
type transaction struct {
	first int64 // its first offset in the partition
	epoch int16 // its producer's
}

// abortedRange is where a producer wrote in vain. Its JSON is kfake's.
type abortedRange struct {
	Producer int64 `json:"producer_id"`
	First    int64 `json:"first_offset"`
	Last     int64 `json:"last_offset"` // of the control batch
}

// readPartition reads all segments of a partition's directory. The error is about the files; nothing
// is changed.
func readPartition(dir string, gaps bool) (*partition, error) {
	bases, err := segmentBases(dir)
	if err != nil {
		return nil, err
	}
	p := &partition{dir: dir, gaps: gaps, open: map[int64]transaction{}}
	for i, base := range bases {
		if err := p.readSegment(base, i == len(bases)-1); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func segmentBases(dir string) (bases []int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if !ok {
			continue
		}
		base, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: %s is not a segment", ErrDamaged, filepath.Join(dir, e.Name()))
		}
		bases = append(bases, base)
	}
	slices.Sort(bases)
	return bases, nil
}

func (p *partition) file(base int64, suffix string) string {
	return filepath.Join(p.dir, strconv.FormatInt(base, 10)+suffix)
}

func (p *partition) readSegment(base int64, last bool) error {
	raw, err := os.ReadFile(p.file(base, segmentSuffix))
	if err != nil {
		return err
	}
	s := segment{base: base}
	for rest := raw; len(rest) > 0; {
		b, size, err := readBatch(rest)
		if err == nil {
			err = p.follow(&s, &b)
		}
		if err != nil {
			if !last || !torn(rest, p.end, err) {
				return fmt.Errorf("%w: %s at byte %d: %w", ErrDamaged, p.file(base, segmentSuffix), s.size, err)
			}
			s.torn = len(rest)
			break
		}
		s.size += int64(size)
		rest = rest[size:]
	}
	p.segments = append(p.segments, s)
	return nil
}

// follow takes the next batch of a segment.
func (p *partition) follow(s *segment, b *kmsg.RecordBatch) error {
	fresh := len(s.index) == 0
	if p.end == 0 { // what was before the first segment may have been deleted
		p.first, p.end = s.base, s.base
	}
	if b.FirstOffset < p.end || b.FirstOffset > p.end && !p.gaps || fresh && b.FirstOffset != s.base || b.LastOffsetDelta < 0 {
		return fmt.Errorf("a batch has offset %d where %d is due", b.FirstOffset, p.end)
	}
	p.end = b.FirstOffset + int64(b.LastOffsetDelta) + 1
	p.epoch = max(p.epoch, b.PartitionLeaderEpoch)
	p.latest = max(p.latest, b.MaxTimestamp)
	if fresh {
		s.epochs = [2]int32{b.PartitionLeaderEpoch, b.PartitionLeaderEpoch}
	}
	s.epochs = [2]int32{min(s.epochs[0], b.PartitionLeaderEpoch), max(s.epochs[1], b.PartitionLeaderEpoch)}
	data := p.account(b)
	s.index = appendIndex(s.index, b.PartitionLeaderEpoch, p.latest, data)
	return nil
}

// account keeps track of transactions, and reports whether the batch holds records of one.
func (p *partition) account(b *kmsg.RecordBatch) bool {
	if b.Attributes&isControl == 0 {
		if b.Attributes&inTransaction == 0 {
			return false
		}
		if _, known := p.open[b.ProducerID]; !known {
			p.open[b.ProducerID] = transaction{b.FirstOffset, b.ProducerEpoch}
		}
		return true
	}
	t, known := p.open[b.ProducerID]
	delete(p.open, b.ProducerID)
	if known && !commits(b) {
		p.aborted = append(p.aborted, abortedRange{b.ProducerID, t.first, b.FirstOffset})
	}
	return false
}

// commits reports whether a control batch says that its producer's records count.
func commits(b *kmsg.RecordBatch) bool {
	record, key := kmsg.NewRecord(), kmsg.NewControlRecordKey()
	return record.ReadFrom(b.Records) == nil && key.ReadFrom(record.Key) == nil && key.Type == kmsg.ControlRecordKeyTypeCommit
}

// appendIndex adds a batch's entry: version, a byte of checksum, the leader's epoch, the greatest
// timestamp so far, and whether it is part of a transaction.
func appendIndex(index []byte, epoch int32, latest int64, data bool) []byte {
	entry := []byte{indexVersion, 0}
	entry = binary.LittleEndian.AppendUint32(entry, uint32(epoch))
	entry = binary.LittleEndian.AppendUint64(entry, uint64(latest))
	entry = append(entry, map[bool]byte{true: 1}[data])
	entry[1] = byte(crc32.Checksum(entry[2:], castagnoli))
	return append(index, entry...)
}

// abortMarker is the control batch that ends a transaction without effect, as a broker writes it.
func (p *partition) abortMarker(producer int64, t transaction, now int64) *kmsg.RecordBatch {
	key := kmsg.ControlRecordKey{Type: kmsg.ControlRecordKeyTypeAbort}
	record := kmsg.Record{Key: key.AppendTo(nil), Value: new(kmsg.EndTxnMarker).AppendTo(nil)}
	record.Length = int32(len(record.AppendTo(nil)) - 1) // without itself, which is one byte
	b := &kmsg.RecordBatch{
		FirstOffset: p.end, PartitionLeaderEpoch: p.epoch, Magic: 2, Attributes: inTransaction | isControl,
		FirstTimestamp: now, MaxTimestamp: now, ProducerID: producer, ProducerEpoch: t.epoch,
		FirstSequence: -1, NumRecords: 1, Records: record.AppendTo(nil),
	}
	raw := b.AppendTo(nil)
	b.Length = int32(len(raw) - batchHead)
	b.CRC = int32(crc32.Checksum(raw[batchSummed:], castagnoli))
	return b
}

// openProducers lists whose transactions no control batch has ended, in the order of their records.
func (p *partition) openProducers() []int64 {
	return slices.SortedFunc(maps.Keys(p.open), func(a, b int64) int {
		return cmp.Compare(p.open[a].first, p.open[b].first)
	})
}
