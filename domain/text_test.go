package domain

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

func TestCleanText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   string
		max  int
		want string
	}{
		{"", 10, ""}, {"stop", 10, "stop"}, {"stop", 4, "stop"}, {"stop", 3, "sto"}, {"stop", 0, ""},
		{"a\x00b", 10, "ab"}, {"\x00", 10, ""}, {"a\r\n\tb\x1b[31m", 10, "ab[31m"}, {"a\x7fb\u0080c\u009fd\u00a0e", 20, "abcd\u00a0e"},
		{"a\xffb\xc3", 10, "ab"}, {"\xed\xa0\x80", 10, ""}, {"\xc0\x80", 10, ""}, {"a\ufffdb", 10, "ab"},
		{"é", 1, ""}, {"é", 2, "é"}, {"aé", 2, "a"}, {"🪙🪙", 7, "🪙"}, {"🪙🪙", 8, "🪙🪙"}, {"🪙", 3, ""},
		{"\x00\x00\x00abc", 3, "abc"}, {"<b>&\"\u2028", 20, "<b>&\"\u2028"},
	} {
		if got := CleanText(c.in, c.max); got != c.want {
			t.Errorf("CleanText(%q, %d) = %q, want %q", c.in, c.max, got, c.want)
		}
	}
}

// dirty generates strings with everything in them that CleanText is there for.
func dirty() *rapid.Generator[string] {
	return rapid.OneOf(rapid.String(), texts(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
}

// checkClean: valid, printable, within the limit, unchanged by a second cleaning, and no shorter
// than it must be.
func checkClean(t fataler, s string, limit int) {
	got := CleanText(s, limit)
	whole := CleanText(s, len(s))
	switch {
	case !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl):
		t.Fatalf("%q is no clean text of %q", got, s)
	case len(got) > limit || !strings.HasPrefix(whole, got):
		t.Fatalf("%q is no cut of %q at %d", got, whole, limit)
	case len(got) < len(whole) && len(got) <= limit-utf8.UTFMax:
		t.Fatalf("%q loses more of %q than a cut at %d must", got, whole, limit)
	case CleanText(got, limit) != got:
		t.Fatalf("%q is cleaned again to %q", got, CleanText(got, limit))
	}
	kept := 0
	for _, r := range s {
		if !unicode.IsControl(r) && r != utf8.RuneError {
			kept += utf8.RuneLen(r)
		}
	}
	if kept != len(whole) {
		t.Fatalf("%q became %q: %d bytes should have stayed", s, whole, kept)
	}
}

func TestCleanTextProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		checkClean(t, dirty().Draw(t, "text"), rapid.IntRange(0, 300).Draw(t, "max"))
	})
}

func TestCheckAccount(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "0", "alice", "auth0|5f7c8ec7c33c6c004bbafe82", "alice@example.org", "a.b_c:d|e@f/g+h=i~j-k",
		"123e4567-e89b-12d3-a456-426614174000", strings.Repeat("x", 128)} {
		if err := CheckAccount(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", " ", "a b", "a\x00", "a\n", "a\t", "a\x7f", "a\"", "a'", "a\\", "a,", "a;", "a%", "a$", "a#", "a?",
		"a*", "a(", "a[", "a{", "a<", "a&", "a^", "a`", "a!", "é", "\u0430", "\xff", "\u200b", strings.Repeat("x", 129)} {
		err := CheckAccount(name)
		if err == nil {
			t.Errorf("%q is accepted", name)
		} else if len(err.Error()) > 300 || strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("%q is refused with %q", name, err)
		}
	}
	for c := range 256 {
		want := c < 0x80 && (unicode.IsLetter(rune(c)) || unicode.IsDigit(rune(c)) || strings.ContainsRune("._:|@/+=~-", rune(c)))
		if got := CheckAccount(string([]byte{'a', byte(c)})) == nil; got != want {
			t.Errorf("byte %#x: %v", c, got)
		}
	}
}

// TestBalanceNames: no two balances of any accounts have the same name, nor the platform's.
func TestBalanceNames(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(accountNames(), rapid.SampledFrom([]string{"a", "a:available", "a:reserved", "user:a", "platform:funding"}))
		a, b := name.Draw(t, "a"), name.Draw(t, "b")
		if (AvailableOf(a) == AvailableOf(b) || ReservedOf(a) == ReservedOf(b)) && a != b || AvailableOf(a) == ReservedOf(b) {
			t.Fatalf("%s and %s share a balance", a, b)
		}
		for _, n := range []string{AvailableOf(a), ReservedOf(a)} {
			if n == PlatformFunding || n == PlatformRevenue {
				t.Fatalf("%s is called %s", a, n)
			}
		}
	})
}

