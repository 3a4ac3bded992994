package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"llm-gateway/cmd/llm-gateway/embedded"
)

// verdict is what a check comes to.
type verdict string

// The verdicts. A warning is something that a careful operator would mend, or has a reason for.
const (
	verdictOK   verdict = "OK"
	verdictWarn verdict = "WARN"
	verdictFail verdict = "FAIL"
	verdictSkip verdict = "SKIP"
)

// finding is one line of a check.
type finding struct {
	Check   string  `json:"check"`
	Verdict verdict `json:"verdict"`
	Detail  string  `json:"detail"` // one line; what to do where it is not OK. Never a password
}

// findings are the lines of a check, in order.
type findings []finding

func (f *findings) addf(v verdict, check, format string, args ...any) {
	*f = append(*f, finding{check, v, oneLine(fmt.Sprintf(format, args...))})
}

func (f *findings) okf(check, format string, args ...any) { f.addf(verdictOK, check, format, args...) }
func (f *findings) warnf(check, format string, args ...any) {
	f.addf(verdictWarn, check, format, args...)
}
func (f *findings) failf(check, format string, args ...any) {
	f.addf(verdictFail, check, format, args...)
}
func (f *findings) skipf(check, format string, args ...any) {
	f.addf(verdictSkip, check, format, args...)
}

// either is OK where it is, and otherwise the verdict with what to do.
func (f *findings) either(is bool, check, fine string, otherwise verdict, what string) {
	if is {
		f.okf(check, "%s", fine)
		return
	}
	f.addf(otherwise, check, "%s", what)
}

// under puts a name before those of some findings.
func (f findings) under(name string) findings {
	out := slices.Clone(f)
	for i := range out {
		out[i].Check = name + ": " + out[i].Check
	}
	return out
}

func (f findings) count(v verdict) (n int) {
	for i := range f {
		if f[i].Verdict == v {
			n++
		}
	}
	return n
}

// checkOutcome is the JSON of `check db|redis|kafka|production`.
type checkOutcome struct {
	Checks findings `json:"checks"`
	Failed int      `json:"failed"`
	Warned int      `json:"warned"`
}

// conclude prints findings, and is an error where any failed.
func (a *app) conclude(f findings, asJSON bool) error {
	out := checkOutcome{f, f.count(verdictFail), f.count(verdictWarn)}
	if asJSON {
		if err := a.printJSON(out); err != nil {
			return err
		}
	} else {
		rows := make([][]string, len(f))
		for i := range f {
			rows[i] = []string{string(f[i].Verdict), f[i].Check, f[i].Detail}
		}
		if err := a.printTable(rows); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "\n%d failed, %d warnings, %d OK, %d skipped\n", out.Failed, out.Warned, f.count(verdictOK), f.count(verdictSkip))
	}
	if out.Failed == 0 {
		return nil
	}
	first := f[slices.IndexFunc(f, func(one finding) bool { return one.Verdict == verdictFail })]
	return fmt.Errorf("%d checks failed; the first: %s: %s", out.Failed, first.Check, first.Detail)
}

// Bounds of checking a server.
const (
	roundTrips    = 5                     // of which the median is told
	slowRoundTrip = 20 * time.Millisecond // every call waits for Postgres twice
)

// median makes some round trips and tells of the middle one.
func (f *findings) median(what string, trip func() error) bool {
	times := make([]time.Duration, roundTrips)
	for i := range times {
		began := time.Now()
		if err := trip(); err != nil {
			f.failf("round trip", "%s breaks off: %s", what, reason(err))
			return false
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	took := times[len(times)/2]
	if took > slowRoundTrip {
		f.warnf("round trip", "%s takes %s (median of %d); beyond %s calls get slow: bring it nearer", what, took.Round(time.Microsecond), roundTrips, slowRoundTrip)
	} else {
		f.okf("round trip", "%s takes %s (median of %d)", what, took.Round(time.Microsecond), roundTrips)
	}
	return true
}

// local says whether an address is on this machine: then nobody listens on the way.
func local(host string) bool {
	if strings.HasPrefix(host, "/") || host == "localhost" || host == "" {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}

// serverAt is where a server is to be checked: where its setting says, or else (own) the part of a running
// process that is embedded in its place; "", with a finding, where there is none.
func (f *findings) serverAt(s *Settings, setting, set string, part func(embedded.Endpoints) string) (at string, own bool) {
	if set != "" {
		return set, false
	}
	e, err := embedded.ReadEndpoints(s.DataDir)
	switch {
	case errors.Is(err, embedded.ErrNoEndpoints):
		f.skipf("embedded", "%s is not set: embedded, not running. `llm-gateway serve` starts it", setting)
	case err != nil:
		f.failf("embedded", "DATA_DIR: %s", reason(err))
	case part(e) == "":
		f.skipf("embedded", "%s", notTheSame(setting, s, e))
	default:
		return part(e), true
	}
	return "", true
}

// serverChecks are what `check NAME` looks at.
var serverChecks = map[string]func(ctx context.Context, s *Settings) findings{
	"db": checkDatabase, "redis": checkRedisServer, "kafka": checkKafkaServer,
}

// checkServer runs `check db`, `check redis` or `check kafka`.
func (a *app) checkServer(ctx context.Context, name string, timeout time.Duration, asJSON bool) error {
	s, _, err := a.readable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return a.conclude(serverChecks[name](ctx, s), asJSON)
}
