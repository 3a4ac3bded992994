package domain

import "time"

// The window in which retries are held against calls.
const (
	retryWindow = 10 // seconds
	// retryFloor is how many retries a second are allowed whatever the calls: a quiet gateway is to retry, too.
	retryFloor = 1
)

// RetryBudget bounds the retries of one provider by a share of the calls that it got lately, so that an
// outage is not multiplied by the attempts of each call. It is exact: with every retry that it allows there have
// been, in the ten whole seconds of its clock that end then, at most ten retries and the share of the calls.
// Pure, told the time, and not safe for concurrent use; the zero one is ready. After a clock that was put back
// it begins anew.
type RetryBudget struct {
	second int64 // of the newest slot
	slots  [retryWindow]struct{ calls, retries int64 }
}

// Call counts a call that is no retry.
func (b *RetryBudget) Call(now time.Time) {
	b.turn(now.Unix())
	b.slots[b.second%retryWindow].calls++
}

// Retry says whether a call may be made again, and counts it if so. percent is the share.
func (b *RetryBudget) Retry(now time.Time, percent int) bool {
	b.turn(now.Unix())
	var calls, retries int64
	for _, s := range b.slots {
		calls, retries = calls+s.calls, retries+s.retries
	}
	if 100*(retries+1) > 100*retryFloor*retryWindow+int64(percent)*calls {
		return false
	}
	b.slots[b.second%retryWindow].retries++
	return true
}

// turn empties the slots of the seconds that have passed.
func (b *RetryBudget) turn(second int64) {
	second = max(0, second)
	if second < b.second || second >= b.second+retryWindow {
		*b = RetryBudget{second: second}
		return
	}
	for b.second < second {
		b.second++
		b.slots[b.second%retryWindow] = struct{ calls, retries int64 }{}
	}
}
