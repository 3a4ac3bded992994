// Package secret has the type of what must never be printed.
//
// Problem: a key that is a plain string gets into a log, an error or an answer by the next careless
// %v of what it is a field of. Invariant: formatting by any verb, logging and encoding a Text gives
// "[secret]"; only the conversion string(t) gives what it is. Tested by trying them all.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Text is a text that is never printed. In a struct it has to be an exported field: package fmt asks
// no unexported one how it wants to be formatted.
type Text string

// hidden stands where the text would.
const hidden = "[secret]"

// String hides the text from whoever asks for a string.
func (Text) String() string { return hidden }

// Format hides the text from every verb of fmt, also from those that do not fit a string.
func (Text) Format(f fmt.State, _ rune) {
	io.WriteString(f, hidden) //nolint:errcheck // there is nobody to tell
}

// LogValue hides the text from slog.
func (Text) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the text from JSON and YAML.
func (Text) MarshalText() ([]byte, error) {
	return []byte(hidden), nil
}
