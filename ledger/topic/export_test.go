package topic

import (
	"context"

	"llm-gateway/domain"
)

// What tests from outside need to look at.
var Encode = encode

// The bounds that tests hold calls against.
const (
	CallTime        = callTime
	TakeoverTime    = takeoverTime
	PublishTime     = publishTime
	TransactionTime = transactionTime
)

// Leave appends events in a transaction and leaves that open.
func Leave(ctx context.Context, p *Producer, events []domain.Recorded) error {
	if err := p.client.BeginTransaction(); err != nil {
		return err
	}
	for i := range events {
		r := encode(p.topic.config.Ledger, &events[i])
		r.Topic = p.topic.config.Name
		p.client.Produce(ctx, r, nil)
	}
	return p.client.Flush(ctx)
}
