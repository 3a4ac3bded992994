package pricebook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"

	"llm-gateway/domain"
)

// Bounds of a public price list.
const (
	maxList  = 64 << 20 // bytes
	maxDepth = 32
)

// member is one entry of a JSON object. Values are nil, bool, string, json.Number, []any or object; numbers
// stay the text that they are written as.
type member struct {
	name  string
	value any
}

type object []member

// get is the value of a name; nil where there is none.
func (o object) get(name string) any {
	for _, m := range o {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

func (o object) text(name string) string {
	s, _ := o.get(name).(string)
	return s
}

// count is a whole number above 0; 0 where there is none.
func (o object) count(name string) int64 {
	n, _ := o.get(name).(json.Number)
	i, err := strconv.ParseInt(n.String(), 10, 64)
	if err != nil || i < 0 {
		return 0
	}
	return i
}

// readJSON reads one JSON value. A name that an object has twice is an error: which one counts differs
// between readers.
func readJSON(r io.Reader) (any, error) {
	limited := &io.LimitedReader{R: r, N: maxList + 1}
	d := json.NewDecoder(limited)
	d.UseNumber()
	value, err := readValue(d, 0)
	if err == nil {
		if _, behind := d.Token(); !errors.Is(behind, io.EOF) {
			err = errors.New("more behind the end of the JSON value")
		}
	}
	if limited.N == 0 {
		return nil, fmt.Errorf("larger than %d bytes", maxList)
	}
	return value, err
}

func readValue(d *json.Decoder, depth int) (any, error) {
	token, err := d.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("JSON that is nested deeper than %d", maxDepth)
	}
	switch token {
	case json.Delim('{'):
		return readObject(d, depth)
	case json.Delim('['):
		list := []any{}
		for d.More() {
			value, err := readValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err = d.Token()
		return list, err
	}
	return token, nil
}

func readObject(d *json.Decoder, depth int) (any, error) {
	o, names := object{}, map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, _ := token.(string)
		if names[name] {
			return nil, fmt.Errorf("the name %.128q is there twice in one object", name)
		}
		names[name] = true
		value, err := readValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		o = append(o, member{name, value})
	}
	_, err := d.Token()
	return o, err
}

// maxPower bounds the exponent of a number, so that no text makes a number of megabytes.
const maxPower = 40

// amountOf reads a JSON number exactly, as so much for 10^power units.
func amountOf(n json.Number, power int) (domain.Amount, error) {
	digits, exponent := n.String(), 0
	if i := strings.IndexAny(digits, "eE"); i >= 0 {
		var err error
		if exponent, err = strconv.Atoi(digits[i+1:]); err != nil || exponent > maxPower || exponent < -maxPower {
			return domain.Zero, fmt.Errorf("%.40s is out of range", n)
		}
		digits = digits[:i]
	}
	whole, fraction, _ := strings.Cut(digits, ".")
	coefficient, ok := new(big.Int).SetString(whole+fraction, 10)
	if !ok || len(digits) > maxPower {
		return domain.Zero, fmt.Errorf("%.40s has too many digits", n)
	}
	return perUnit(n, coefficient, exponent-len(fraction)-power)
}

// perUnit is coefficient x 10^exponent. Zeros at its end are no digits.
func perUnit(n json.Number, coefficient *big.Int, exponent int) (domain.Amount, error) {
	if coefficient.Sign() == 0 {
		return domain.Zero, nil
	}
	for exponent < -domain.AmountScale {
		quotient, rest := new(big.Int).QuoRem(coefficient, big.NewInt(10), new(big.Int))
		if rest.Sign() != 0 {
			return domain.Zero, fmt.Errorf("%.40s is, per unit, finer than 1e-%d", n, domain.AmountScale)
		}
		coefficient, exponent = quotient, exponent+1
	}
	if exponent > maxPower {
		return domain.Zero, fmt.Errorf("%.40s is out of range", n)
	}
	return domain.AmountOf(coefficient, int32(exponent)) // between -AmountScale and maxPower
}
