package domain

import (
	"fmt"
	"strconv"
	"strings"
)

// Position is an event's place: seq is gapless per shard, from 1. The zero Position is no place.
type Position struct {
	Shard int32
	Seq   int64
}

// String is `shard:seq`, as in headers and answers.
func (p Position) String() string {
	return strconv.FormatInt(int64(p.Shard), 10) + ":" + strconv.FormatInt(p.Seq, 10)
}

// ParsePosition is the inverse of String.
func ParsePosition(s string) (Position, error) {
	shard, seq, ok := strings.Cut(s, ":")
	n, err := strconv.ParseInt(shard, 10, 32)
	m, err2 := strconv.ParseInt(seq, 10, 64)
	if !ok || err != nil || err2 != nil || n < 0 || m < 1 || s != (Position{int32(n), m}).String() {
		return Position{}, fmt.Errorf("not a position (shard:seq): %.60q", s)
	}
	return Position{int32(n), m}, nil
}

// MaxShards bounds LEDGER_SHARDS.
const MaxShards = 1024

// ShardOf is the shard of an account: Kafka's murmur2 of its name, so that the default partitioner
// of any Kafka client puts a record with this key into the partition of the same number.
func ShardOf(account string, shards int) int32 {
	return int32(murmur2(account)&0x7fffffff) % int32(shards)
}

// murmur2 is the 32-bit MurmurHash2 with Kafka's seed.
func murmur2(s string) uint32 {
	const m, r, seed = 0x5bd1e995, 24, 0x9747b28c
	h := uint32(seed) ^ uint32(len(s))
	for len(s) >= 4 {
		k := uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
		s = s[4:]
	}
	switch len(s) {
	case 3:
		h ^= uint32(s[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(s[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(s[0])) * m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
