package chat

import (
	"bytes"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
)

// A charge is made of meters, which are how the gateway understood what the provider reported. So that this
// can be held against the provider's own words later, those are kept, too: in the report as they came
// (RawUsage), in the event without anything but numbers (CleanUsage), because a provider's text is foreign
// text, and an event is for ever.

const (
	// maxRawUsage bounds a usage as it came, in bytes: those that providers send have a few hundred.
	maxRawUsage = 8 << 10
	// maxUsageDepth bounds objects and lists within each other, and maxUsageWord a name, in bytes.
	maxUsageDepth = 4
	maxUsageWord  = 64
	// maxUsageNumber bounds the digits of a number.
	maxUsageNumber = 24
)

// RawUsage is a copy of a usage object as it came; nil where it is none, or longer than maxRawUsage.
func RawUsage(usage gjson.Result) []byte {
	if !usage.IsObject() || len(usage.Raw) > maxRawUsage {
		return nil
	}
	return []byte(usage.Raw)
}

// RawUsageOver lays a later usage over an earlier one of the same answer: what the later one does not name,
// or names as null, stays. Either may be nil. Where both together are longer than maxRawUsage, the later one
// is all that is kept: a stream must not grow it without end.
func RawUsageOver(earlier, later []byte) []byte {
	if len(earlier) == 0 || len(later) == 0 {
		return append(earlier, later...)
	}
	if len(earlier)+len(later) > maxRawUsage {
		return later
	}
	out := []byte{'{'}
	member := func(key, value gjson.Result) bool {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, key.Raw...), ':'), value.Raw...)
		return true
	}
	set := map[string]bool{}
	gjson.ParseBytes(later).ForEach(func(key, value gjson.Result) bool {
		if value.Type != gjson.Null {
			set[key.Str] = true
			member(key, value)
		}
		return true
	})
	gjson.ParseBytes(earlier).ForEach(func(key, value gjson.Result) bool { return set[key.Str] || member(key, value) })
	return append(out, '}')
}

// CleanUsage is what an event keeps of a usage: names made of letters, digits and underscores, plain numbers,
// and of texts only the words for modalities, which lists of Google are keyed by. Of members with the same
// name the first counts, as for the meters. It is nil where nothing is left, or more than domain.MaxUsage.
func CleanUsage(raw []byte) []byte {
	if len(raw) == 0 {
		return nil
	}
	out := appendUsage(nil, gjson.ParseBytes(raw), 0)
	if len(out) > domain.MaxUsage || !bytes.HasPrefix(out, []byte{'{'}) {
		return nil
	}
	return out
}

// appendUsage appends what is kept of a value, which may be nothing.
func appendUsage(out []byte, v gjson.Result, depth int) []byte {
	switch {
	case v.Type == gjson.Number && isPlainNumber(v.Raw), v.Type == gjson.String && modalities[v.Str]:
		return append(out, v.Raw...)
	case !v.IsObject() && !v.IsArray() || depth >= maxUsageDepth:
		return out
	}
	ends := "[]"
	if v.IsObject() {
		ends = "{}"
	}
	begin, seen := len(out), map[string]bool{}
	v.ForEach(func(key, value gjson.Result) bool {
		before := len(out)
		out = append(out, ends[0])
		if before > begin {
			out[before] = ','
		}
		if v.IsObject() {
			if seen[key.Str] || !isUsageName(key.Raw) {
				out = out[:before]
				return true
			}
			seen[key.Str] = true
			out = append(append(out, key.Raw...), ':')
		}
		with := len(out)
		if out = appendUsage(out, value, depth+1); len(out) == with {
			out = out[:before]
		}
		return len(out) <= domain.MaxUsage
	})
	if len(out) == begin {
		return out
	}
	return append(out, ends[1])
}

// modalities are Google's words.
var modalities = map[string]bool{"TEXT": true, "IMAGE": true, "AUDIO": true, "VIDEO": true, "DOCUMENT": true}

// isUsageName reports whether a name, with its quotes, may stand in an event.
func isUsageName(raw string) bool {
	name := strings.Trim(raw, `"`)
	return name != "" && len(name) <= maxUsageWord && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

// isPlainNumber reports whether a JSON number has digits and a point only. Exponents are how a few bytes
// become a number that no reader can hold.
func isPlainNumber(raw string) bool {
	whole, fraction, point := strings.Cut(strings.TrimPrefix(raw, "-"), ".")
	digits := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	return len(raw) <= maxUsageNumber && digits(whole) && (whole == "0" || whole[0] != '0') && (!point || digits(fraction))
}
