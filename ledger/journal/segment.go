package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

const (
	magic          = "LLMGWJNL"
	segmentVersion = 1
	headerSize     = 40       // bytes before the first record of a segment
	frameSize      = 16       // bytes of a record before its payload
	maxRecord      = 16 << 20 // bytes of one payload
	segmentSuffix  = ".journal"
	numberDigits   = 20 // of a segment's name, so that names sort as numbers do
)

// ErrDamaged is wrapped by the refusal of a journal in which something that was durable is not as it was
// written. The error names the file and the byte. Nothing is changed: it is for a person to look.
var ErrDamaged = errors.New("the journal is damaged")

func damaged(name string, at int64, what string) error {
	return fmt.Errorf("%w: %s at byte %d: %s", ErrDamaged, name, at, what)
}

// castagnoli is the polynomial of CRC-32C.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func segmentName(number uint64) string {
	return fmt.Sprintf("%0*d%s", numberDigits, number, segmentSuffix)
}

// segmentNumber is the inverse of segmentName; ok says that the name is a segment's.
func segmentNumber(name string) (number uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != numberDigits {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 10, 64)
	return number, err == nil && number > 0 && segmentName(number) == name
}

// link says how far a segment counts.
type link struct {
	number uint64
	size   int64
}

// header is what a segment says of itself and of the one before it.
type header struct {
	number   uint64
	previous link
}

func (h header) bytes() []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, segmentVersion)
	b = binary.BigEndian.AppendUint64(b, h.number)
	b = binary.BigEndian.AppendUint64(b, h.previous.number)
	b = binary.BigEndian.AppendUint64(b, uint64(h.previous.size))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// errBadHeader says that a segment does not begin with its header.
var errBadHeader = errors.New("the header is not as it was written")

// readHeader reads a header. Its size and its CRC are those of all versions to come.
func readHeader(b []byte) (header, error) {
	if len(b) < headerSize || string(b[:len(magic)]) != magic {
		return header{}, errBadHeader
	}
	if binary.BigEndian.Uint32(b[36:]) != crc32.Checksum(b[:36], castagnoli) {
		return header{}, errBadHeader
	}
	if v := binary.BigEndian.Uint32(b[8:]); v > segmentVersion {
		return header{}, fmt.Errorf("%w: version %d of a segment", ErrTooNew, v)
	}
	return header{number: binary.BigEndian.Uint64(b[12:]), previous: link{
		number: binary.BigEndian.Uint64(b[20:]), size: int64(binary.BigEndian.Uint64(b[28:])),
	}}, nil
}

// frame is one record in its segment.
type frame struct {
	at      int64  // its first byte in the file
	payload []byte // empty: the mark that Close leaves
	synced  int64  // so much of the segment was durable before it was written
}

// size is what the record takes in the file.
func (f *frame) size() int64 { return frameSize + int64(len(f.payload)) }

func appendFrame(b []byte, number uint64, synced int64, payload []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(synced))
	b = append(b, payload...)
	binary.BigEndian.PutUint32(b[start+4:], frameSum(number, b[start:]))
	return b
}

// frameSum is the CRC of a record: all of it but the CRC, and the number of its segment.
func frameSum(number uint64, b []byte) uint32 {
	var head [8 + 4]byte
	binary.BigEndian.PutUint64(head[:], number)
	copy(head[8:], b[:4])
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, b[8:])
}

// readFrame reads the record that b begins with, at that byte of its segment; ok says that it is intact.
func readFrame(b []byte, number uint64, at int64) (f frame, ok bool) {
	if len(b) < frameSize {
		return frame{}, false
	}
	synced := binary.BigEndian.Uint64(b[8:])
	length := int64(binary.BigEndian.Uint32(b))
	if synced < headerSize || synced > uint64(at) || length > maxRecord || length > int64(len(b)-frameSize) {
		return frame{}, false
	}
	b = b[:frameSize+length]
	if binary.BigEndian.Uint32(b[4:]) != frameSum(number, b) {
		return frame{}, false
	}
	return frame{at: at, payload: b[frameSize:], synced: int64(synced)}, true
}

// scan reads a segment's records up to the first bad one: intact is how many bytes are good. Where that
// is not all, synced says whether the bad one had been made durable, as far as the segment itself tells.
func scan(b []byte, number uint64) (records []frame, intact int64, synced bool) {
	at := min(headerSize, len(b))
	for at < len(b) {
		f, ok := readFrame(b[at:], number, int64(at))
		if !ok {
			return records, int64(at), syncedBehind(b, number, at)
		}
		if len(f.payload) > 0 {
			records = append(records, f)
		}
		at += int(f.size())
	}
	return records, int64(at), false
}

// syncedBehind looks for an intact record behind a bad one that was written when the bad one had been
// synced. No payload can be taken for one: JSON has no zero bytes, and `synced` begins with some.
func syncedBehind(b []byte, number uint64, bad int) bool {
	for at := bad + 1; at+frameSize <= len(b); at++ {
		if binary.BigEndian.Uint64(b[at+8:]) > uint64(at) {
			continue // nearly all places: this keeps the search cheap
		}
		if f, ok := readFrame(b[at:], number, int64(at)); ok && f.synced > int64(bad) {
			return true
		}
	}
	return false
}
