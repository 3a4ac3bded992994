package main

import (
	"context"
	"errors"
	"sync"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"
)

// issuerKeys finds an issuer's keys. A token of an unknown key may cause them to be fetched again, once in
// issuerPause, whoever sends it. It is safe for concurrent use.
type issuerKeys struct {
	ctx  context.Context // ends with the process
	keys keyfunc.Keyfunc // fetches for every unknown key that it is asked for

	mu    sync.Mutex // held while they are fetched, which is bounded by issuerTime: others may be waiting for the same key
	limit *rate.Limiter
}

func newIssuerKeys(ctx context.Context, keys keyfunc.Keyfunc) *issuerKeys {
	return &issuerKeys{ctx: ctx, keys: keys, limit: rate.NewLimiter(rate.Every(issuerPause), 1)}
}

var errUnknownKey = errors.New("the token's key is unknown")

// find is a jwt.Keyfunc.
func (i *issuerKeys) find(token *jwt.Token) (any, error) {
	kid, _ := token.Header["kid"].(string)
	if kid == "" {
		return nil, errUnknownKey
	}
	if i.knows(kid) {
		return i.keys.Keyfunc(token)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.knows(kid) && !i.limit.Allow() {
		return nil, errUnknownKey
	}
	return i.keys.Keyfunc(token)
}

// knows says whether a key is at hand.
func (i *issuerKeys) knows(kid string) bool {
	all, err := i.keys.Storage().KeyReadAll(i.ctx)
	if err != nil {
		return false
	}
	for _, key := range all {
		if key.Marshal().KID == kid {
			return true
		}
	}
	return false
}
