package ledger

import (
	"bytes"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// What Audit needs of an event is a few fields of many, and a large ledger has millions of events: so they
// are taken from the form that domain.Encode writes, without decoding the rest. Whatever does not look like
// that form is left to encoding/json (auditedRow's tags), which reads all that is JSON.

// scan reads a row from a payload; false, with the row half filled, where it is not in the usual form.
func (r *auditedRow) scan(payload []byte) bool {
	return members(payload, func(key, value []byte) (ok bool) {
		switch string(key) {
		case "request_id":
			text, ok := plainText(value)
			id, err := uuid.ParseBytes(text)
			r.RequestID = id
			return ok && err == nil
		case "account":
			text, ok := plainText(value)
			r.Account = string(text)
			return ok
		case "amount":
			r.Amount, ok = scanAmount(value)
			return ok
		case "data":
			return r.scanData(value)
		}
		return true
	})
}

func (r *auditedRow) scanData(data []byte) bool {
	d := &r.Data
	var lines, costs []byte
	ok := members(data, func(key, value []byte) (ok bool) {
		switch string(key) {
		case "reason":
			text, ok := plainText(value)
			d.Reason = domain.OverageReason(text)
			return ok
		case "meters":
			return scanMeters(value, &d.Meters)
		case "lines":
			lines = value
			d.Lines, ok = scanLines(value)
			return ok
		case "cost_lines":
			costs = value
		case "price_version":
			text, ok := plainText(value)
			d.PriceVersion = string(text)
			return ok
		case "cost_version":
			text, ok := plainText(value)
			d.CostVersion = string(text)
			return ok
		case "service_tier":
			text, ok := plainText(value)
			d.ServiceTier = string(text)
			return ok
		case "region":
			text, ok := plainText(value)
			d.Region = string(text)
			return ok
		}
		return true
	})
	if bytes.Equal(lines, costs) {
		d.CostLines = d.Lines
		return ok
	}
	var fine bool
	d.CostLines, fine = scanLines(costs)
	return ok && fine
}

// scanMeters reads all meters in their order.
func scanMeters(b []byte, m *domain.Meters) bool {
	n := 0
	ok := members(b, func(key, value []byte) (ok bool) {
		if n == domain.MeterCount || string(key) != domain.Meter(n).String() {
			return false
		}
		m[n], ok = scanCount(value)
		n++
		return ok
	})
	return ok && n == domain.MeterCount
}

func scanLines(b []byte) ([]domain.Line, bool) {
	if string(b) == "null" {
		return nil, true
	}
	lines := make([]domain.Line, 0, 4)
	ok := elements(b, func(value []byte) bool {
		lines = append(lines, domain.Line{})
		return scanLine(value, &lines[len(lines)-1])
	})
	return lines, ok
}

func scanLine(b []byte, l *domain.Line) bool {
	return members(b, func(key, value []byte) (ok bool) {
		switch string(key) {
		case "meter":
			text, ok := plainText(value)
			return ok && scanMeter(text, &l.Meter)
		case "quantity":
			l.Quantity, ok = scanCount(value)
			return ok
		case "unit_price":
			l.UnitPrice, ok = scanAmount(value)
			return ok
		case "amount":
			l.Amount, ok = scanAmount(value)
			return ok
		case "price_version":
			text, ok := plainText(value)
			l.PriceVersion = string(text)
			return ok
		}
		return true
	})
}

func scanMeter(name []byte, to *domain.Meter) bool {
	for i := range domain.MeterCount {
		if domain.Meter(i).String() == string(name) {
			*to = domain.Meter(i)
			return true
		}
	}
	return false
}

// maxDigits bounds the digits of a count, so that it fits an int64.
const maxDigits = 18

func scanCount(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, len(b) > 0 && len(b) <= maxDigits && (len(b) == 1 || b[0] != '0')
}

func scanAmount(b []byte) (domain.Amount, bool) {
	text, ok := plainText(b)
	if !ok {
		return domain.Amount{}, false
	}
	a, err := domain.ParseAmount(string(text))
	return a, err == nil
}

// plainText is what is in the quotes of a string without escapes and of ASCII alone.
func plainText(b []byte) ([]byte, bool) {
	if len(b) < 2 || b[0] != '"' {
		return nil, false
	}
	text := b[1 : len(b)-1]
	for _, c := range text {
		if c == '\\' || c < 0x20 || c >= 0x80 {
			return nil, false
		}
	}
	return text, true
}

// members goes through an object without blanks; false where it is none, or take says so.
func members(b []byte, take func(key, value []byte) bool) bool {
	return parts(b, '{', '}', func(rest []byte) int {
		k := valueEnd(rest)
		if k < 0 || k >= len(rest) || rest[k] != ':' {
			return -1
		}
		v := valueEnd(rest[k+1:])
		key, ok := plainText(rest[:k])
		if v < 0 || !ok || !take(key, rest[k+1:k+1+v]) {
			return -1
		}
		return k + 1 + v
	})
}

// elements goes through a list without blanks.
func elements(b []byte, take func(value []byte) bool) bool {
	return parts(b, '[', ']', func(rest []byte) int {
		v := valueEnd(rest)
		if v < 0 || !take(rest[:v]) {
			return -1
		}
		return v
	})
}

// parts calls next at the beginning of each part between the ends; next returns the part's length, or -1.
func parts(b []byte, begin, end byte, next func(rest []byte) int) bool {
	if len(b) < 2 || b[0] != begin || b[len(b)-1] != end {
		return false
	}
	if len(b) == 2 {
		return true
	}
	for i := 1; i < len(b)-1; {
		n := next(b[i:])
		if n <= 0 {
			return false
		}
		if i += n; i >= len(b)-1 {
			return i == len(b)-1
		}
		if b[i] != ',' {
			return false
		}
		i++
	}
	return false
}

// valueEnd is the length of the value that b begins with; -1 where that does not end.
func valueEnd(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			n := textEnd(b[i:])
			if n < 0 {
				return -1
			}
			if i += n - 1; depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // of what is around a number or a word
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ':':
			if depth == 0 {
				return i
			}
		}
	}
	return -1
}

// textEnd is the length of the string that b begins with; -1 where it does not end.
func textEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}
