package ledger

import (
	"testing"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// TestGather: a batch takes what is there, within its bounds: of commands, and of the bytes that it keeps.
// A batch of long answers that did not fit the time of one try would be tried again for ever.
func TestGather(t *testing.T) {
	t.Parallel()
	plain := func(int) domain.Op { return reserve(uuid.New(), "1") }
	keeps := func(size int) func(int) domain.Op {
		return func(int) domain.Op {
			end := settle(uuid.New(), "1")
			end.Response = &domain.Response{Body: make([]byte, size)}
			return end
		}
	}
	mixed := func(i int) domain.Op {
		if i%4 == 0 {
			return keeps(1 << 20)(i)
		}
		return plain(i)
	}
	for name, c := range map[string]struct {
		op           func(int) domain.Op
		queued, want int
	}{
		"one": {plain, 1, 1}, "some": {plain, 9, 9}, "as many as there may be": {plain, 256, 256}, "more": {plain, 300, 256},
		"short answers": {keeps(100), 300, 256}, "long answers": {keeps(1 << 20), 300, 4}, "nearly as long": {keeps(1<<20 - 1), 300, 5},
		"one that is longer than all may be": {keeps(9 << 20), 3, 1}, "long ones among others": {mixed, 300, 13},
	} {
		queue := make(chan *pending, c.queued)
		for i := range c.queued {
			queue <- &pending{command: command("a", c.op(i))}
		}
		if got := gather([]*pending{<-queue}, queue); len(got) != c.want || len(queue) != c.queued-c.want {
			t.Errorf("%s: %d in the batch, want %d; %d still queue", name, len(got), c.want, len(queue))
		}
	}
}
