package observe

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// Other is the label of whatever is not known, or beyond what a label may have.
const Other = "other"

// Bounds of the values of each label, for the life of a process: each one is a series that stays.
const (
	maxModels    = 1000 // a book that is read again may bring other models
	maxProviders = 100
	maxCodes     = 200 // of errors: they are named in code, so this is never reached
	maxLabel     = 200 // bytes of one value
)

// names are the values that a label has had. What is not known, not text, too long or one too many is Other.
type names struct {
	most  int
	known atomic.Pointer[func(string) bool] // nil = everything is

	mu   sync.RWMutex
	seen map[string]struct{}
}

func newNames(most int) *names { return &names{most: most, seen: map[string]struct{}{}} }

func (n *names) of(name string) string {
	if name == "" || len(name) > maxLabel || !utf8.ValidString(name) {
		return Other
	}
	if known := n.known.Load(); known != nil && !(*known)(name) {
		return Other
	}
	n.mu.RLock()
	_, ok := n.seen[name]
	n.mu.RUnlock()
	if ok {
		return name
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.seen[name]; !ok && len(n.seen) >= n.most {
		return Other
	}
	n.seen[name] = struct{}{}
	return name
}

// isCode says whether a text is an error code as this gateway's own code names them.
func isCode(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' })
}

// oneOf is the name if it is one of these, else Other.
func oneOf(name string, these ...string) string {
	if slices.Contains(these, name) {
		return name
	}
	return Other
}

// Only bounds the labels: models are those of the price book, providers those of the catalog. Both functions
// are asked at every event, so they must be quick, and safe for concurrent use.
func (m *Metrics) Only(model, provider func(string) bool) {
	m.models.known.Store(&model)
	m.providers.known.Store(&provider)
}
