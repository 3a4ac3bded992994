package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds of a request's JSON.
const (
	maxDepth = 64  // nesting of objects and arrays
	maxKeys  = 512 // of the top level, which is searched for duplicates pair by pair
	fewKeys  = 64  // of any other object that is searched so; beyond, keys are indexed
)

// checkJSON accepts a body that every reader understands alike: one JSON object, valid UTF-8, not
// nested absurdly, and without duplicate keys. Of two equal keys some readers take the first and
// some the last, so a body with both could be priced as one thing and served as another. At the top
// level, keys that differ only in case are duplicates too, because some readers ignore case.
func checkJSON(body []byte) *Error {
	switch {
	case len(bytes.TrimSpace(body)) == 0:
		return invalid("invalid_json", "", "The body is empty; a JSON object was expected.")
	case !utf8.Valid(body):
		return invalid("invalid_json", "", "The body is not valid UTF-8.")
	case !json.Valid(body):
		return invalid("invalid_json", "", "The body is not valid JSON.")
	}
	s := &scanner{b: body}
	s.space()
	if s.b[s.i] != '{' {
		return invalid("invalid_json", "", "The body must be a JSON object.")
	}
	return s.value()
}

// scanner walks JSON that is known to be valid.
type scanner struct {
	b     []byte
	i     int
	depth int
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\t' || s.b[s.i] == '\r') {
		s.i++
	}
}

func (s *scanner) value() *Error {
	s.space()
	switch s.b[s.i] {
	case '{':
		return s.nested(s.object)
	case '[':
		return s.nested(s.array)
	case '"':
		s.text()
	default: // a number, true, false or null: ends where punctuation or space begins
		for s.i < len(s.b) && !strings.ContainsRune(",]} \n\t\r", rune(s.b[s.i])) {
			s.i++
		}
	}
	return nil
}

func (s *scanner) nested(walk func() *Error) *Error {
	if s.depth++; s.depth > maxDepth {
		return invalid("invalid_json", "", fmt.Sprintf("The body is nested more than %d deep.", maxDepth))
	}
	s.i++
	err := walk()
	s.depth--
	return err
}

// text passes over a string and returns it raw, without the quotes. No byte is searched more than
// twice, however many escapes there are.
func (s *scanner) text() []byte {
	s.i++
	begin, quote := s.i, -1
	for {
		if quote < s.i {
			quote = s.i + bytes.IndexByte(s.b[s.i:], '"')
		}
		escape := bytes.IndexByte(s.b[s.i:quote], '\\')
		if escape < 0 {
			s.i = quote + 1
			return s.b[begin:quote]
		}
		s.i += escape + 2
	}
}

func (s *scanner) array() *Error {
	for {
		if s.space(); s.b[s.i] == ']' {
			s.i++
			return nil
		}
		if err := s.value(); err != nil {
			return err
		}
		if s.space(); s.b[s.i] == ',' {
			s.i++
		}
	}
}

func (s *scanner) object() *Error {
	var few [16]string
	keys := few[:0]
	var many map[string]bool
	top := s.depth == 1
	for {
		if s.space(); s.b[s.i] == '}' {
			s.i++
			return nil
		}
		key := unescape(s.text())
		if many == nil && (len(keys) == maxKeys || !top && len(keys) == fewKeys) {
			many = index(keys)
		}
		if duplicate(keys, many, key, top) {
			return invalid("duplicate_key", cut(key), fmt.Sprintf("The key %q occurs twice.", cut(key)))
		}
		if many != nil {
			if top {
				return invalid("invalid_json", "", fmt.Sprintf("The body has more than %d fields.", maxKeys))
			}
			many[key] = true
		} else {
			keys = append(keys, key)
		}
		s.space()
		s.i++ // the colon
		if err := s.value(); err != nil {
			return err
		}
		if s.space(); s.b[s.i] == ',' {
			s.i++
		}
	}
}

func index(keys []string) map[string]bool {
	many := make(map[string]bool, 2*len(keys))
	for _, k := range keys {
		many[k] = true
	}
	return many
}

func duplicate(keys []string, many map[string]bool, key string, foldCase bool) bool {
	if many != nil {
		return many[key]
	}
	for _, k := range keys {
		if k == key || foldCase && strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}

// unescape reads a raw key. Keys with escapes are rare; \u006dodel is model to every reader.
func unescape(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw)
	}
	var key string
	quoted := append(append([]byte{'"'}, raw...), '"')
	if json.Unmarshal(quoted, &key) != nil {
		return string(raw) // unreachable for valid JSON
	}
	return key
}

// cut shortens a foreign string for an error message.
func cut(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