func TestCheckCurrency(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]bool{"USD": true, "EUR": true, "XXX": true, "": false, "US": false, "USDT": false, "usd": false,
		"U$D": false, "US\x00": false, " US": false, "ÜS": false} { //nolint:gocritic // blanks are what is tested
		if got := CheckCurrency(code) == nil; got != want {
			t.Errorf("%q: %v", code, got)
		}
	}
}

// TestCommandAndEventIDs: a command's events have distinct ids, from which the command's follows.
func TestCommandAndEventIDs(t *testing.T) {
	t.Parallel()
	id := CommandID(uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"))
	if want := "01890a5d-ac96-774b-bcce-b302099a8054"; id.String() != want {
		t.Errorf("command id %s, want %s", id, want)
	}
	for n, want := range []string{"01890a5d-ac96-774b-bcce-b302099a8054", "01890a5d-ac96-774b-bcce-b302099a8055",
		"01890a5d-ac96-774b-bcce-b302099a8056", "01890a5d-ac96-774b-bcce-b302099a8057"} {
		if got := EventID(id, n); got.String() != want {
			t.Errorf("event %d has id %s, want %s", n, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		v7 := uuids().Draw(t, "id")
		c := CommandID(v7)
		if CommandID(c) != c || EventID(c, 0) != c {
			t.Fatalf("command %s", c)
		}
		for n := range commandIDs {
			if e := EventID(c, n); CommandID(e) != c || int(e[15]-c[15]) != n || e.Version() != v7.Version() {
				t.Fatalf("event %d of %s is %s", n, c, e)
			}
		}
	})
}

// TestValidate: what the tables cannot hold. An id that CommandID did not make would let two commands share an event's id.
func TestValidate(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{"01890a5d-ac96-774b-bcce-b302099a8054": true, "01890a5d-ac96-774b-bcce-b302099a8055": false,
		"01890a5d-ac96-774b-bcce-b302099a8057": false, "00000000-0000-0000-0000-000000000000": false} {
		c := Command{ID: uuid.MustParse(id), Account: "alice", Op: Open{Actor: "system"}}
		if got := c.Validate() == nil; got != want {
			t.Errorf("%s: %v", id, c.Validate())
		}
	}
	endless, negative := MustAmount("60000000000000000000000000").Times(2), MustAmount("-1")
	for _, limit := range []*Amount{&endless, &negative} { // before Encode would refuse it
		if (Command{ID: uuid.UUID{15: 4}, Account: "alice", Op: Configure{AccountData{CreditLimit: limit, Actor: "cli"}}}).Validate() == nil {
			t.Errorf("a credit limit of %s is accepted", limit)
		}
	}
	// A pointer to an operation satisfies Op by Go's rules; it is no operation, and no panic.
	c := Command{ID: uuid.UUID{15: 4}, Account: "alice", Op: &Open{Actor: "system"}}
	if c.Validate() == nil {
		t.Error("a pointer is accepted")
	}
}

func TestEventTime(t *testing.T) {
	t.Parallel()
	in := time.Date(2026, 7, 1, 12, 0, 0, 123_456_789, time.FixedZone("CEST", 7200))
	if got, want := EventTime(in), time.Date(2026, 7, 1, 10, 0, 0, 123_456_000, time.UTC); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if now := EventTime(time.Now()); EventTime(now) != now || now.Location() != time.UTC {
		t.Errorf("%v is no event's time", now)
	}
}

// FuzzText: foreign text panics nowhere, and what is accepted is what it claims to be.
func FuzzText(f *testing.F) {
	for _, s := range nasty {
		f.Add(s, 10)
	}
	f.Add("3:7", 4)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		checkClean(t, s, max(0, limit%1000))
		if p, err := ParsePosition(s); err == nil && p.String() != s {
			t.Fatalf("%q is read as %s", s, p)
		}
		if CheckAccount(s) == nil && CleanText(s, maxAccountName) != s {
			t.Fatalf("%q is an account and no clean text", s)
		}
		if CheckCurrency(s) == nil && len(s) != 3 {
			t.Fatalf("%q is a currency", s)
		}
	})
}
