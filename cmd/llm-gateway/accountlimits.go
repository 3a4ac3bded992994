package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/ledger"
)

var accountLimitsVerb = verb{
	name: "account limits", args: "NAME [--requests-per-minute N] [--requests-per-hour N] [--tokens-per-minute N] [--clear] [--json]",
	summary: "show or set the rate limits of one account",
	about: `Without a flag it shows what is set. N is a number, 0 for no limit, or "default" for what RATE_LIMIT_* gives
everybody; what is not named stays. --clear makes all of them the default. Running gateways follow within
seconds.`,
	run: runAccountLimits,
}

// defaultQuota is the word for what everybody has.
const defaultQuota = "default"

// quotaFlags are the flags of limits, by window.
var quotaFlags = [domain.Windows]string{domain.RequestsMinute: "requests-per-minute", domain.RequestsHour: "requests-per-hour", domain.TokensMinute: "tokens-per-minute"}

// quotaFlag is a limit as a flag.
type quotaFlag struct {
	word  string // what it may be beside a number; "" = nothing
	named bool
	most  *int64 // nil = the word
}

// String implements flag.Value.
func (q *quotaFlag) String() string { return "" }

// Set implements flag.Value.
func (q *quotaFlag) Set(text string) error {
	q.named = true
	if text == q.word && text != "" {
		q.most = nil
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > domain.MaxQuota {
		return fmt.Errorf("it must be from 0 (no limit) to %d", domain.MaxQuota)
	}
	q.most = &n
	return nil
}

// declareQuotas declares the flags.
func declareQuotas(fs *flag.FlagSet, word string) *[domain.Windows]quotaFlag {
	flags := new([domain.Windows]quotaFlag)
	for w, name := range quotaFlags {
		flags[w].word = word
		fs.Var(&flags[w], name, fmt.Sprintf("at most `N` %s", domain.Window(w)))
	}
	return flags
}

// limitsOut is the JSON of `account limits`: null is what everybody has, 0 no limit.
type limitsOut struct {
	Account string `json:"account"`
	gateway.QuotaView
}

func runAccountLimits(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	flags := declareQuotas(fs, defaultQuota)
	reset := fs.Bool("clear", false, "make all of them the default")
	asJSON := jsonFlag(fs)
	name, err := a.parseName(fs, args)
	if err != nil {
		return err
	}
	var change domain.QuotaChange
	var named [domain.Windows]bool
	for w := range flags {
		if *reset && flags[w].named {
			return a.usage("--clear and --%s exclude each other", quotaFlags[w])
		}
		change[w], named[w] = flags[w].most, flags[w].named || *reset
	}
	return withReader(ctx, a, func(r *ledger.Reader) error {
		if _, err := openedAccount(ctx, r, name); err != nil {
			return err
		}
		store := limitStore{r.Pool()}
		if named == [domain.Windows]bool{} {
			change, err = store.Quotas(ctx, name)
		} else {
			change, err = store.set(ctx, name, actor, change, named)
		}
		if err != nil {
			return err
		}
		if *asJSON {
			return a.printJSON(limitsOut{name, gateway.ViewQuotas(change)})
		}
		rows := [][]string{{"account", name}}
		for w, most := range change {
			rows = append(rows, []string{domain.Window(w).String(), quotaText(most)})
		}
		return a.printTable(rows)
	})
}

func quotaText(most *int64) string {
	switch {
	case most == nil:
		return defaultQuota
	case *most == 0:
		return "no limit"
	}
	return strconv.FormatInt(*most, 10)
}
