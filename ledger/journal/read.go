package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"time"

	"llm-gateway/domain"
)

// looks is how often Read looks at a directory that seems to be damaged.
const looks = 3

// Entry is one command in a journal.
type Entry struct {
	Command domain.Command
	File    string
	At      int64    // its first byte in the file
	Refused *Refusal // nil: it waits
}

// Refusal is why and when the ledger refused a command.
type Refusal struct {
	At     time.Time
	Reason domain.Reject
	Error  string
}

// Read lists what is in a journal: what waits, in order, then what was refused. It takes no lock and
// changes nothing, so it works beside a process that runs. What has just been booked may still be listed:
// it leaves with its segment. The rest of an unfinished write is passed over; what is damaged, or newer
// than this release, is an error in its place, and the list goes on behind its file.
func Read(dir string) iter.Seq2[Entry, error] { return read(directory(dir)) }

func read(dir files) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		all, err := findChain(dir)
		for range looks - 1 {
			if err != nil { // segments that come and go while they are listed look like missing ones
				all, err = findChain(dir)
			}
		}
		if err != nil && !yield(Entry{}, err) {
			return
		}
		for i := range all {
			if !all[i].begun && all[i].err == nil && !readSegment(dir, &all[i], yield) {
				return
			}
		}
		for _, name := range [...]string{refusedOldName, refusedName} {
			if !readRefused(dir, name, yield) {
				return
			}
		}
	}
}

// readSegment lists one segment and says whether to go on.
func readSegment(dir files, f *found, yield func(Entry, error) bool) bool {
	l, err := load(dir, f)
	if errors.Is(err, fs.ErrNotExist) {
		return true // it has drained in this very moment
	}
	for i := range l.records {
		w, err := understood(f.name, &l.records[i])
		if !yield(Entry{Command: w.command, File: f.name, At: l.records[i].at}, err) {
			return false
		}
	}
	return err == nil || yield(Entry{}, err)
}

func findChain(dir files) ([]found, error) {
	all, err := find(dir)
	if err == nil {
		err = chain(all)
	}
	return all, err
}

func readRefused(dir files, name string, yield func(Entry, error) bool) bool {
	b, err := dir.Read(name)
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	if err != nil {
		return yield(Entry{}, err)
	}
	at := int64(0)
	for _, line := range wholeLines(b) {
		w, c, err := readRefusal(line)
		if err != nil {
			err = fmt.Errorf("%s at byte %d: %w", name, at, err)
		}
		if !yield(Entry{c, name, at, &Refusal{w.At, w.Reason, w.Error}}, err) {
			return false
		}
		at += int64(len(line))
	}
	return true
}
