package projections

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
)

// stats is the projection of what every account used, paid, and cost the operator, by hour, model and provider.
type stats struct{}

func (stats) name() string { return "stats" }

func (stats) columns() (key, others []string) {
	return []string{"shard", "account", "hour", "model", "provider"}, append(append([]string{"requests"}, meterColumns()...), "amount", "cost")
}

// meterColumns are the columns of the meters, in the meters' order.
func meterColumns() []string {
	out := make([]string, domain.MeterCount)
	for m := range out {
		out[m] = "meter_" + domain.Meter(m).String()
	}
	return out
}

func (stats) fold(b *pgx.Batch, table string, shard int32, events []domain.Recorded) {
	sums := map[domain.ConsumptionKey]domain.Consumption{}
	for i := range events {
		key, c, ok := domain.ConsumptionOf(&events[i].Event)
		if !ok {
			continue
		}
		key.Model, key.Provider = clean(key.Model), clean(key.Provider)
		if overflows(sums[key], c) {
			addStats(b, table, shard, sums) // Postgres says what comes of it
			sums = map[domain.ConsumptionKey]domain.Consumption{}
		}
		sums[key] = sums[key].Add(c)
	}
	addStats(b, table, shard, sums)
}

// overflows says whether two consumptions cannot be added up here.
func overflows(a, b domain.Consumption) bool {
	for m := range a.Meters {
		if a.Meters[m] > math.MaxInt64-b.Meters[m] {
			return true
		}
	}
	return !a.Amount.Add(b.Amount).InRange() || !a.Cost.Add(b.Cost).InRange()
}

func addStats(b *pgx.Batch, table string, shard int32, sums map[domain.ConsumptionKey]domain.Consumption) {
	if len(sums) == 0 {
		return
	}
	var accounts, models, providers, amounts, costs []string
	var hours []time.Time
	var requests []int64
	meters := make([][]int64, domain.MeterCount)
	for _, key := range slices.SortedFunc(maps.Keys(sums), compareKeys) { // the order of locking
		c := sums[key]
		accounts, hours = append(accounts, key.Account), append(hours, key.Hour)
		models, providers = append(models, key.Model), append(providers, key.Provider)
		requests, amounts, costs = append(requests, c.Requests), append(amounts, c.Amount.String()), append(costs, c.Cost.String())
		for m, n := range c.Meters {
			meters[m] = append(meters[m], n)
		}
	}
	args := []any{shard, accounts, hours, models, providers, amounts, costs, requests}
	for _, column := range meters {
		args = append(args, column)
	}
	b.Queue(upsertStats(table), args...).Exec(wantRows(len(sums), table))
}

// upsertStats is the statement for a table; its arguments are as addStats gives them.
func upsertStats(table string) string {
	counts := append([]string{"requests"}, meterColumns()...)
	names := "account, hour, model, provider, amount, cost, " + strings.Join(counts, ", ")
	var arrays, sums strings.Builder
	for i, column := range counts {
		fmt.Fprintf(&arrays, ", $%d::bigint[]", i+8)
		fmt.Fprintf(&sums, ", %s = s.%s + excluded.%s", column, column, column)
	}
	return `INSERT INTO ` + quoted(table) + ` AS s (shard, ` + names + `)
		SELECT $1::int, ` + strings.Replace(names, "amount, cost", "amount::numeric, cost::numeric", 1) + `
		FROM unnest($2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[]` + arrays.String() + `) AS n(` + names + `)
		ON CONFLICT (shard, account, hour, model, provider) DO UPDATE SET
			amount = s.amount + excluded.amount, cost = s.cost + excluded.cost` + sums.String()
}

func compareKeys(a, b domain.ConsumptionKey) int {
	return cmp.Or(strings.Compare(a.Account, b.Account), a.Hour.Compare(b.Hour),
		strings.Compare(a.Model, b.Model), strings.Compare(a.Provider, b.Provider))
}
