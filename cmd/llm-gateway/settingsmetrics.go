package main

import (
	"fmt"

	"llm-gateway/gateway/observe"
)

// balancesOff is the METRICS_USER_BALANCE that names no account.
const balancesOff = "off"

func metricSettings() []setting {
	return []setting{
		{"PROMETHEUS_ENABLED", "true", false,
			"true: GET /metrics answers Prometheus, without a credential; keep it from strangers at your balancer. deployments/prometheus has alert rules for it, deployments/grafana a dashboard. false: it is 404.",
			yesNo(func(s *Settings) *bool { return &s.Prometheus })},
		{"METRICS_USER_BALANCE", balancesOff, false,
			fmt.Sprintf("off, or for how many accounts at most /metrics shows user_balance, from 1 to %d: those that this gateway served last, within 15 minutes. Whoever can read /metrics then sees accounts and balances.", observe.MaxBalances),
			readUserBalance},
	}
}

func readUserBalance(s *Settings, value string) error {
	if value == balancesOff {
		return nil
	}
	if between(func(s *Settings) *int { return &s.UserBalances }, 1, observe.MaxBalances)(s, value) != nil {
		return fmt.Errorf("it must be off, or a number from 1 to %d", observe.MaxBalances)
	}
	return nil
}
