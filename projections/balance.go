package projections

import "llm-gateway/domain"

// Balance is an account's projected balance, as caches are told it.
type Balance struct {
	Account     string
	Available   domain.Amount
	Reserved    domain.Amount
	CreditLimit domain.Amount
	Frozen      bool
	Position    domain.Position // the account's last event that it includes
	Epoch       int64           // of the shard: how often the ledger was recovered
}
