package pricebook

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Scalar is a string with its place. Only YAML strings are taken: a bare 1e-6, 010 or .5 is a number
// to YAML, and what number differs between readers. The zero Scalar is a field that is not there.
type Scalar struct {
	Text string
	Line int // from 1
}

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (s *Scalar) UnmarshalYAML(n ast.Node) error {
	line := n.GetToken().Position.Line
	text, ok := n.(*ast.StringNode)
	if !ok {
		return fmt.Errorf("line %d: %.40q is not text; it is written in quotes", line, n.String())
	}
	*s = Scalar{text.Value, line}
	return nil
}

// Number is a whole number with its place. Only plain decimal digits are taken: 200.7 would be cut to 200, and what
// 010, 0x10 or 1_000 is differs between readers. The zero Number is a field that is not there.
type Number struct {
	N    int64
	Line int // from 1
}

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (w *Number) UnmarshalYAML(n ast.Node) error {
	line, text := n.GetToken().Position.Line, n.String()
	if quoted, ok := n.(*ast.StringNode); ok {
		text = quoted.Value
	}
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(value, 10) != text {
		return fmt.Errorf("line %d: %.40q is not a whole number in plain digits", line, text)
	}
	*w = Number{value, line}
	return nil
}

// Decode reads the one YAML document of a file of at most `most` bytes into its form. Unknown fields
// and keys that are there twice are errors, which are one line each and begin with the line's number
// where there is one.
func Decode(r io.Reader, most int64, form any) error {
	text, err := read(r, most)
	if err != nil {
		return err
	}
	return decode(text, form, false)
}

// decodeFull is Decode of a file in which every field that is written has a value: a markup that somebody left blank
// is not one that nobody wrote.
func decodeFull(r io.Reader, most int64, form any) error {
	text, err := read(r, most)
	if err != nil {
		return err
	}
	return decode(text, form, true)
}

func read(r io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("larger than %d bytes", most)
	}
	return text, err
}

// decode turns a panic of the library into an error: a tag (!name) where a list is expected is one,
// and a reload must not end the gateway.
func decode(text []byte, form any, full bool) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("this is YAML that cannot be read: is there a tag (!name)?")
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	if err := d.Decode(form); err != nil {
		return formError(err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("more than one document")
	}
	if full {
		return findBlank(text)
	}
	return nil
}

// findBlank is an error for the first field of a YAML text that has no value.
func findBlank(text []byte) error {
	f, err := parser.ParseBytes(text, 0)
	if err != nil {
		return formError(err)
	}
	var b blank
	for _, doc := range f.Docs {
		ast.Walk(&b, doc.Body)
	}
	return b.err
}

type blank struct{ err error }

// Visit implements ast.Visitor.
func (b *blank) Visit(n ast.Node) ast.Visitor {
	if field, ok := n.(*ast.MappingValueNode); ok && b.err == nil && field.Value.Type() == ast.NullType {
		b.err = fmt.Errorf("line %d: %.128s: it has no value", field.Key.GetToken().Position.Line, field.Key.GetToken().Value)
	}
	if b.err != nil {
		return nil
	}
	return b
}

// formError turns the YAML library's error, which draws the source over several lines, into one
// line like all others.
func formError(err error) error {
	var located yaml.Error
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("empty")
	case errors.As(err, &located) && located.GetToken() != nil:
		return fmt.Errorf("line %d: %s", located.GetToken().Position.Line, located.GetMessage())
	}
	return err
}
