package gateway_test

import (
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
)

// allMeters is an answer's meters where only these are not 0.
func allMeters(some string) string {
	out := "{"
	for m := range domain.MeterCount {
		name := domain.Meter(m).String()
		n := gjson.Get(some, name).Int()
		out += fmt.Sprintf(`"%s":%d,`, name, n)
	}
	return out[:len(out)-1] + "}"
}

func TestStats(t *testing.T) {
	t.Parallel()
	providers, _ := both(t)
	e := start(t, options{providers: providers})
	e.chat("berta", chatBody("sim-flat", "x", "")) // another account's
	small := e.chat("anton", chatBody("simulated/sim-small", "x sim:tokens=10", ""))
	e.chat("anton", chatBody("sim-small", "sim:status=500", "")) // refunded: it used nothing
	flat, openai := e.chat("anton", chatBody("sim-flat", "x", "")), e.chat("anton", chatBody("gpt-4o-mini", "x sim:reasoning=3", ""))
	used := func(a answer, name string) int64 {
		l := e.life("anton", a.id())
		m, err := domain.ParseMeter(name)
		if err != nil {
			t.Fatal(err)
		}
		return l.commitData().Meters[m]
	}
	row := func(of ...answer) string {
		sum, meters := new(big.Rat), `{"requests":`+itoa(int64(len(of)))
		for _, a := range of {
			sum.Add(sum, ratText(t, a.header.Get("x-billing-cost")))
		}
		for _, name := range []string{"input", "output", "reasoning"} {
			n := int64(0)
			for _, a := range of {
				n += used(a, name)
			}
			meters += fmt.Sprintf(`,"%s":%d`, name, n)
		}
		cost := domain.MustAmount(sum.FloatString(domain.AmountScale))
		return fmt.Sprintf(`"requests":%d,"meters":%s,"amount":%s}`, len(of), allMeters(meters+"}"), cost)
	}
	total := `{` + row(small, flat, openai)
	hour := e.life("anton", small.id()).commit.OccurredAt.Truncate(time.Hour)
	for group, want := range map[string]string{
		"model":    `[{"model":"sim-flat",` + row(flat) + `,{"model":"gpt-4o-mini",` + row(openai) + `,{"model":"sim-small",` + row(small) + `]`,
		"provider": `[{"provider":"simulated",` + row(small, flat) + `,{"provider":"openai",` + row(openai) + `]`,
		"hour":     `[{"start":"` + hour.Format(time.RFC3339) + `",` + row(small, flat, openai) + `]`,
		"day":      `[{"start":"` + hour.Truncate(24*time.Hour).Format(time.RFC3339) + `",` + row(small, flat, openai) + `]`,
		"":         `[{"start":"` + hour.Truncate(24*time.Hour).Format(time.RFC3339) + `",` + row(small, flat, openai) + `]`,
	} {
		a := e.get("anton", "/billing/stats?group_by="+group)
		if a.status != 200 || a.json("data").Raw != want || a.json("total").Raw != total {
			t.Errorf("by %q: %d %s\nwant %s and %s", group, a.status, a.body, want, total)
		}
	}
	a := e.get("anton", "/billing/stats?from=2020-01-01&to=2020-01-02&group_by=hour")
	want := `{"user_id":"anton","currency":"USD","from":"TIME","to":"TIME","group_by":"hour","data":[],"total":{"requests":0,"meters":` + allMeters("{}") +
		`,"amount":0},"as_of":"TIME","position":"POSITION","behind":0}`
	if masked(a.body) != want {
		t.Errorf("nothing: %s\nwant %s", a.body, want)
	}
}

// TestStatsSumToTheBalance: the opening balance less what the statistics say was spent is what is left.
func TestStatsSumToTheBalance(t *testing.T) {
	t.Parallel()
	e := start(t, options{balance: "1"})
	for i := range 20 {
		e.post("carla", []string{chatPath, streamPath}[i%2], chatBody([]string{"sim-small", "sim-large", "sim-flat"}[i%3], fmt.Sprintf("sim:tokens=%d", i*7), ""))
	}
	for _, group := range []string{"hour", "day", "model", "provider"} {
		a, sum := e.get("carla", "/billing/stats?group_by="+group), new(big.Rat)
		for _, amount := range a.json("data.#.amount").Array() {
			sum.Add(sum, ratText(t, amount.Raw))
		}
		left := new(big.Rat).Sub(big.NewRat(1, 1), sum)
		if left.Cmp(rat(e.account("carla").Available)) != 0 || sum.Cmp(ratText(t, a.json("total.amount").Raw)) != 0 || a.json("total.requests").Int() != 20 {
			t.Errorf("by %s: %s", group, a.body)
		}
	}
}

