package domain

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/google/uuid"
)

// Hash is a link of a shard's hash chain.
type Hash [sha256.Size]byte

// chainVersion is the first byte under every hash; another way of hashing would get another one.
const chainVersion = 1

// GenesisHash is what the first event of a shard chains to. It binds the chain to one ledger and
// one shard, so that a chain cannot be passed off as another's.
func GenesisHash(ledger uuid.UUID, shard int32) Hash {
	b := make([]byte, 0, len(ledger)+4)
	b = append(b, ledger[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(shard))
	return sha256.Sum256(b)
}

// ChainHash is SHA-256(version || prev || len || payload), where len is a big-endian uint64 and
// payload the stored bytes. Nothing is ever encoded again to check it.
func ChainHash(prev Hash, payload []byte) Hash {
	h := sha256.New()
	var head [1 + len(prev) + 8]byte
	head[0] = chainVersion
	copy(head[1:], prev[:])
	binary.BigEndian.PutUint64(head[1+len(prev):], uint64(len(payload)))
	h.Write(head[:])
	h.Write(payload)
	var out Hash
	h.Sum(out[:0])
	return out
}
