package gateway

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// keyFresh is how long a found key is believed: a revocation takes effect within it.
	keyFresh = 5 * time.Second
	// keysKept bounds the cache; a full one starts anew.
	keysKept = 10_000
)

// keyCache spares the database a look-up per request. Only keys that exist are kept: guesses would
// fill it.
type keyCache struct {
	keys Keys
	now  func() time.Time

	mu    sync.Mutex
	known map[[sha256.Size]byte]cachedKey
}

type cachedKey struct {
	identity *Identity
	until    time.Time
}

func newKeyCache(keys Keys, now func() time.Time) *keyCache {
	return &keyCache{keys: keys, now: now, known: map[[sha256.Size]byte]cachedKey{}}
}

// find returns a key's identity, nil where there is none, or the look-up's error.
func (k *keyCache) find(ctx context.Context, hash [sha256.Size]byte) (*Identity, error) {
	k.mu.Lock()
	found, ok := k.known[hash]
	k.mu.Unlock()
	if ok && k.now().Before(found.until) {
		return found.identity, nil
	}
	identity, err := k.keys.Lookup(ctx, hash)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.known, hash)
	if identity == nil {
		return nil, nil
	}
	if len(k.known) >= keysKept {
		clear(k.known)
	}
	k.known[hash] = cachedKey{identity, k.now().Add(keyFresh)}
	return identity, nil
}
