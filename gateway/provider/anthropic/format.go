package anthropic

import (
	"encoding/json"

	"llm-gateway/gateway/provider/chat"
)

// jsonOnly is what stands for json_object: Anthropic has no form without a schema. A forced tool would
// need one too, and a prefilled brace is refused by newer models.
const jsonOnly = "Answer with exactly one JSON object and nothing else: no words before or after it, and no code fence."

// answerTool is the name of the forced tool where the format's own is none that Anthropic takes.
const answerTool = "answer"

// format translates what form the answer must have.
func (x *translation) format() error {
	f := &x.r.Format
	switch f.Type {
	case "json_object":
		x.instruct(jsonOnly)
	case "json_schema":
		if !f.Schema.IsObject() {
			return chat.Invalid("response_format.json_schema.schema", "`response_format.json_schema.schema` is missing.")
		}
		if x.model.structured() {
			x.config().Format = &outputFormat{Type: "json_schema", Schema: closed(json.RawMessage(f.Schema.Raw))}
			return nil
		}
		return x.forceAnswer()
	}
	return nil
}

// instruct adds a sentence to the system prompt, after all marks of the cache.
func (x *translation) instruct(sentence string) {
	switch system := x.out.System.(type) {
	case string:
		x.out.System = system + "\n" + sentence
	case []block:
		system = append(system, block{Type: "text", Text: sentence})
		x.out.System = system
	default:
		x.out.System = sentence
	}
}

// forceAnswer has the model call a tool with the answer as its input. Beside other tools that cannot
// be: forced to call any, it would never call this one when it should, and never speak.
func (x *translation) forceAnswer() error {
	f := &x.r.Format
	if len(x.out.Tools) > 0 {
		return &chat.Unsupported{Param: "response_format", Message: "This model of Anthropic's takes no `response_format` with a schema beside tools."}
	}
	x.jsonTool = answerTool
	if isToolName(f.Name) {
		x.jsonTool = f.Name
	}
	x.out.Tools = []any{tool{Name: x.jsonTool, Description: "Gives the answer in the form that is asked for.", InputSchema: inputSchema(f.Schema)}}
	x.out.ToolChoice = &toolChoice{Type: "tool", Name: x.jsonTool, Single: true}
	return nil
}

// config is the output_config of the request.
func (x *translation) config() *outputConfig {
	if x.out.OutputConfig == nil {
		x.out.OutputConfig = &outputConfig{}
	}
	return x.out.OutputConfig
}
