package gateway

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// entryOverhead is what an entry of the cache in memory takes beside its key and value, about, in bytes.
const entryOverhead = 256

// MemoryCache is a ResponseCache in this process, of a bounded size: the entry that was used the longest ago
// makes room.
type MemoryCache struct {
	most int // bytes
	now  func() time.Time

	mu    sync.Mutex
	size  int
	order list.List // of *memoryEntry, the one used last in front
	of    map[string]*list.Element
}

type memoryEntry struct {
	key   string
	value []byte
	until time.Time
}

func (e *memoryEntry) size() int { return len(e.key) + len(e.value) + entryOverhead }

// NewMemoryCache holds so many bytes at most.
func NewMemoryCache(most int, now func() time.Time) *MemoryCache {
	return &MemoryCache{most: most, now: now, of: map[string]*list.Element{}}
}

// Get implements ResponseCache.
func (m *MemoryCache) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.of[key]
	if at == nil {
		return nil, nil
	}
	e := at.Value.(*memoryEntry)
	if !m.now().Before(e.until) {
		m.drop(at)
		return nil, nil
	}
	m.order.MoveToFront(at)
	return e.value, nil
}

// Put implements ResponseCache. A value that is larger than all of it is not kept.
func (m *MemoryCache) Put(_ context.Context, key string, value []byte, keep time.Duration) error {
	e := &memoryEntry{key, value, m.now().Add(keep)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if at := m.of[key]; at != nil {
		m.drop(at)
	}
	if e.size() > m.most {
		return nil
	}
	m.of[key] = m.order.PushFront(e)
	for m.size += e.size(); m.size > m.most; {
		m.drop(m.order.Back())
	}
	return nil
}

func (m *MemoryCache) drop(at *list.Element) {
	e := m.order.Remove(at).(*memoryEntry)
	delete(m.of, e.key)
	m.size -= e.size()
}
