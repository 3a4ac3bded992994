package gateway

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestWording: what was added in pieces of any length, over the ends of parts, is there whole.
func TestWording(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var kept wording
		var want strings.Builder
		for i, n := range rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 9), rapid.IntRange(wordingPart-1, 2*wordingPart+1)), 0, 9).Draw(t, "pieces") {
			piece := strings.Repeat(string(rune('a'+i)), n)
			kept.add([]byte(piece))
			want.WriteString(piece)
		}
		n := rapid.IntRange(0, want.Len()).Draw(t, "n")
		if kept.length() != want.Len() || kept.upTo(n) != want.String()[:n] {
			t.Fatalf("%d bytes of %d are not the first %d", len(kept.upTo(n)), kept.length(), n)
		}
	})
}
