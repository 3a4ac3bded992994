package main

import (
	"fmt"
	"net/http"
	"os"
	"testing"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// TestCacheThroughBinary: what was answered before is answered again without the provider, at a tenth of the price;
// by every gateway where the answers are in Redis, by the one that had it where they are in memory. The ledger
// explains it all.
func TestCacheThroughBinary(t *testing.T) {
	t.Parallel()
	for store, hits := range map[string]int{"redis": 3, "memory": 1} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			env := []string{"RESPONSE_CACHE=" + store, "RESPONSE_CACHE_PRICE=10"}
			if at := os.Getenv("REDIS_URL"); at != "" {
				env = append(env, "REDIS_URL="+at)
			} else if store == "redis" {
				t.Skip("REDIS_URL is not set: run `make test`, which starts an embedded Redis")
			}
			f := startFailing(t, 3, env...)
			for i, stream := range []bool{false, true} {
				marker := fmt.Sprintf("%s;n=%s%d", []string{openAIOne, "cas:oas-chat-usage-1"}[i], store, i)
				f.hitsOf(marker, stream, hits)
				if calls := f.calls(fmt.Sprint(store, i)); calls != 4-hits {
					t.Errorf("stream %t: %d calls", stream, calls)
				}
			}
			other := *f
			other.token = tokenFor(t, "somebody-else")
			if got := other.want(0, "steady", openAIOne+fmt.Sprintf(";n=%s0", store), false, http.StatusOK, ""); got.header.Get("x-cache") != "miss" {
				t.Errorf("another account: x-cache %s", got.header.Get("x-cache"))
			}
			report := parsed[ledger.AuditReport](t, []string{"DATABASE_URL=" + f.dbURL}, "audit", "--all")
			if !report.Clean || report.Charges != 9 {
				t.Errorf("audit: %+v", report)
			}
			verified(t, "DATABASE_URL="+f.dbURL)
		})
	}
}

// hitsOf asks once, and then every gateway again: that many have the answer, the same one, for a tenth.
func (f *failing) hitsOf(marker string, stream bool, hits int) {
	f.t.Helper()
	first, got := f.want(0, "steady", marker, stream, http.StatusOK, ""), 0
	for g := range f.all {
		again := f.want(g, "steady", marker, stream, http.StatusOK, "")
		if again.header.Get("x-cache") != "hit" {
			continue
		}
		got++
		cost, full := domain.MustAmount(again.cost), domain.MustAmount(first.cost)
		if !again.complete || again.answer != first.answer || again.request == first.request || !cost.Times(10).Equal(full) || full.Sign() <= 0 {
			f.t.Errorf("gateway %d: %v for %s, at first %v for %s", g, &again, again.cost, &first, first.cost)
		}
	}
	if got != hits {
		f.t.Errorf("stream %t: %d hits", stream, got)
	}
}
