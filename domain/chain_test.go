package domain

import (
	"bytes"
	"encoding/hex"
	"os"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// ledgerID is the ledger of the golden hashes.
var ledgerID = uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")

// TestGenesisHash: computed by Python's hashlib as
//
//	sha256(uuid.UUID(ledger).bytes + struct.pack(">I", shard)).hexdigest()
func TestGenesisHash(t *testing.T) {
	t.Parallel()
	for shard, want := range map[int32]string{
		0:         "8fa4e4d9d2d1c3f32ef0aea2030bbf171d82c7e656192cc32ae16802b62886d7",
		1:         "724d17d4a9bbc7692262e03f1d2210065f4324ce52dd45930f9e8f06a53b5343",
		3:         "ea616220484230ca18102637013bb59054bc8de33a037067e855ef64dfd61ffb",
		258:       "a35018b785cc02dc0c9fa0d2021cf4be5478410315713b9d2df4e9fb0575e71d",
		1<<31 - 1: "d249166e1a46e377699c0145b7274622f7cf26e807ccbfbf977ecff659a77c78",
	} {
		if h := GenesisHash(ledgerID, shard); hex.EncodeToString(h[:]) != want {
			t.Errorf("shard %d begins with %x, want %s", shard, h, want)
		}
	}
	if GenesisHash(ledgerID, 3) == GenesisHash(uuid.Nil, 3) {
		t.Error("two ledgers begin alike")
	}
}

// TestChainHash chains the golden payloads on shard 3. Computed by Python's hashlib as
//
//	h = sha256(b"\x01" + h + struct.pack(">Q", len(payload)) + payload).digest()
func TestChainHash(t *testing.T) {
	t.Parallel()
	if h := ChainHash(Hash{}, nil); hex.EncodeToString(h[:]) != "f350fbd7557ef9d0a8fb9906b5699288f3bf3f68ee9adbddb5d69c0bd39575c0" {
		t.Errorf("nothing after nothing is %x", h)
	}
	h := GenesisHash(ledgerID, 3)
	for _, link := range [][2]string{
		{"account", "96a831ac3113e50da0da084783ba4218d71e1a61e9711a212227eaa1be140064"},
		{"credit", "6ab9ba3aa9787e30240d304117e76daa68560b01a8e4f26f516885c523603445"},
		{"debit", "dcfebd4009c166913de63911f709245767b9ea400ce85ef4cf3f0bb2020ec0a7"},
		{"reserve", "2b00d9c0aa815a485dd4889e2df0b606c4df5ea466ac2710f9b710caff359b2e"},
		{"commit", "3a7bae1d5bbe6d81e5a7922fef9802c6085f1b2d7d978ead1e0ec3dca81c329d"},
		{"refund", "3298becd6fe1442650cabda06a2938353b8f8af2dfec402754af1640edf2f8b1"},
		{"overage", "b3fc0f3ea35606a6c70a796e344c92d1ac24deabecf12d0117f12b2ae3432fdc"},
	} {
		payload, err := os.ReadFile("testdata/golden/" + link[0] + ".json")
		if err != nil {
			t.Fatal(err)
		}
		h = ChainHash(h, payload)
		if hex.EncodeToString(h[:]) != link[1] {
			t.Errorf("%s is chained as %x, want %s", link[0], h, link[1])
		}
	}
}

// head chains all payloads.
func head(payloads [][]byte) Hash {
	h := GenesisHash(ledgerID, 0)
	for _, p := range payloads {
		h = ChainHash(h, p)
	}
	return h
}

// tamper changes a history in one of the ways that somebody might try.
func tamper(t *rapid.T, payloads [][]byte) [][]byte {
	out := make([][]byte, len(payloads))
	for i, p := range payloads {
		out[i] = bytes.Clone(p)
	}
	at := rapid.IntRange(0, len(out)-1).Draw(t, "at")
	switch how := rapid.SampledFrom([]string{"flip", "append", "drop", "insert", "repeat", "swap", "shift", "join"}).Draw(t, "how"); {
	case how == "flip" && len(out[at]) > 0:
		i := rapid.IntRange(0, len(out[at])-1).Draw(t, "byte")
		out[at][i] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
	case how == "append":
		out[at] = append(out[at], rapid.Byte().Draw(t, "more"))
	case how == "drop":
		out = append(out[:at], out[at+1:]...)
	case how == "insert":
		out = append(out[:at], append([][]byte{rapid.SliceOf(rapid.Byte()).Draw(t, "new")}, out[at:]...)...)
	case how == "repeat":
		out = append(out[:at], append([][]byte{out[at]}, out[at:]...)...)
	case how == "swap":
		other := rapid.IntRange(0, len(out)-1).Draw(t, "other")
		out[at], out[other] = out[other], out[at]
	case how == "shift" && at > 0 && len(out[at]) > 0: // a byte moves from one event to the one before
		out[at-1], out[at] = append(out[at-1], out[at][0]), out[at][1:]
	case how == "join" && at > 0: // two events become one
		out[at-1] = append(out[at-1], out[at]...)
		out = append(out[:at], out[at+1:]...)
	}
	return out
}

// TestChainShowsEveryChange: no edit, cut, insertion or reordering of a history has the same head.
func TestChainShowsEveryChange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		payloads := rapid.SliceOfN(rapid.SliceOf(rapid.Byte()), 1, 8).Draw(t, "payloads")
		changed := tamper(t, payloads)
		same := len(payloads) == len(changed)
		for i := 0; same && i < len(payloads); i++ {
			same = bytes.Equal(payloads[i], changed[i])
		}
		if got := head(changed) == head(payloads); got != same {
			t.Fatalf("histories equal: %v, heads equal: %v", same, got)
		}
	})
}
