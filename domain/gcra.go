package domain

// A rate limit is the generic cell rate algorithm (GCRA), in its form as a leaky bucket, in whole numbers
// only. A bucket holds what was used of a limit of Most in each Period, and drains at that rate all the
// time. So Most fit in at once, and after that one more each Period / Most; there are no windows whose
// borders let twice as much through. The other form of the algorithm keeps the time at which the bucket
// will be empty; it has to round Period / Most, and so lets through a little more or less than was meant.
// Here what is held is counted in units times milliseconds, of which Most drain in a millisecond: nothing
// is rounded, whatever Most is.
//
// The same arithmetic is in a script of Redis, whose numbers are doubles. All of it stays below 2^53.

// The bounds of limits.
const (
	// MaxQuota bounds Most: 2 * MaxQuota * an hour, the most that a bucket holds, is below 2^53.
	MaxQuota = 1_000_000_000
	// maxDebt is how many times its limit a bucket can hold: what was used turns out to be more than was
	// taken for it only afterwards. What goes beyond this is forgiven.
	maxDebt = 2
	// maxTaken bounds what is taken or given back at once. It is no limit: nothing so large fits.
	maxTaken = maxDebt * MaxQuota
)

// Limit lets Most units through in each Period. It must be Valid; there is no such thing as a limit of 0.
type Limit struct {
	Most   int64 // from 1 to MaxQuota
	Period int64 // milliseconds, from 1 to those of an hour
}

// Level is what a bucket holds: Used, in units times milliseconds, as of At, in milliseconds since the
// epoch. The zero Level is an empty bucket.
type Level struct{ Used, At int64 }

// Valid says whether the limit is within its bounds.
func (l Limit) Valid() bool {
	return l.Most >= 1 && l.Most <= MaxQuota && l.Period >= 1 && l.Period <= hourPeriod
}

func (l Limit) capacity() int64 { return l.Most * l.Period }

// Drained is what is left of a level now. Whatever it was read from, it is brought within bounds. A clock
// that goes back drains nothing until it has come to where it was; one that goes back by more than a bucket
// takes to drain was wrong before, and is believed now.
func (l Limit) Drained(v Level, now int64) Level {
	most := maxDebt * l.capacity()
	used := min(max(v.Used, 0), most)
	if used == 0 {
		return Level{At: now}
	}
	gone := now - v.At
	switch {
	case v.At > now && (gone >= 0 || gone < -maxDebt*l.Period): // the difference may not fit 64 bits
		return Level{used, now}
	case v.At > now:
		return Level{used, v.At}
	case gone < 0 || gone >= maxDebt*l.Period:
		return Level{At: now}
	}
	return Level{max(used-gone*l.Most, 0), now}
}

// Take puts so many units into a drained bucket, if they fit; otherwise it changes nothing. A quantity below
// 0 is none.
func (l Limit) Take(v Level, quantity int64) (Level, bool) {
	quantity = max(quantity, 0)
	if quantity > l.Most || v.Used > (l.Most-quantity)*l.Period {
		return v, false
	}
	v.Used += quantity * l.Period
	return v, true
}

// Adjust puts so many more units into a drained bucket, whether or not they fit, or takes so many out of it
// where the quantity is below 0. Nobody gets more out than is in there.
func (l Limit) Adjust(v Level, quantity int64) Level {
	quantity = min(max(quantity, -maxDebt*l.Most), maxDebt*l.Most)
	v.Used = min(max(v.Used+quantity*l.Period, 0), maxDebt*l.capacity())
	return v
}

// Remaining is how many units would fit into a drained bucket now.
func (l Limit) Remaining(used int64) int64 { return max(l.capacity()-used, 0) / l.Period }

// Reset is how many milliseconds a drained bucket takes to be empty.
func (l Limit) Reset(used int64) int64 { return ceilDiv(used, l.Most) }

// Wait is after how many milliseconds a quantity will fit, if nothing else is taken meanwhile. One that is
// more than the limit never fits: then it is when the bucket is empty, and at least a millisecond.
func (l Limit) Wait(used, quantity int64) int64 {
	if quantity > l.Most {
		return max(l.Reset(used), 1)
	}
	return ceilDiv(max(used-(l.Most-max(quantity, 0))*l.Period, 0), l.Most)
}

// ceilDiv is a / b rounded up; a is not negative.
func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }
