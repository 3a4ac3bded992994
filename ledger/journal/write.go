package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"llm-gateway/domain"
)

// Put answers nil once the command is durable; its SpooledAt is now, where it has none. Errors after which
// nothing happened: a *domain.Rejection (no books could accept it), ErrUnfit, ErrFull, ErrClosed,
// domain.ErrOverloaded. After an error of the disk, or ctx's, the command may or may not be in the
// journal when it is opened again: whoever tries again keeps the id.
func (j *Journal) Put(ctx context.Context, c domain.Command) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.Validate(); err != nil {
		return err
	}
	if c.SpooledAt.IsZero() {
		c.SpooledAt = j.options.Now()
	}
	c.SpooledAt = domain.EventTime(c.SpooledAt)
	payload, err := encode(c)
	if err != nil {
		return err
	}
	p := &pending{payload: payload, command: c, done: make(chan error, 1)}
	if err := j.enqueue(p); err != nil {
		return err
	}
	signal(j.wake)
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (j *Journal) enqueue(p *pending) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		return ErrClosed
	case j.used+j.queued+p.size()+headerSize > j.options.MaxBytes:
		return fmt.Errorf("%w: %d of %d bytes", ErrFull, j.used+j.queued, j.options.MaxBytes)
	case len(j.segments) >= maxSegments:
		return fmt.Errorf("%w: %d segments", ErrFull, len(j.segments))
	case len(j.queue) >= maxQueue:
		return domain.ErrOverloaded
	}
	j.queue = append(j.queue, p)
	j.queued += p.size()
	return nil
}

// write is the one that writes: until the journal is closed, it takes what has queued, makes it durable
// by one fsync, and answers.
func (j *Journal) write() {
	defer close(j.wrote)
	for {
		batch, closed := j.gather()
		if len(batch) == 0 {
			if closed {
				return
			}
			<-j.wake
			continue
		}
		err := j.writeBatch(batch)
		j.mu.Lock()
		j.writing = false
		if err != nil {
			j.queued -= bytesOf(batch)
		}
		j.mu.Unlock()
		for _, p := range batch {
			p.done <- err
		}
		j.tell()
		signal(j.arrived)
	}
}

// gather takes what has queued, as much as one write may have.
func (j *Journal) gather() (batch []*pending, closed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, bytes := 0, int64(0)
	for n < min(len(j.queue), maxWrite) && (n == 0 || bytes+j.queue[n].size() <= maxWriteBytes) {
		bytes += j.queue[n].size()
		n++
	}
	batch = slices.Clone(j.queue[:n])
	j.queue = slices.Delete(j.queue, 0, n)
	j.writing = n > 0
	return batch, j.closed
}

// writeBatch makes a batch durable: all of it, or as far as anybody may know nothing.
func (j *Journal) writeBatch(batch []*pending) error {
	s, err := j.room(batch)
	if err != nil {
		return fmt.Errorf("journal: no new segment: %w", err)
	}
	var b []byte
	for _, p := range batch {
		b = appendFrame(b, s.number, s.size, p.payload)
	}
	if err := writeSynced(s.file, b, s.size); err != nil {
		j.distrust(s)
		return fmt.Errorf("journal: %s: %w", s.name, err)
	}
	j.accept(s, batch)
	return nil
}

// bytesOf is what a batch takes in a file.
func bytesOf(batch []*pending) (n int64) {
	for _, p := range batch {
		n += p.size()
	}
	return n
}

// accept adds what has become durable to what waits.
func (j *Journal) accept(s *segment, batch []*pending) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range batch {
		j.add(s, waiting{at: s.size, size: p.size(), command: p.command})
		s.size += p.size()
	}
	j.used += bytesOf(batch)
	j.queued -= bytesOf(batch)
	j.last = link{s.number, s.size}
}

// add puts a record behind those of its account. The caller holds mu, or is alone.
func (j *Journal) add(s *segment, w waiting) {
	s.left++
	j.waiting++
	j.lines.add(w.command.Account, entry{segment: s, at: w.at, size: w.size, spooled: w.command.SpooledAt.UnixMicro()})
}

// room is the segment that a batch is to be written to: the active one, or a new one where there is none
// or it would become too long.
func (j *Journal) room(batch []*pending) (*segment, error) {
	j.mu.Lock()
	s := j.active
	j.mu.Unlock()
	if s != nil && (s.size == headerSize || s.size+bytesOf(batch) <= j.options.SegmentBytes) {
		return s, nil
	}
	if s != nil {
		j.retire(s)
	}
	j.number++
	return j.begin(header{number: j.number, previous: j.last})
}

// retire ends the writing to the active segment.
func (j *Journal) retire(s *segment) {
	if err := s.file.Close(); err != nil { // it is synced: nothing can be lost by that
		j.log.Warn("a segment of the journal could not be closed", "segment", s.name, "error", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	s.file, j.active = nil, nil
}

// begin makes a new segment. Its header says how far the one before counts, and is durable, as is its
// name, before any record is written to it.
func (j *Journal) begin(h header) (*segment, error) {
	if err := j.discard(); err != nil {
		return nil, err
	}
	s := &segment{name: segmentName(h.number), number: h.number, size: headerSize}
	j.mu.Lock()
	j.segments = append(j.segments, s)
	j.used += s.size
	j.active = s
	j.mu.Unlock()
	f, err := j.dir.Create(s.name)
	if err == nil {
		s.file = f
		err = writeSynced(f, h.bytes(), 0)
	}
	if err == nil {
		err = j.dir.Sync()
	}
	if err != nil {
		j.distrust(s)
		return nil, err
	}
	return s, nil
}

// distrust ends the writing to a segment after an error. What was not acknowledged is taken away as far
// as that works; the next segment's header does it for good. A segment that never got a record goes
// whole: so a disk that fails or is full does not fill with beginnings.
func (j *Journal) distrust(s *segment) {
	var err error
	if s.file != nil {
		err = errors.Join(s.file.Truncate(s.size), s.file.Close())
	}
	j.mu.Lock()
	s.file, j.active = nil, nil
	s.void = s.size == headerSize
	j.mu.Unlock()
	if err = errors.Join(err, j.discard()); err != nil {
		j.log.Warn("the rest of a failed write could not be cleared away", "segment", s.name, "error", err)
	}
}

// discard deletes the segments at the end that never got a record. There is no new one before they are
// gone, so there is at most one.
func (j *Journal) discard() error {
	for {
		j.mu.Lock()
		n := len(j.segments)
		if n == 0 || !j.segments[n-1].void {
			j.mu.Unlock()
			return nil
		}
		s := j.segments[n-1]
		j.mu.Unlock()
		if err := j.dir.Remove(s.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := j.dir.Sync(); err != nil {
			return err
		}
		j.mu.Lock()
		if n := len(j.segments); n > 0 && j.segments[n-1] == s { // else Run was quicker
			j.segments = j.segments[:n-1]
			j.used -= s.size
		}
		j.mu.Unlock()
	}
}

// seal marks the end of the active segment, so that nothing before it can be taken for the rest of an
// unfinished write.
func (j *Journal) seal() error {
	j.mu.Lock()
	s := j.active
	j.active = nil
	j.mu.Unlock()
	if s == nil {
		return nil
	}
	return errors.Join(writeSynced(s.file, appendFrame(nil, s.number, s.size, nil), s.size), s.file.Close())
}
