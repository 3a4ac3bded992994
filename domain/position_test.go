package domain

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// kafkaHashes are the vectors of Kafka's own UtilsTest.testMurmur2; the last three were computed by
// another implementation of the same function.
var kafkaHashes = map[string]int32{
	"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
	"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
	"abc": 479470107, "": 275646681, "a": -1563381124, "\u00e9": 186971271,
}

func TestMurmur2(t *testing.T) {
	t.Parallel()
	for s, want := range kafkaHashes {
		if got := int32(murmur2(s)); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", s, got, want)
		}
	}
}

// TestShardOf: Kafka's toPositive clears the sign bit (it is no absolute value), then the remainder.
func TestShardOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		account string
		shards  int
		want    int32
	}{
		{"21", 1, 0}, {"21", 8, 4}, {"21", 1024, 236}, {"foobar", 8, 6}, {"foobar", 1024, 958},
		{"a-little-bit-long-string", 8, 0}, {"a-little-bit-longer-string", 8, 3},
		{"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 8, 5}, {"abc", 8, 3}, {"abc", 1024, 539},
		{"21", 7, 3}, {"21", 1000, 340}, {"foobar", 7, 0}, {"foobar", 1000, 166}, {"abc", 7, 4}, {"abc", 1000, 107},
	} {
		if got := ShardOf(c.account, c.shards); got != c.want {
			t.Errorf("ShardOf(%q, %d) = %d, want %d", c.account, c.shards, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		account, shards := rapid.String().Draw(t, "account"), rapid.IntRange(1, MaxShards).Draw(t, "shards")
		if got := ShardOf(account, shards); got < 0 || got >= int32(shards) {
			t.Fatalf("shard %d of %d", got, shards)
		}
	})
}

func TestParsePosition(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]Position{"0:1": {0, 1}, "7:42": {7, 42},
		"2147483647:9223372036854775807": {math.MaxInt32, math.MaxInt64}} {
		if got, err := ParsePosition(s); err != nil || got != want || got.String() != s {
			t.Errorf("%s is %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", ":", "1", "1:", ":1", "0:0", "1:-1", "-1:1", "-0:1", "+1:1", "01:1", "1:01", "1:+1",
		"1: 1", " 1:1", "1:1 ", "1:1\n", "1:1:1", "1.0:1", "1e1:1", "0x1:1", "1_0:1", "\u0661:1", "1:1\x00",
		"2147483648:1", "1:9223372036854775808", "99999999999999999999:1"} {
		if got, err := ParsePosition(s); err == nil || got != (Position{}) {
			t.Errorf("%q is read as %+v", s, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		p := Position{rapid.Int32Range(0, math.MaxInt32).Draw(t, "shard"), rapid.Int64Range(1, math.MaxInt64).Draw(t, "seq")}
		if back, err := ParsePosition(p.String()); err != nil || back != p {
			t.Fatalf("%s is read back as %s, %v", p, back, err)
		}
	})
}

func TestOutcomePosition(t *testing.T) {
	t.Parallel()
	if p := (&Outcome{}).Position(); p != (Position{}) {
		t.Errorf("nothing has the position %s", p)
	}
	o := Outcome{Events: []Recorded{{Event: Event{Shard: 2, Seq: 5}}, {Event: Event{Shard: 2, Seq: 6}}}}
	if p := o.Position(); p != (Position{2, 6}) {
		t.Errorf("position %s", p)
	}
}
