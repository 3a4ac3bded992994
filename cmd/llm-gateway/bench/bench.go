// Package bench measures what a billed request costs, in CPU, beside a bare gin reverse proxy that
// carries the same traffic in the same run.
//
// The problem: machines are noisy, so an absolute figure says little. Gateway and proxy take turns on
// the same upstream, round by round, and the ratio of their medians is what to quote. CPU is the
// kernel's own account of each process (user and system time), gateway and Postgres apart.
//
// All parties are processes of their own: upstream, proxy, gateway (with its Postgres) and the load,
// so that none's CPU is counted as another's. Everything is on loopback, bounded in count and time,
// and ends with Run. Tested by a small run whose requests are held against the ledger.
package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

// Bounds of a run.
const (
	maxConnections = 1024
	maxRequests    = 1_000_000
	roundTime      = 10 * time.Minute // one round of one party
)

// Config says what to measure. The two targets answer POST /v1/chat/completions.
type Config struct {
	Gateway     Target
	Proxy       Target
	Token       string // for the gateway
	Model       string
	Requests    int // per round, party and mode
	Rounds      int
	Connections int
	Progress    io.Writer // what is being measured now; nil = nobody wants to know
}

// Target is one party: where it listens, and whose CPU it costs.
type Target struct {
	URL       string
	Processes map[string]int // name -> pid; children are counted with their parent
}

// Figures are what one party came to in one mode: medians over the rounds.
type Figures struct {
	Party       string             `json:"party"`
	Mode        string             `json:"mode"` // whole or streamed
	Requests    int                `json:"requests"`
	CPUMicros   map[string]float64 `json:"cpu_us_per_request"` // by process
	PerSecond   float64            `json:"requests_per_second"`
	P50Millis   float64            `json:"p50_ms"`
	P99Millis   float64            `json:"p99_ms"`
	roundsCPU   map[string][]float64
	roundsSpeed []float64
	latencies   []time.Duration
}

// Report is the result of a run.
type Report struct {
	Connections int        `json:"connections"`
	Rounds      int        `json:"rounds"`
	Figures     []*Figures `json:"figures"`
}

// Run measures. Every request must be answered well, or it fails.
func Run(ctx context.Context, c Config) (*Report, error) {
	if c.Requests < 1 || c.Requests > maxRequests || c.Connections < 1 || c.Connections > maxConnections || c.Rounds < 1 {
		return nil, fmt.Errorf("bench: %d requests, %d connections, %d rounds are out of bounds", c.Requests, c.Connections, c.Rounds)
	}
	report := &Report{Connections: c.Connections, Rounds: c.Rounds}
	for _, stream := range []bool{false, true} {
		proxy := &Figures{Party: "proxy", Mode: mode(stream), roundsCPU: map[string][]float64{}}
		gateway := &Figures{Party: "gateway", Mode: mode(stream), roundsCPU: map[string][]float64{}}
		for round := range c.Rounds + 1 { // the first one warms up and is not counted
			for _, party := range []struct {
				figures *Figures
				target  Target
			}{{proxy, c.Proxy}, {gateway, c.Gateway}} {
				if err := c.round(ctx, party.figures, party.target, stream, round > 0); err != nil {
					return nil, fmt.Errorf("bench: %s, %s: %w", party.figures.Party, mode(stream), err)
				}
			}
		}
		proxy.summarise()
		gateway.summarise()
		report.Figures = append(report.Figures, proxy, gateway)
	}
	return report, nil
}

func mode(stream bool) string {
	if stream {
		return "streamed"
	}
	return "whole"
}

// body is the request that is sent over and over: a short question and a short answer, so that the
// gateway's own work shows.
func (c *Config) body(stream bool) []byte {
	return fmt.Appendf(nil, `{"model":%q,"max_tokens":64,"stream":%t,"messages":[`+
		`{"role":"system","content":"You are a concise assistant."},`+
		`{"role":"user","content":"Name the three largest moons of Jupiter, in one line. sim:tokens=16"}]}`, c.Model, stream)
}

func (c *Config) round(ctx context.Context, f *Figures, t Target, stream, counted bool) error {
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	if c.Progress != nil {
		fmt.Fprintf(c.Progress, "\r%-60s", fmt.Sprintf("%s, %s: %d requests", f.Party, f.Mode, c.Requests))
	}
	before, err := cpuOf(t.Processes)
	if err != nil {
		return err
	}
	result, err := Load(ctx, LoadConfig{URL: t.URL, Token: c.Token, Body: c.body(stream), Stream: stream,
		Requests: c.Requests, Connections: c.Connections})
	if err != nil {
		return err
	}
	after, err := cpuOf(t.Processes)
	if err != nil || !counted {
		return err
	}
	f.Requests += c.Requests
	for name := range t.Processes {
		used := after[name] - before[name]
		f.roundsCPU[name] = append(f.roundsCPU[name], float64(used.Nanoseconds())/1000/float64(c.Requests))
	}
	f.roundsSpeed = append(f.roundsSpeed, float64(c.Requests)/result.Took.Seconds())
	f.latencies = append(f.latencies, result.Latencies...)
	return nil
}

func (f *Figures) summarise() {
	f.CPUMicros = map[string]float64{}
	for name, rounds := range f.roundsCPU {
		f.CPUMicros[name] = median(rounds)
	}
	f.PerSecond = median(f.roundsSpeed)
	slices.Sort(f.latencies)
	f.P50Millis = millis(f.latencies[len(f.latencies)/2])
	f.P99Millis = millis(f.latencies[len(f.latencies)*99/100])
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// WriteText prints a report for a person.
func (r *Report) WriteText(w io.Writer) {
	fmt.Fprintf(w, "%d connections; the medians of %d rounds, in turn; CPU is user + system, per request\n\n", r.Connections, r.Rounds)
	fmt.Fprintf(w, "%-10s %-9s %10s %12s %12s %9s %9s %9s\n", "mode", "party", "requests", "own CPU", "Postgres CPU", "req/s", "p50 ms", "p99 ms")
	byMode := map[string]float64{}
	for _, f := range r.Figures {
		own, postgres := f.CPUMicros[f.Party], "-"
		if us, ok := f.CPUMicros["postgres"]; ok {
			postgres = fmt.Sprintf("%.0f us", us)
		}
		fmt.Fprintf(w, "%-10s %-9s %10d %9.0f us %12s %9.0f %9.1f %9.1f\n", f.Mode, f.Party, f.Requests, own, postgres,
			f.PerSecond, f.P50Millis, f.P99Millis)
		if f.Party == "proxy" {
			byMode[f.Mode] = own
			continue
		}
		fmt.Fprintf(w, "%-10s gateway / proxy: %.2f, with Postgres %.2f\n", f.Mode, own/byMode[f.Mode],
			(own+f.CPUMicros["postgres"])/byMode[f.Mode])
	}
}
