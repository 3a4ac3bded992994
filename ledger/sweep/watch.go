package sweep

import "time"

// The times of a sweeper.
const (
	Every = 2 * time.Second // between two looks

	lookTime   = 2 * time.Second // one look; one that took longer is no proof that Postgres was there
	lookGap    = 5 * time.Second // from the beginning of one time that Postgres was seen to the end of the next
	clockJump  = 2 * time.Second // how far the server's clock may get ahead of ours between two looks
	actTime    = 3 * time.Second // how long what a look found is acted on, from its beginning
	appendTime = 5 * time.Second // one release

	tidyEvery = 30 * time.Second       // between two tidyings that left nothing
	tidyPause = 100 * time.Millisecond // after one that left something
	tidyTime  = 2 * time.Second        // one tidying
)

// times are those constants; tests shorten them.
type times struct {
	term, every, look, gap, jump, act, append time.Duration
	tidyEvery, tidyPause, tidy                time.Duration
}

var usual = times{
	term: OwnerTerm, every: Every, look: lookTime, gap: lookGap, jump: clockJump, act: actTime, append: appendTime,
	tidyEvery: tidyEvery, tidyPause: tidyPause, tidy: tidyTime,
}

// watch knows for how long Postgres has been seen without a break. Times are this process's, by its
// monotonic clock, unless they are said to be the server's. The zero watch has seen nothing.
type watch struct {
	since time.Time // the end of the first look of the unbroken row
	seen  time.Time // the beginning of what saw Postgres last: a look, or an append

	began   time.Time // the beginning of the last look
	started time.Time // when the server had begun, by that look
	clock   time.Time // and what time it had
}

// saw adds a look that succeeded, and says whether Postgres has now been seen for a term.
func (w *watch) saw(began, ended time.Time, look Look, t times) bool {
	broken := w.since.IsZero() ||
		ended.Sub(began) > t.look ||
		ended.Sub(w.seen) > t.gap ||
		!look.Started.Equal(w.started) ||
		look.Now.Sub(w.clock) > ended.Sub(w.began)+t.jump
	if broken {
		w.since = ended
	}
	w.seen, w.began, w.started, w.clock = began, began, look.Started, look.Now
	return !broken && began.Sub(w.since) >= t.term
}

// answered adds an append that began then and that the ledger answered: a sight of Postgres, too, so
// that a long sweep is no break.
func (w *watch) answered(began time.Time) {
	if began.After(w.seen) {
		w.seen = began
	}
}

// broke starts the count anew.
func (w *watch) broke() { *w = watch{} }
