package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

const (
	refusedName    = "refused"
	refusedOldName = "refused.old"
	refusedBytes   = 4 << 20 // of refused, before it becomes refused.old
)

// wireRefusal is one line of the file of refused commands.
type wireRefusal struct {
	At      time.Time       `json:"refused_at"`
	Reason  domain.Reject   `json:"reason"`
	Error   string          `json:"error"`
	Command json.RawMessage `json:"command"`
}

// refusals is the file of refused commands. Its end may be torn: what was kept is whole lines.
type refusals struct {
	dir files
	max int64

	mu            sync.Mutex
	size          int64              // so much of refused is known to be durable
	file          file               // nil: to be opened, and cut to size
	known, before map[uuid.UUID]bool // what is in refused and in refused.old
}

// load finds out what was refused already.
func (r *refusals) load() error {
	old, err := r.lines(refusedOldName)
	if err != nil {
		return err
	}
	current, err := r.lines(refusedName)
	if err != nil {
		return err
	}
	r.before, r.known = idsOf(old), idsOf(current)
	if len(current) == 0 {
		return nil
	}
	whole := bytes.Join(current, nil)
	r.size = int64(len(whole))
	return rewrite(r.dir, refusedName, whole) // what is known is not kept again, so it must be durable
}

// lines reads the whole lines of a file that may not be there.
func (r *refusals) lines(name string) ([][]byte, error) {
	b, err := r.dir.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return wholeLines(b), err
}

// wholeLines leaves the last line out where it was not written to its end.
func wholeLines(b []byte) [][]byte {
	lines := slices.Collect(bytes.Lines(b))
	if n := len(lines); n > 0 && (!bytes.HasSuffix(lines[n-1], []byte("\n")) || !json.Valid(lines[n-1])) {
		lines = lines[:n-1]
	}
	return lines
}

// idsOf passes over what cannot be read: at worst a command is kept twice.
func idsOf(lines [][]byte) map[uuid.UUID]bool {
	ids := map[uuid.UUID]bool{}
	for _, l := range lines {
		if _, c, err := readRefusal(l); err == nil {
			ids[c.ID] = true
		}
	}
	return ids
}

func readRefusal(b []byte) (wireRefusal, domain.Command, error) {
	var w wireRefusal
	if err := strictly(b, &w); err != nil {
		return w, domain.Command{}, err
	}
	c, err := decode(w.Command)
	return w, c, err
}

// keep makes a refused command durable; first says that it was not there yet.
func (r *refusals) keep(c domain.Command, reason domain.Reject, why error, now time.Time) (first bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known[c.ID] || r.before[c.ID] {
		return false, nil
	}
	if o, ok := c.Op.(domain.Settle); ok {
		o.Response = nil // an answer is no money, and may be long
		c.Op = o
	}
	command, err := encode(c)
	if err != nil {
		return false, err
	}
	line, err := marshal(wireRefusal{domain.EventTime(now), reason, why.Error(), command})
	if err != nil {
		return false, err
	}
	if err := r.append(append(line, '\n')); err != nil {
		return false, err
	}
	r.known[c.ID] = true
	return true, nil
}

// append writes a line. After an error the file is opened again and cut to what was durable, and the line
// is written again: an fsync that is only asked again would not tell.
func (r *refusals) append(line []byte) error {
	if r.size > 0 && r.size+int64(len(line)) > r.max {
		if err := r.rotate(); err != nil {
			return err
		}
	}
	if r.file == nil {
		f, err := r.dir.Open(refusedName)
		if err != nil {
			return err
		}
		r.file = f
		if err := errors.Join(f.Truncate(r.size), r.dir.Sync()); err != nil {
			return errors.Join(err, r.close())
		}
	}
	if err := writeSynced(r.file, line, r.size); err != nil {
		return errors.Join(err, r.close())
	}
	r.size += int64(len(line))
	return nil
}

// rotate makes room: what is in refused.old is dropped.
func (r *refusals) rotate() error {
	err := r.close()
	if err == nil {
		err = r.dir.Rename(refusedName, refusedOldName)
	}
	if err == nil {
		err = r.dir.Sync() // before another file gets the name
	}
	if err != nil {
		return fmt.Errorf("making room for refused commands: %w", err)
	}
	r.size, r.before, r.known = 0, r.known, map[uuid.UUID]bool{}
	return nil
}

func (r *refusals) close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}
