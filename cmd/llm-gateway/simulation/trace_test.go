package simulation

import (
	"fmt"
	"hash"
	"hash/fnv"
	"strings"
	"time"
)

// trace is what happened, in order: of every run its hash, of one that is looked at its lines too. It
// holds no ids and no hashes, which are new in every run.
type trace struct {
	began time.Time
	hash  hash.Hash64
	keep  bool
	lines []string
}

func newTrace(keep bool) *trace { return &trace{began: time.Now(), hash: fnv.New64a(), keep: keep} }

// notef adds a line. Only the scheduler's goroutine calls it: the order is the run's.
func (t *trace) notef(format string, args ...any) {
	line := fmt.Sprintf("%12.6fs %s", time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
	t.hash.Write([]byte(line))
	if t.keep {
		t.lines = append(t.lines, line)
	}
}

func (t *trace) String() string { return strings.Join(t.lines, "\n") }

// apart says where two traces go apart.
func (t *trace) apart(other *trace) string {
	n := 0
	for n < len(t.lines) && n < len(other.lines) && t.lines[n] == other.lines[n] {
		n++
	}
	return fmt.Sprintf("after %d lines come\n%s\n%s", n, strings.Join(t.lines[n:min(n+2, len(t.lines))], "\n"), strings.Join(other.lines[n:min(n+2, len(other.lines))], "\n"))
}
