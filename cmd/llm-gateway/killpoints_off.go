//go:build !faults

package main

import (
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
	"llm-gateway/ledger"
)

// Without the tag faults there are no points at which the process kills itself.

func withKillPoints(c ledger.Config) ledger.Config                                    { return c }
func withKillLedger(l gateway.Ledger) gateway.Ledger                                  { return l }
func withKillJournal(j gateway.Journal) gateway.Journal                               { return j }
func withKillProviders(all map[string]provider.Provider) map[string]provider.Provider { return all }
