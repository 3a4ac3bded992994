package chat

import (
	"bytes"
	"encoding/json"

	"github.com/tidwall/gjson"
)

// Encode renders values that cannot fail: structs of strings and numbers, and JSON that was checked where it
// was taken. It is json.Marshal without the escapes for HTML, which no provider writes.
func Encode(v any) []byte {
	b, err := Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// Marshal is Encode of what may hold raw JSON that nobody has checked: it fails where that is none.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// RawObject is an object as it stands; nil for anything else.
func RawObject(v gjson.Result) json.RawMessage {
	if !v.IsObject() {
		return nil
	}
	return json.RawMessage(v.Raw)
}

// OneLine is an event's JSON without line breaks, which would end its frame: in JSON they stand between tokens
// only. It is data itself where that has none; else a copy in *reused.
func OneLine(data []byte, reused *[]byte) []byte {
	if bytes.IndexByte(data, '\n') < 0 && bytes.IndexByte(data, '\r') < 0 {
		return data
	}
	*reused = append((*reused)[:0], data...)
	for i, c := range *reused {
		if c == '\n' || c == '\r' {
			(*reused)[i] = ' '
		}
	}
	return *reused
}
