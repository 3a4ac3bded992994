package reconcile

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// MaxFile bounds an export, in bytes.
const MaxFile = 512 << 20

// ErrFile is wrapped where a file is no export that is understood.
var ErrFile = errors.New("this export cannot be read")

// maxDepth bounds how deep the JSON of an export is nested; providers' are five deep.
const maxDepth = 20

// record is one row of an export, whatever its format: texts by column. The names of columns are in lower
// case with one underscore between words; what is nested in JSON has the names on the way to it.
type record map[string]string

// records reads a file in either format into its records; a table begins with the row that has one of the
// start columns. more says that the last page in it names another one.
func records(file []byte, start []string) (out []record, more bool, err error) {
	file = bytes.TrimPrefix(file, []byte("\ufeff"))
	trimmed := bytes.TrimSpace(file)
	switch {
	case len(trimmed) == 0:
		return nil, false, fmt.Errorf("%w: it is empty", ErrFile)
	case trimmed[0] == '{' || trimmed[0] == '[':
		return jsonRecords(trimmed)
	}
	out, err = csvRecords(file, start)
	return out, false, err
}

// maxPreamble bounds the lines before a table's first row; the Cloud Billing console writes eight.
const maxPreamble = 50

// csvRecords reads rows by the names in their table's first one. What is told once for all of them is said of
// each: `Currency,EUR` in a line before the table, or the money's sign in a column's name.
func csvRecords(file []byte, start []string) ([]record, error) {
	r := csv.NewReader(bytes.NewReader(file))
	head, outer, err := tableHead(r, start)
	if err == nil && head == nil {
		r = csv.NewReader(bytes.NewReader(file))
		head, err = r.Read()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	for i := range head {
		outer.set("currency", currencyOf(head[i]))
		head[i] = columnName(head[i])
	}
	var out []record
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFile, err)
		}
		rec := record{}
		for i, text := range row {
			rec.set(head[i], text)
		}
		for column, text := range outer {
			rec.set(column, text)
		}
		out = append(out, rec)
	}
}

// tableHead is the row with the names of columns, and what the lines before it say. It is nil where no row has a
// start column.
func tableHead(r *csv.Reader, start []string) (head []string, outer record, err error) {
	r.FieldsPerRecord = -1 // lines before the table are shorter than its rows
	outer = record{}
	for range maxPreamble {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if slices.ContainsFunc(row, func(name string) bool { return slices.Contains(start, columnName(name)) }) {
			r.FieldsPerRecord = len(row)
			return row, outer, nil
		}
		if len(row) > 1 {
			outer.set(columnName(row[0]), row[1])
		}
	}
	return nil, record{}, nil
}

// signs are those of money that columns are named with: `Cost (€)`. A dollar's says nothing: there are several.
var signs = map[rune]string{'€': "EUR", '£': "GBP", '¥': "JPY", '₹': "INR"}

// currencyOf is the currency that a column's name tells; "" where it tells none.
func currencyOf(name string) string {
	for _, r := range name {
		if signs[r] != "" {
			return signs[r]
		}
	}
	return ""
}

// columnName brings a column's name to one form: `Usage amount`, `usage.amount` and `usage_amount` are one.
func columnName(name string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}), "_")
}

// set keeps a text, unless it is empty or the column is there already.
func (r record) set(column, text string) {
	if text = strings.TrimSpace(text); text != "" && r[column] == "" {
		r[column] = text
	}
}

// jsonRecords reads one or several JSON values: pages of an API, an array of rows, or a row a line.
func jsonRecords(file []byte) (out []record, more bool, err error) {
	dec := json.NewDecoder(bytes.NewReader(file))
	dec.UseNumber()
	for {
		var v any
		err := dec.Decode(&v)
		if errors.Is(err, io.EOF) {
			return out, more, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("%w: %w", ErrFile, err)
		}
		last := v
		if pages, ok := v.([]any); ok && len(pages) > 0 {
			last = pages[len(pages)-1]
		}
		if object, ok := last.(map[string]any); ok {
			more, _ = object["has_more"].(bool)
		}
		if out, err = appendRecords(out, v, record{}, 0); err != nil {
			return nil, false, err
		}
	}
}

// appendRecords adds the records in a JSON value. What a bucket says is said of each of its results; a
// bucket without results is a record too, which tells the time only.
func appendRecords(out []record, v any, outer record, depth int) ([]record, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: its JSON is nested too deep", ErrFile)
	}
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			var err error
			if out, err = appendRecords(out, one, outer, depth+1); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		rec := maps.Clone(outer)
		flatten(rec, "", v, 0)
		for _, list := range []string{"data", "results", "rows"} {
			inner, ok := v[list].([]any)
			if !ok {
				continue
			}
			if len(inner) > 0 {
				return appendRecords(out, inner, rec, depth+1)
			}
		}
		return append(out, rec), nil
	}
	return nil, fmt.Errorf("%w: a row is a JSON object, not %.40v", ErrFile, v)
}

// flatten adds an object's texts, numbers and booleans; arrays in it are left out.
func flatten(rec record, prefix string, object map[string]any, depth int) {
	if depth > maxDepth {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(object)) { // of two names that are one column, the first counts
		column := columnName(prefix + " " + name)
		switch v := object[name].(type) {
		case map[string]any:
			flatten(rec, column, v, depth+1)
		case json.Number:
			rec.set(column, v.String())
		case string:
			rec.set(column, v)
		case bool:
			rec.set(column, strconv.FormatBool(v))
		}
	}
}
