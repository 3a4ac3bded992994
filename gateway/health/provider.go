package health

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"
)

// Circuit is one that is not closed: that of a provider, or of one of its models.
type Circuit struct {
	Model     string     `json:"model,omitempty"` // "": the provider's own, so none of its models is called
	State     string     `json:"state"`           // open or half_open
	OpenedAt  time.Time  `json:"opened_at"`
	RetryAt   *time.Time `json:"retry_at,omitempty"` // of one that is open: when a call is let through to see
	LastError string     `json:"last_error"`         // from a closed list
}

// CircuitOpen is the State of one that lets nothing through.
const CircuitOpen = "open"

// namedModels is how many models a detail names.
const namedModels = 5

// Provider is the check of a provider: by its traffic, where there is none by a probe, and by its circuits:
// while its own is open it is down, and while another one is not closed it is degraded. probe is nil for none;
// circuits are those of a provider that are not closed, and nil where there are none.
func Provider(name string, t *Traffic, probe *Probe, circuits func(provider string) []Circuit) Check {
	return Check{Name: name, Run: func(ctx context.Context) Result {
		r := t.Judge(name)
		if r.State == Unknown && probe != nil {
			r = probe.look(ctx, name)
		}
		if circuits == nil {
			return r
		}
		return leftAlone(r, circuits(name))
	}}
}

// leftAlone is a result with what circuits add to it.
func leftAlone(r Result, circuits []Circuit) Result {
	if len(circuits) == 0 {
		return r
	}
	state, models, detail := Degraded, []string{}, ""
	for i := range circuits {
		switch c := &circuits[i]; {
		case c.Model != "":
			models = append(models, c.Model)
		case c.State == CircuitOpen:
			state, detail = Down, "it is not called: its circuit is open; the last failure: "+c.LastError
		default:
			detail = "its circuit is half open: one call at a time is let through"
		}
	}
	if detail == "" {
		detail = fmt.Sprintf("%d of its models have circuits that are not closed: %s", len(models), strings.Join(models[:min(len(models), namedModels)], ", "))
	}
	if r.Detail != "" {
		detail += "; " + r.Detail
	}
	facts := map[string]any{"circuits": circuits}
	maps.Copy(facts, r.Facts)
	return Result{State: worst(state, r.State), Detail: detail, Latency: r.Latency, Facts: facts}
}
