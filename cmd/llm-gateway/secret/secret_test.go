package secret

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestNeverPrinted(t *testing.T) {
	t.Parallel()
	const raw = "hunter2"
	text := Text(raw)
	inside := struct {
		Key  Text
		Keys []Text
		By   map[string]Text
		At   *Text
	}{text, []Text{text}, map[string]Text{"a": text}, &text}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", text, "inside", inside)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", text, "inside", inside)
	asJSON, err := json.Marshal(inside)
	if err != nil {
		t.Fatal(err)
	}
	said := []string{text.String(), log.String(), string(asJSON), fmt.Sprint(text, inside), fmt.Errorf("%w: %v", fmt.Errorf("%s", text), inside).Error()}
	for verb := range strings.FieldsSeq("%v %+v %#v %s %q %x %X %d %t %c %20.3s %y") {
		said = append(said, fmt.Sprintf(verb, text), fmt.Sprintf(verb, inside))
	}
	for _, s := range said {
		if strings.Contains(s, raw) || strings.Contains(strings.ToLower(s), fmt.Sprintf("%x", raw)) {
			t.Errorf("printed: %s", s)
		}
	}
	if string(text) != raw || !strings.Contains(string(asJSON), `"Key":"[secret]"`) {
		t.Errorf("text %q, JSON %s", string(text), asJSON)
	}
}
