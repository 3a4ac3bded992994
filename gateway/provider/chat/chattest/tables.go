package chattest

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// Case is a case of a text table.
type Case struct{ Name, Request, Want string }

// Cases reads a table: what stands before its cases, and those, each a line "= name", a request in JSON, a line that
// begins with "->", and what is wanted.
func Cases(t testing.TB, file string) (head string, cases []Case) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "\n= ")
	for _, block := range blocks[1:] {
		name, rest, _ := strings.Cut(block, "\n")
		request, want, ok := strings.Cut(rest, "\n->")
		request, want = strings.TrimSpace(request), strings.TrimSpace(want)
		if !ok || !json.Valid([]byte(request)) {
			t.Fatalf("%s: case %q is not whole", file, name)
		}
		cases = append(cases, Case{name, request, want})
	}
	return blocks[0], cases
}

// Table reads a table that is a JSON array.
func Table(t testing.TB, file string) []gjson.Result {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(data) {
		t.Fatalf("%s is no JSON", file)
	}
	return gjson.ParseBytes(data).Array()
}

// SameJSON compares two texts as JSON, numbers as they are written.
func SameJSON(t testing.TB, got, want string) bool {
	t.Helper()
	return reflect.DeepEqual(valueOf(t, got), valueOf(t, want))
}

func valueOf(t testing.TB, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}
