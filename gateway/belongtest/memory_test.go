package belongtest_test

import (
	"testing"

	"llm-gateway/gateway/belongtest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	belongtest.Conform(t, belongtest.NewMemory())
}
