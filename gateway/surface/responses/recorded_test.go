package responses

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// recordingsDir holds recorded traffic of the providers; it is beside the project, not in it.
const recordingsDir = "../../../../shared/replay/recordings"

// step is one recorded answer.
type step struct {
	name string
	of   gjson.Result
}

func (s step) ok() bool             { return s.of.Get("status").Int() == http.StatusOK }
func (s step) stream() bool         { return s.of.Get("stream").Bool() }
func (s step) body() string         { return s.of.Get("response.body").Str }
func (s step) expect() gjson.Result { return s.of.Get("expect") }

// events are the data of a recorded stream's events.
func (s step) events() (out []string) {
	for line := range strings.SplitSeq(s.body(), "\n") {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			out = append(out, strings.TrimSuffix(data, "\r"))
		}
	}
	return out
}

// recorded are the recorded answers of endpoints whose name ends so; the test is skipped where there are none.
func recorded(t *testing.T, endpoint string, least int) (steps []step) {
	t.Helper()
	index, err := os.ReadFile(filepath.Join(recordingsDir, "index.json"))
	if err != nil {
		t.Skip("the recordings of ../shared are absent: ", err)
	}
	for _, recording := range gjson.ParseBytes(index).Array() {
		if !strings.HasSuffix(strings.ToLower(recording.Get("endpoint").Str), endpoint) {
			continue
		}
		id := recording.Get("id").Str
		file, err := os.ReadFile(filepath.Join(recordingsDir, id+".json"))
		if err != nil {
			t.Fatal(err)
		}
		for i, of := range gjson.GetBytes(file, "steps").Array() {
			steps = append(steps, step{id + "/" + strconv.Itoa(i), of})
		}
	}
	if len(steps) < least {
		t.Errorf("only %d recorded answers", len(steps))
	}
	return steps
}
