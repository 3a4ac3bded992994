package responses

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

func TestFacts(t *testing.T) {
	_, cases := chattest.Cases(t, "testdata/facts.txt")
	for _, c := range cases {
		if got := factsOf(t, c.Request); got != c.Want {
			t.Errorf("%s:\n got %s\nwant %s", c.Name, got, c.Want)
		}
	}
}

// factsOf is what Facts says, on one line.
func factsOf(t *testing.T, request string) string {
	t.Helper()
	f, err := Facts([]byte(request))
	if err != nil {
		return refused(t, err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "model=%s", f.Model)
	flag := func(is bool, name string) {
		if is {
			out.WriteString(" " + name)
		}
	}
	number := func(n int64, name string) { flag(n != 0, fmt.Sprintf("%s%d", name, n)) }
	flag(f.Stream, "stream")
	number(f.MaxOutput, "max=")
	number(f.Rounds, "rounds=")
	number(f.Images, "images=")
	number(f.ImageBytes, "imagebytes=")
	flag(f.Opaque, "opaque")
	flag(f.AudioIn, "audio")
	flag(f.WebSearch, "search")
	number(f.Searches, "searches=")
	number(f.InputBytes-int64(len(request)), "bytes+")
	flag(f.ServiceTier != "", "tier="+f.ServiceTier)
	flag(f.EndUser != "", "user="+f.EndUser)
	for _, r := range f.References {
		out.WriteString(" kept=" + r.Param + ":" + r.ID)
	}
	if f.Choices != 1 || f.IncludeUsage || f.AudioOut || f.ImageOut || f.PredictionLen != 0 {
		t.Errorf("facts of another API: %+v", f)
	}
	return out.String()
}

// refused is the place that a refusal names.
func refused(t *testing.T, err error) string {
	t.Helper()
	var u *chat.Unsupported
	if !errors.As(err, &u) || u.Message == "" {
		t.Errorf("no refusal: %v", err)
		return ""
	}
	return "refused: " + u.Param
}

func TestUnmeterable(t *testing.T) {
	for _, body := range []string{
		`{"model":"m","background":true}`,
		`{"model":"m","tools":[{"type":"code_interpreter"}]}`,
		`{"model":"m","tools":[{"type":"file_search"}]}`,
	} {
		_, err := Facts([]byte(body))
		var u *chat.Unsupported
		if !errors.As(err, &u) || u.Invalid || !strings.Contains(u.Message, "cannot be metered") {
			t.Errorf("%s: %v", body, err)
		}
		if _, err := Own([]byte(body), "m"); !errors.As(err, &u) {
			t.Errorf("Own took %s", body)
		}
	}
}
