package spooltest_test

import (
	"testing"

	"llm-gateway/gateway/spooltest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	m := spooltest.NewMemory()
	spooltest.Conform(t, spooltest.Subject{Spool: m, Know: m.Know, Forget: m.Forget})
}
