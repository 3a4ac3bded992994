package limit_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"llm-gateway/domain"
	"llm-gateway/gateway/limit"
)

// BenchmarkAdmit is what the gate and the limits cost a request: a balance alone (as it was without limits),
// and with those of its account, of its key too, and of everybody, in memory and in one round trip of Redis.
func BenchmarkAdmit(b *testing.B) {
	redises := map[string]func() limit.Shared{
		"memory":   func() limit.Shared { return nil },
		"embedded": func() limit.Shared { return openCache(b, "redis://"+miniredis.RunT(b).Addr()) },
	}
	if os.Getenv("REDIS_URL") != "" {
		redises["REDIS_URL"] = func() limit.Shared { return openCache(b, os.Getenv("REDIS_URL")) }
	}
	own := domain.Quotas{domain.MaxQuota, domain.MaxQuota, domain.MaxQuota}
	for name, shared := range redises {
		for what, quotas := range map[string][]domain.Quotas{"no limits": nil, "account": {own}, "account, key and all": {own, own, own}} {
			b.Run(name+"/"+what, func(b *testing.B) {
				l := limit.New(limit.Config{Shared: shared(), Now: time.Now, Log: slog.New(slog.DiscardHandler)})
				defer l.Close()
				for b.Loop() {
					if g := l.Admit(context.Background(), ask("alice", "k", 1, quotas...), name != "memory"); g.Refused != nil || g.Err != nil {
						b.Fatal(g.Refused, g.Err)
					}
				}
			})
		}
	}
}
