package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"llm-gateway/domain"
)

// found is a segment as it lies in the directory.
type found struct {
	name   string
	number uint64
	head   header
	err    error // what is wrong with the header
	size   int64 // of the header at most: the rest is not looked at yet
	// limit is how much of it counts, by the word of the segment after it; 0: it is the last.
	limit int64
	// begun: the process died while it made this segment, the last one. Nothing was acknowledged in it.
	begun bool
}

// find lists the segments in their order, with their headers.
func find(dir files) ([]found, error) {
	names, err := dir.List()
	if err != nil {
		return nil, err
	}
	var all []found
	for _, name := range names {
		number, ok := segmentNumber(name)
		if !ok {
			continue
		}
		b, err := dir.ReadAt(name, 0, headerSize+1)
		if errors.Is(err, fs.ErrNotExist) {
			continue // Read looks on while another process drains
		}
		if err != nil {
			return nil, err
		}
		f := found{name: name, number: number, size: int64(len(b))}
		if f.head, f.err = readHeader(b); f.err == nil && f.head.number != number {
			f.err = fmt.Errorf("%w: it is of segment %d", errBadHeader, f.head.number)
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(a.number, b.number) })
	return all, nil
}

// chain says of each segment how much of it counts. From the last one backwards, each header names the
// one before. The beginning of the chain may be gone, its middle not.
func chain(all []found) error {
	var next *found
	for i := len(all) - 1; i >= 0; i-- {
		f := &all[i]
		switch {
		case next == nil && errors.Is(f.err, errBadHeader) && f.size <= headerSize:
			f.begun = true
			continue
		case next != nil && f.number != next.head.previous.number:
			return damaged(next.name, 0, fmt.Sprintf("it follows segment %d, and not %s", next.head.previous.number, f.name))
		case errors.Is(f.err, errBadHeader):
			return damaged(f.name, 0, f.err.Error())
		case f.err != nil:
			return fmt.Errorf("%s: %w", f.name, f.err)
		}
		if next != nil {
			f.limit = next.head.previous.size
		}
		next = f
	}
	return nil
}

// loaded is what a segment holds.
type loaded struct {
	records []frame
	bytes   []byte // what of it counts
	torn    int64  // how many bytes behind that are the rest of an unfinished write
}

// load reads the records of a segment that chain has looked at.
func load(dir files, f *found) (loaded, error) {
	b, err := dir.Read(f.name)
	if err != nil {
		return loaded{}, err
	}
	if f.limit > int64(len(b)) {
		return loaded{}, damaged(f.name, int64(len(b)), fmt.Sprintf("it ends here and had %d bytes", f.limit))
	}
	if f.limit > 0 {
		b = b[:f.limit]
	}
	records, intact, synced := scan(b, f.number)
	l := loaded{records: records, bytes: b[:intact], torn: int64(len(b)) - intact}
	if l.torn > 0 && (synced || f.limit > 0) {
		return l, damaged(f.name, intact, "the record is not as it was written")
	}
	return l, nil
}

// understood decodes a record that is intact.
func understood(name string, f *frame) (waiting, error) {
	c, err := decode(f.payload)
	switch {
	case errors.Is(err, ErrTooNew):
		return waiting{}, fmt.Errorf("%s at byte %d: %w", name, f.at, err)
	case err != nil:
		return waiting{}, damaged(name, f.at, err.Error())
	}
	return waiting{at: f.at, size: f.size(), command: c}, nil
}

// waiting is a record and its command.
type waiting struct {
	at, size int64
	command  domain.Command
}
