package provider

import "github.com/tidwall/gjson"

// maxJSONDepth bounds the nesting of a chunk: far beyond any, far below what a stack bears.
const maxJSONDepth = 256

// scanner walks one JSON text from front to back and checks all of it on the way (RFC 8259; as
// encoding/json, it does not check UTF-8). Chunks are most of what a gateway reads: this takes a
// third of the time of checking first and searching then. Once bad it stays bad, and every loop
// over it ends.
type scanner struct {
	b     []byte
	i     int
	depth int
	bad   bool
}

// peek skips white space and returns the byte that follows; 0 at the end or when bad.
func (s *scanner) peek() byte {
	for s.i < len(s.b) {
		c := s.b[s.i]
		if c > ' ' {
			return c
		}
		if c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			break
		}
		s.i++
	}
	return 0
}

// fail marks the text as bad and goes to its end.
func (s *scanner) fail() {
	s.bad, s.i = true, len(s.b)
}

// enter goes into an object or list: open is '{' or '['. false if the value is something else.
func (s *scanner) enter(open byte) bool {
	if s.peek() != open {
		return false
	}
	s.i++
	if s.depth++; s.depth > maxJSONDepth {
		s.fail()
	}
	return true
}

// more goes to the next member or element; false at the end, which it passes.
func (s *scanner) more(first *bool, end byte) bool {
	c := s.peek()
	switch {
	case c == end && !s.bad:
		s.i++
		s.depth--
		return false
	case *first:
		*first = false
	case c == ',':
		s.i++
	default:
		s.fail()
	}
	return !s.bad
}

// key reads a member's name and the colon. Names with escapes are no names that anyone looks for.
func (s *scanner) key() []byte {
	name, _ := s.str()
	if s.peek() != ':' {
		s.fail()
		return nil
	}
	s.i++
	return name
}

// str reads a string and returns what stands between its quotes; plain says that it has no escapes.
func (s *scanner) str() (raw []byte, plain bool) {
	if s.peek() != '"' {
		s.fail()
		return nil, false
	}
	plain = true
	b := s.b[s.i+1:]
	for i := 0; i < len(b); i++ {
		if !special[b[i]] {
			continue
		}
		if b[i] == '"' {
			s.i += i + len(`""`)
			return b[:i], plain
		}
		n := 0
		if b[i] == '\\' {
			n = escapeLength(b[i+1:])
		}
		if n == 0 {
			break
		}
		plain = false
		i += n
	}
	s.fail()
	return nil, false
}

// special are the bytes of a string that do not stand for themselves.
var special = func() (t [256]bool) {
	for c := range ' ' {
		t[c] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()

// escapeLength is the length of an escape after its backslash; 0 if it is none.
func escapeLength(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	switch b[0] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 1
	case 'u':
		if len(b) >= 5 && isHex(b[1]) && isHex(b[2]) && isHex(b[3]) && isHex(b[4]) {
			return 5
		}
	}
	return 0
}

func isHex(c byte) bool {
	return c-'0' < 10 || c|0x20-'a' < 6
}

// skip passes one value, and raw returns it as it stands.
func (s *scanner) skip() {
	switch c := s.peek(); c {
	case '"':
		s.str()
	case '{':
		s.enter('{')
		for first := true; s.more(&first, '}'); {
			s.key()
			s.skip()
		}
	case '[':
		s.enter('[')
		for first := true; s.more(&first, ']'); {
			s.skip()
		}
	case 't':
		s.literal("true")
	case 'f':
		s.literal("false")
	case 'n':
		s.literal("null")
	default:
		s.number()
	}
}

func (s *scanner) raw() []byte {
	s.peek()
	start := s.i
	s.skip()
	return s.b[start:s.i]
}

func (s *scanner) literal(word string) {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		s.fail()
		return
	}
	s.i += len(word)
}

// number passes -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
func (s *scanner) number() {
	if s.at('-') {
		s.i++
	}
	if s.at('0') {
		s.i++
	} else if !s.digits() {
		s.fail()
		return
	}
	if s.at('.') {
		if s.i++; !s.digits() {
			s.fail()
			return
		}
	}
	if s.at('e') || s.at('E') {
		if s.i++; s.at('+') || s.at('-') {
			s.i++
		}
		if !s.digits() {
			s.fail()
		}
	}
}

func (s *scanner) at(c byte) bool { return s.i < len(s.b) && s.b[s.i] == c }

// digits passes decimal digits; false if there are none.
func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && s.b[s.i]-'0' < 10 {
		s.i++
	}
	return s.i > start
}

// appendString appends a string value's text to dst; other values are passed and add nothing.
func (s *scanner) appendString(dst []byte) []byte {
	if s.peek() != '"' {
		s.skip()
		return dst
	}
	start := s.i
	raw, plain := s.str()
	if plain || s.bad {
		return append(dst, raw...)
	}
	return append(dst, gjson.Parse(view(s.b[start:s.i])).Str...)
}

// end says whether the text was good to its last byte.
func (s *scanner) end() bool {
	return s.peek() == 0 && s.i == len(s.b) && !s.bad
}
