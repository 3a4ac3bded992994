package belongtest

import (
	"strconv"
	"sync"
	"testing"

	"github.com/google/uuid"

	"llm-gateway/gateway"
	"llm-gateway/gateway/provider/chat"
)

// Conform tests a Belongings. It uses ids that nobody else knows.
func Conform(t *testing.T, b gateway.Belongings) {
	claim := func(account, provider string, ids ...string) {
		t.Helper()
		if err := b.Claim(t.Context(), account, provider, ids); err != nil {
			t.Fatal(err)
		}
	}
	own := func(want bool, account, provider string, ids ...string) {
		t.Helper()
		if got, err := b.Own(t.Context(), account, provider, ids); err != nil || got != want {
			t.Errorf("%s owns %q at %s: %v, %v; want %v", account, ids, provider, got, err, want)
		}
	}
	id, other, both := uuid.NewString(), uuid.NewString(), uuid.NewString()
	own(false, "a", "openai", id)
	claim("a", "openai", id, other, id)
	own(true, "a", "openai", id)
	own(true, "a", "openai", id, other, id)
	own(false, "b", "openai", id)
	own(false, "a", "azure", id)
	own(false, "a", "openai", id, uuid.NewString())
	claim("b", "openai", id, both) // whose it is, it stays
	own(true, "a", "openai", id)
	own(false, "b", "openai", id)
	own(false, "b", "openai", id, both)
	own(true, "b", "openai", both)
	claim("b", "azure", id)
	own(true, "b", "azure", id)
	odd := uuid.NewString() + "\x00' \xff\n"
	claim("a", "openai", odd)
	own(true, "a", "openai", odd)
	many := make([]string, chat.MaxReferences)
	for i := range many {
		many[i] = id + strconv.Itoa(i)
	}
	claim("a", "openai", many...)
	own(true, "a", "openai", many...)
	raced(t, b)
}

// raced: of many that claim the same ids at once, in any order, one has them all the time.
func raced(t *testing.T, b gateway.Belongings) {
	ids := []string{uuid.NewString(), uuid.NewString(), uuid.NewString()}
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			if err := b.Claim(t.Context(), "racer"+strconv.Itoa(i), "openai", []string{ids[i%3], ids[(i+1)%3], ids[(i+2)%3]}); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, id := range ids {
		owners := 0
		for i := range 8 {
			if mine, err := b.Own(t.Context(), "racer"+strconv.Itoa(i), "openai", []string{id}); err != nil {
				t.Error(err)
			} else if mine {
				owners++
			}
		}
		if owners != 1 {
			t.Errorf("%d own one id", owners)
		}
	}
}
