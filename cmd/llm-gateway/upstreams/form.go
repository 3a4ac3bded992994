package upstreams

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/cmd/llm-gateway/secret"
)

// fileForm is the file as it is written. deployments/upstreams.example.yaml explains its fields.
type fileForm struct {
	Currency  pricebook.Scalar              `yaml:"currency"`
	Upstreams []upstreamForm                `yaml:"upstreams"`
	Aliases   map[string]pricebook.Scalar   `yaml:"aliases"`
	Fallbacks map[string][]pricebook.Scalar `yaml:"fallbacks"`
}

type upstreamForm struct {
	Name        pricebook.Scalar        `yaml:"name"`
	Type        pricebook.Scalar        `yaml:"type"`
	BaseURL     hiddenScalar            `yaml:"base_url"`
	APIVersion  pricebook.Scalar        `yaml:"api_version"`
	Key         keyForm                 `yaml:",inline"` // one key, or
	Keys        []weightedKey           `yaml:"keys"`    // several
	OutputLimit pricebook.Scalar        `yaml:"output_limit"`
	Weight      whole                   `yaml:"weight"`
	Headers     map[string]hiddenScalar `yaml:"headers"`
	Timeouts    timeoutsForm            `yaml:"timeouts"`
	Models      []modelForm             `yaml:"models"`
}

// keyForm is one of three places of a key.
type keyForm struct {
	Text hiddenScalar `yaml:"api_key"`
	File hiddenScalar `yaml:"api_key_file"` // hidden, in case that the key itself is there by mistake
	Env  hiddenScalar `yaml:"api_key_env"`  // the same
}

type weightedKey struct {
	Key    keyForm `yaml:",inline"`
	Weight whole   `yaml:"weight"`
}

type timeoutsForm struct {
	Connect   pricebook.Scalar `yaml:"connect"`
	FirstByte pricebook.Scalar `yaml:"first_byte"`
	Idle      pricebook.Scalar `yaml:"idle"`
	Total     pricebook.Scalar `yaml:"total"`
}

// modelForm is a model of the price book's form, or in short with the prices of its only version.
type modelForm struct {
	pricebook.ModelForm  `yaml:",inline"`
	pricebook.PricesForm `yaml:",inline"`

	UpstreamModel pricebook.Scalar `yaml:"upstream_model"`
}

// hiddenScalar is a pricebook.Scalar whose text is shown by no error.
type hiddenScalar struct {
	Text secret.Text
	Line int // 0: the field is not there
}

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (s *hiddenScalar) UnmarshalYAML(n ast.Node) error {
	line := n.GetToken().Position.Line
	text, ok := n.(*ast.StringNode)
	if !ok {
		return fmt.Errorf("line %d: this is not text; it is written in quotes", line)
	}
	*s = hiddenScalar{secret.Text(text.Value), line}
	return nil
}

// whole is a whole number with its place.
type whole struct{ N, Line int }

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (w *whole) UnmarshalYAML(n ast.Node) error {
	line := n.GetToken().Position.Line
	number, ok := n.(*ast.IntegerNode)
	if !ok {
		return fmt.Errorf("line %d: this is not a whole number", line)
	}
	value, err := strconv.Atoi(fmt.Sprint(number.Value))
	if err != nil {
		return fmt.Errorf("line %d: this number is out of range", line)
	}
	*w = whole{value, line}
	return nil
}

// decode reads the form. A field without a value is refused: YAML calls it null, and a key that was
// forgotten there would be none.
func decode(text []byte, form *fileForm) error {
	if err := pricebook.Decode(bytes.NewReader(text), maxFile, form); err != nil {
		return errors.New(harmless(err.Error()))
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return errors.New("it is not YAML") // unreachable: it was just decoded
	}
	empty := new(emptyField)
	for _, doc := range file.Docs {
		ast.Walk(empty, doc.Body)
	}
	if empty.line != 0 {
		return fmt.Errorf("line %d: %s has no value", empty.line, empty.name)
	}
	return nil
}

// emptyField finds the first field without a value.
type emptyField struct {
	line int
	name string
}

// Visit implements ast.Visitor.
func (e *emptyField) Visit(n ast.Node) ast.Visitor {
	switch field := n.(type) {
	case *ast.MappingValueNode:
		e.note(field.Value, harmless(strconv.Quote(field.Key.String())))
	case *ast.SequenceNode:
		for _, v := range field.Values {
			e.note(v, "an entry")
		}
	}
	return e
}

func (e *emptyField) note(value ast.Node, name string) {
	if anchor, named := value.(*ast.AnchorNode); named {
		value = anchor.Value
	}
	if _, null := value.(*ast.NullNode); null && e.line == 0 {
		e.line, e.name = value.GetToken().Position.Line, name
	}
}

// quotable is what may be quoted of a broken file: fields' names and plain numbers. A key that stands
// where a name should could be anything else.
var quotable = regexp.MustCompile(`^([a-z_]{1,24}|[0-9.]{1,9})$`)

// harmless takes out what a message quotes, from the first quote to the last, unless it may be quoted.
func harmless(message string) string {
	first, last := strings.IndexByte(message, '"'), strings.LastIndexByte(message, '"')
	if first == last || quotable.MatchString(message[first+1:last]) {
		return message
	}
	return message[:first] + "what is there" + message[last+1:]
}
