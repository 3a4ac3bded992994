package chattest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestEvents(t *testing.T) {
	got := Events("event: a\ndata: {\"a\":1}\n\ndata:x\r\n: comment\ndata: \ndata:  two") //nolint:dupword // two lines of one event
	if want := []string{`{"a":1}`, "x", "", " two"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestCases(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t.txt")
	if err := os.WriteFile(file, []byte("head\n= one\n{}\n-> 1\n= two\n{\n}\n->\n2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	head, cases := Cases(t, file)
	if want := []Case{{"one", "{}", "1"}, {"two", "{\n}", "2"}}; head != "head" || !slices.Equal(cases, want) {
		t.Errorf("%q %q", head, cases)
	}
}

func TestSameJSON(t *testing.T) {
	if !SameJSON(t, `{"a":1,"b":[2.0]}`, `{ "b": [2.0], "a": 1 }`) || SameJSON(t, `1`, `1.0`) || SameJSON(t, `[1,2]`, `[2,1]`) {
		t.Error("not compared as JSON")
	}
}

func TestRecorded(t *testing.T) {
	for _, s := range Recorded(t, "generatecontent", 25) {
		if s.Name == "" || s.Status == 0 || s.Body == "" || s.Model == "" || s.Stream && s.OK() && len(s.Events()) == 0 {
			t.Errorf("%+v", s)
		}
	}
}
