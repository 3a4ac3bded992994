package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrTaken says that somebody else holds the lease, and keeps it.
var ErrTaken = errors.New("the lease is taken")

// Alone runs do once, while it holds a lease. One that a dead process left behind is waited for, for so long;
// one that is kept is ErrTaken. The context of do ends when the lease may have been lost.
func (k *Keeper) Alone(ctx context.Context, name string, wait time.Duration, do func(context.Context) error) error {
	turn, end := context.WithCancel(ctx)
	defer end()
	var once sync.Once // either do begins, or the waiting ends
	refuse := time.AfterFunc(wait, func() { once.Do(end) })
	defer refuse.Stop()
	err := ErrTaken
	k.Run(turn, []string{name}, func(held context.Context, _ string) error {
		defer end()
		refuse.Stop()
		once.Do(func() {
			err = do(held)
			if cause := context.Cause(held); err != nil && cause != nil {
				err = fmt.Errorf("%w: %w", cause, err)
			}
		})
		return nil
	})
	if errors.Is(err, ErrTaken) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
