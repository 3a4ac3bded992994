package chattest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// Step is one recorded exchange.
type Step struct {
	Name    string // its recording and its place in it: "ge-think-1/0"
	Model   string // that was asked
	Request string // JSON; "" where it was not recorded
	Status  int
	Stream  bool
	Body    string       // the answer's, or the whole of its stream
	Expect  gjson.Result // what the answer is known to mean
	Of      gjson.Result // all that was recorded
}

// OK says whether it was answered well.
func (s Step) OK() bool { return s.Status == 200 }

// Events are the data of a stream's events.
func (s Step) Events() []string { return Events(s.Body) }

// Recorded are the recorded exchanges of the endpoints whose name ends so, in any case: "messages",
// "generatecontent". The test is skipped where there are no recordings, and fails where these are less than
// least.
func Recorded(t testing.TB, endpoint string, least int) (steps []Step) {
	t.Helper()
	dir := directory(t)
	index, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Skip("the recordings of ../shared are absent: ", err)
	}
	for _, recording := range gjson.ParseBytes(index).Array() {
		if !strings.HasSuffix(strings.ToLower(recording.Get("endpoint").Str), endpoint) {
			continue
		}
		id := recording.Get("id").Str
		file, err := os.ReadFile(filepath.Join(dir, id+".json"))
		if err != nil {
			t.Fatal(err)
		}
		for i, of := range gjson.GetBytes(file, "steps").Array() {
			steps = append(steps, stepOf(id+"/"+strconv.Itoa(i), of))
		}
	}
	if len(steps) < least {
		t.Errorf("only %d recorded answers of %s", len(steps), endpoint)
	}
	return steps
}

// Find is the step of that name; the test fails where there is none.
func Find(t testing.TB, steps []Step, name string) Step {
	t.Helper()
	for _, s := range steps {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no recording %s", name)
	return Step{}
}

func stepOf(name string, of gjson.Result) Step {
	s := Step{Name: name, Model: of.Get("model_requested").Str, Status: int(of.Get("status").Int()), Stream: of.Get("stream").Bool(),
		Body: of.Get("response.body").Str, Expect: of.Get("expect"), Of: of}
	if request := of.Get("request"); request.IsObject() {
		s.Request = request.Raw
	}
	return s
}

// directory is where the recordings are: beside the directory that has go.mod.
func directory(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "..", "shared", "replay", "recordings")
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("there is no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}

// Events are the data of the events of a recorded stream.
func Events(body string) (events []string) {
	for line := range strings.Lines(body) {
		if data, ok := strings.CutPrefix(line, "data:"); ok {
			events = append(events, strings.TrimRight(strings.TrimPrefix(data, " "), "\r\n"))
		}
	}
	return events
}