func TestStatsQuery(t *testing.T) {
	t.Parallel()
	now := &clock{at: time.Date(2026, 3, 14, 15, 9, 26, 5, time.UTC)}
	e := start(t, options{now: now.now})
	const nextHour, monthAgo = "2026-03-14T16:00:00Z", "2026-02-12T16:00:00Z"
	for query, want := range map[string][2]string{
		"":                               {monthAgo, nextHour},
		"from=&to=&group_by=":            {monthAgo, nextHour},
		"from=2026-03-01":                {"2026-03-01T00:00:00Z", nextHour},
		"to=2026-03-01":                  {"2026-01-30T00:00:00Z", "2026-03-01T00:00:00Z"},
		"from=2026-03-01&to=2026-03-02":  {"2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"},
		"from=2026-03-01T10:59:59.999Z":  {"2026-03-01T10:00:00Z", nextHour},
		"to=2026-03-01T10:00:00.000001Z": {"2026-01-30T11:00:00Z", "2026-03-01T11:00:00Z"},
		"from=2026-03-14T15:09:26Z&to=2026-03-14T15:09:27Z":                         {"2026-03-14T15:00:00Z", nextHour},
		"from=" + url.QueryEscape("2026-03-01T00:00:00+05:30"):                      {"2026-02-28T18:00:00Z", nextHour},
		"from=2027-01-01&to=2028-01-01":                                             {"2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"},
		"from=1970-01-01&to=9998-12-31T23:59:59Z&group_by=model":                    {"1970-01-01T00:00:00Z", "9999-01-01T00:00:00Z"},
		"from=2024-01-01&to=2025-01-01&group_by=hour":                               {"2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"},
		"from=2016-03-01&to=" + "2026-03-09" + "&group_by=day":                      {"2016-03-01T00:00:00Z", "2026-03-09T00:00:00Z"},
		"from=2026-03-14T15:59:00Z&to=2026-03-14T16:00:00Z&group_by=provider&x=y#z": {"2026-03-14T15:00:00Z", nextHour},
	} {
		a := e.get("doris", "/billing/stats?"+query)
		if a.status != 200 || a.json("from").Str != want[0] || a.json("to").Str != want[1] {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	now.pass(50*time.Minute + 33*time.Second + 999999995*time.Nanosecond)
	if a := e.get("doris", "/billing/stats"); a.json("group_by").Str != "day" || a.json("to").Str != "2026-03-14T17:00:00Z" {
		t.Errorf("at the full hour: %s", a.body)
	}
	for query, param := range map[string]string{
		"group_by=week": "group_by", "group_by=Hour": "group_by", "group_by=hour,day": "group_by", "group_by=%00": "group_by",
		"from=yesterday": "from", "from=2026-02-30": "from", "from=0": "from", "from=1771000000": "from", "from=2026-03-01T10:00:00": "from",
		"from=2026-03-01+10:00:00": "from", "from=1969-12-31": "from", "from=-2026-03-01": "from", "from=0000-01-01T00:00:00%2B14:00": "from",
		"to=9999-01-01": "to", "to=9999-12-31T23:59:59Z": "to", "to=99999-01-01": "to", "to=now": "to", "to=2026-03-01%00": "to",
		"from=2026-03-02&to=2026-03-01": "from", "from=2026-03-02&to=2026-03-02": "from", "from=2026-03-14T15:30:00Z&to=2026-03-14T15:20:00Z": "from",
		"from=2027-01-01": "from",
		"from=2024-01-01&to=2025-01-01T01:00:00Z&group_by=hour": "from",
		"from=2016-03-01&to=2026-03-10&group_by=day":            "from", "from=1970-01-01&to=9998-01-01&group_by=hour": "from",
		"from=1970-01-01&to=9998-01-01&group_by=day": "from",
	} {
		a := e.get("doris", "/billing/stats?"+query)
		checkError(t, query, a, 400, "invalid_request_error", "invalid_value")
		if a.json("error.param").Str != param {
			t.Errorf("%s: %s", query, a.body)
		}
	}
}
