package responses

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"llm-gateway/gateway/provider/chat"
)

// errNoAnswer is what Answer says to a body that is no finished response.
var errNoAnswer = errors.New("the body is not a response that has come to its end")

// Own is the exchange with OpenAI itself: the client's body, for the model by OpenAI's name of it.
func Own(body []byte, model string) (chat.Exchange, error) {
	m, err := measure(body)
	if err != nil {
		return nil, err
	}
	sent, err := sjson.SetBytes(body, "model", model)
	if err == nil && m.runs && m.toolCalls == 0 {
		sent, err = sjson.SetBytes(sent, "max_tool_calls", DefaultMaxToolCalls)
	}
	if err == nil {
		sent, err = withoutCarried(sent)
	}
	if err != nil {
		return nil, chat.Invalid("", "The body is not a JSON object.")
	}
	return own{sent}, nil
}

// withoutCarried takes the reasoning items out that were made here: OpenAI refuses what it cannot decrypt.
func withoutCarried(body []byte) ([]byte, error) {
	if !bytes.Contains(body, []byte(carriedPrefix)) {
		return body, nil
	}
	kept, dropped := []byte{'['}, false
	gjson.GetBytes(body, "input").ForEach(func(_, item gjson.Result) bool {
		if _, ours := carriedOf(item); ours {
			dropped = true
			return true
		}
		if len(kept) > 1 {
			kept = append(kept, ',')
		}
		kept = append(kept, item.Raw...)
		return true
	})
	if !dropped {
		return body, nil
	}
	return sjson.SetRawBytes(body, "input", append(kept, ']'))
}

// own is one call of OpenAI.
type own struct{ body []byte }

func (x own) Body() []byte { return x.body }

func (x own) Reader() chat.Reader { return &reader{} }

// Answer reads a whole response.
func (x own) Answer(native []byte) (*chat.Completion, error) {
	if !json.Valid(native) {
		return nil, errNoAnswer
	}
	v := gjson.ParseBytes(native)
	if e := v.Get("error"); e.IsObject() && !v.Get("output").IsArray() {
		return nil, failedOf(e)
	}
	report, ended := reportOf(v)
	if !ended {
		return nil, errNoAnswer
	}
	if v.Get("status").Str == "failed" && !bought(report) && len(v.Get("output").Array()) == 0 {
		return nil, failedOf(v.Get("error"))
	}
	return &chat.Completion{Body: native, Report: report, Text: func() string { return textOf(v.Get("output")) }}, nil
}

// bought says whether the usage tells of anything to be paid.
func bought(r chat.Report) bool {
	return r.Usage != nil && (r.Usage.Input > 0 || r.Usage.Output > 0 || r.Usage.WebSearch > 0)
}

// textOf is the text of output items, for counting.
func textOf(output gjson.Result) string {
	var text []byte
	output.ForEach(func(_, item gjson.Result) bool {
		for _, list := range []string{"summary", "content"} {
			item.Get(list).ForEach(func(_, part gjson.Result) bool {
				text = append(append(text, part.Get("text").Str...), part.Get("refusal").Str...)
				return true
			})
		}
		text = appendCall(text, item)
		return true
	})
	return string(text)
}

// appendCall appends what the model wrote to call a tool.
func appendCall(text []byte, item gjson.Result) []byte {
	for _, of := range []string{"name", "arguments", "input"} {
		text = append(text, item.Get(of).Str...)
	}
	for _, of := range []string{"action", "actions", "operation"} {
		text = append(text, item.Get(of).Raw...)
	}
	return text
}
