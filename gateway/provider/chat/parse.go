package chat

import (
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"
)

// Parse reads a chat-completions body that is one JSON object without duplicate keys. It refuses what
// has the wrong type or no meaning, by name (*Unsupported with Invalid), and keeps what it does not know
// in Unknown. The result refers to body.
func Parse(body []byte) (*Request, error) {
	p := parser{r: Request{Choices: 1}}
	gjson.ParseBytes(body).ForEach(func(key, v gjson.Result) bool {
		if v.Type != gjson.Null {
			p.field(key.String(), v)
		}
		return p.Err == nil
	})
	if p.Err != nil {
		return nil, p.Err
	}
	return &p.r, nil
}

// parser reads one request; its first error stays.
type parser struct {
	Strict
	r Request
}

// ignored are parameters that change no answer: who asks, what is kept, and how a provider finds its caches.
var ignored = map[string]bool{
	"model": true, "metadata": true, "stream_options": true, "prompt_cache_key": true,
	"prompt_cache_retention": true, "store": true, "prediction": true, "safety_identifier": true,
}

func (p *parser) field(name string, v gjson.Result) {
	r := &p.r
	switch name {
	case "messages":
		p.Each(name, v, func(param string, m gjson.Result) { r.Messages = append(r.Messages, p.message(param, m)) })
	case "stream":
		r.Stream = p.Bool(name, v)
	case "tools", "functions":
		p.Each(name, v, func(param string, t gjson.Result) { r.Tools = append(r.Tools, p.tool(param, name == "functions", t)) })
	case "tool_choice", "function_call":
		p.toolChoice(name, v)
	case "parallel_tool_calls":
		parallel := p.Bool(name, v)
		r.ParallelToolCalls = &parallel
	case "response_format":
		p.format(name, v)
	case "max_tokens", "max_completion_tokens":
		r.MaxOutput = max(r.MaxOutput, p.integer(name, v))
	case "n":
		r.Choices = p.integer(name, v)
	case "stop":
		p.stop(name, v)
	case "logprobs":
		r.Logprobs = p.Bool(name, v)
	case "web_search_options":
		r.WebSearch = v
	case "modalities":
		p.Each(name, v, func(param string, m gjson.Result) { r.Modalities = append(r.Modalities, p.TextOrNull(param, m)) })
	case "thinking":
		r.Thinking = v
	case "extra_body":
		p.extra(v)
	default:
		p.scalar(name, v)
	}
}

// scalar reads the parameters that are one word or one number.
func (p *parser) scalar(name string, v gjson.Result) {
	r := &p.r
	switch name {
	case "temperature":
		r.Temperature = p.Number(name, v)
	case "top_p":
		r.TopP = p.Number(name, v)
	case "top_k":
		r.TopK = p.Number(name, v)
	case "frequency_penalty":
		r.FrequencyPenalty = p.Number(name, v)
	case "presence_penalty":
		r.PresencePenalty = p.Number(name, v)
	case "seed":
		r.Seed = p.Number(name, v)
	case "top_logprobs":
		r.TopLogprobs = p.Number(name, v)
	case "reasoning_effort":
		r.ReasoningEffort = p.TextOrNull(name, v)
	case "service_tier":
		r.ServiceTier = p.TextOrNull(name, v)
	case "user":
		r.User = p.TextOrNull(name, v)
	default:
		if !ignored[name] {
			r.Unknown = append(r.Unknown, Field{name, v.Raw})
		}
	}
}

// extra reads Google's own parameters, in the place where its OpenAI-compatible API has them.
func (p *parser) extra(v gjson.Result) {
	v.ForEach(func(key, value gjson.Result) bool {
		if key.Str != "google" {
			p.r.Unknown = append(p.r.Unknown, Field{"extra_body." + key.Str, value.Raw})
			return true
		}
		p.r.Extra = map[string]string{}
		value.ForEach(func(name, raw gjson.Result) bool {
			p.r.Extra[name.Str] = raw.Raw
			return true
		})
		return true
	})
}

func (p *parser) integer(param string, v gjson.Result) int64 {
	n, err := json.Number(v.Raw).Int64()
	if v.Type != gjson.Number || err != nil || n < 1 {
		p.Failf(param, "`%s` must be a whole number above 0.", param)
	}
	return n
}

func (p *parser) stop(param string, v gjson.Result) {
	if v.Type == gjson.String {
		p.r.Stop = []string{v.Str}
		return
	}
	p.Each(param, v, func(param string, s gjson.Result) { p.r.Stop = append(p.r.Stop, p.TextOrNull(param, s)) })
}

func (p *parser) format(param string, v gjson.Result) {
	f := &p.r.Format
	f.Type = p.TextOrNull(param+".type", v.Get("type"))
	switch f.Type {
	case "text", "json_object":
	case "json_schema":
		of := v.Get("json_schema")
		f.Name, f.Schema, f.Strict = p.TextOrNull(param+".json_schema.name", of.Get("name")), of.Get("schema"), of.Get("strict").Bool()
		if f.Schema.Exists() && !f.Schema.IsObject() {
			p.Failf(param+".json_schema.schema", "`%s.json_schema.schema` must be an object.", param)
		}
	default:
		p.Failf(param+".type", "`%s.type` must be text, json_object or json_schema.", param)
	}
}

func (p *parser) toolChoice(param string, v gjson.Result) {
	c := &p.r.ToolChoice
	switch {
	case v.Type == gjson.String:
		c.Mode = v.Str
		if c.Mode != "auto" && c.Mode != "none" && c.Mode != "required" {
			p.Failf(param, "`%s` must be auto, none, required, or an object that names a tool.", param)
		}
	case v.Get("type").Str == "allowed_tools":
		allowed := v.Get("allowed_tools")
		c.Mode = p.TextOrNull(param+".allowed_tools.mode", allowed.Get("mode"))
		c.Allowed = []string{}
		allowed.Get("tools").ForEach(func(_, tool gjson.Result) bool {
			c.Allowed = append(c.Allowed, tool.Get("function.name").Str)
			return true
		})
	default:
		c.Mode, c.Name = "function", v.Get("function.name").Str
		if param == "function_call" {
			c.Name = v.Get("name").Str
		}
		if v.Get("type").Str == "custom" {
			c.Name = v.Get("custom.name").Str
		}
		if c.Name == "" {
			p.Failf(param, "`%s` names no tool.", param)
		}
	}
}

// tool reads a tool; bare are the functions of the older API, which have no wrapping.
func (p *parser) tool(param string, bare bool, v gjson.Result) Tool {
	t := Tool{Param: param, Type: v.Get("type").Str, Raw: v, CacheControl: v.Get("cache_control")}
	of := v.Get("function")
	if bare {
		t.Type, of = "function", v
	}
	if t.Type == "" {
		p.Failf(param+".type", "`%s.type` is missing.", param)
	}
	if t.Type != "function" {
		t.Name = v.Get("name").Str
		return t
	}
	t.Name, t.Description = p.TextOrNull(param+".function.name", of.Get("name")), p.TextOrNull(param+".function.description", of.Get("description"))
	t.Strict = of.Get("strict").Bool()
	if schema := of.Get("parameters"); schema.Type != gjson.Null {
		t.Parameters = schema
	}
	if !t.CacheControl.Exists() {
		t.CacheControl = of.Get("cache_control")
	}
	if t.Name == "" {
		p.Failf(param+".function.name", "`%s.function.name` is missing.", param)
	}
	return t
}

func (p *parser) message(param string, v gjson.Result) Message {
	m := Message{Param: param}
	if !v.IsObject() {
		p.Failf(param, "`%s` must be an object.", param)
		return m
	}
	m.Role, m.Name = p.TextOrNull(param+".role", v.Get("role")), p.TextOrNull(param+".name", v.Get("name"))
	m.ToolCallID, m.Refusal = p.TextOrNull(param+".tool_call_id", v.Get("tool_call_id")), p.TextOrNull(param+".refusal", v.Get("refusal"))
	m.ReasoningContent = v.Get("reasoning_content").Str
	if m.ReasoningContent == "" {
		m.ReasoningContent = v.Get("reasoning").Str
	}
	m.ThoughtSignature = v.Get("extra_content.google.thought_signature").Str
	m.CacheControl = v.Get("cache_control")
	p.content(&m, v.Get("content"))
	v.Get("thinking_blocks").ForEach(func(_, b gjson.Result) bool {
		m.Thinking = append(m.Thinking, ThinkingBlock{Type: b.Get("type").Str, Thinking: b.Get("thinking").Str,
			Signature: b.Get("signature").Str, Data: b.Get("data").Str})
		return true
	})
	if calls := v.Get("tool_calls"); calls.Type != gjson.Null {
		p.Each(param+".tool_calls", calls, func(param string, c gjson.Result) { m.ToolCalls = append(m.ToolCalls, p.call(param, c)) })
	}
	if call := v.Get("function_call"); call.IsObject() {
		m.ToolCalls = append(m.ToolCalls, ToolCall{Param: param + ".function_call", Name: call.Get("name").Str, Arguments: argumentsOf(call.Get("arguments"))})
	}
	return m
}

func (p *parser) call(param string, v gjson.Result) ToolCall {
	c := ToolCall{Param: param, ID: p.TextOrNull(param+".id", v.Get("id")), Name: v.Get("function.name").Str,
		Arguments: argumentsOf(v.Get("function.arguments")), ThoughtSignature: v.Get("extra_content.google.thought_signature").Str}
	if v.Get("type").Str == "custom" {
		c.Custom, c.Name, c.Arguments = true, v.Get("custom.name").Str, v.Get("custom.input").Str
	}
	if c.Name == "" {
		p.Failf(param, "`%s` names no function.", param)
	}
	return c
}

// argumentsOf is a call's arguments; clients write none in several ways.
func argumentsOf(v gjson.Result) string {
	if v.IsObject() {
		return v.Raw
	}
	if strings.TrimSpace(v.Str) == "" {
		return "{}"
	}
	return v.Str
}

func (p *parser) content(m *Message, v gjson.Result) {
	param := m.Param + ".content"
	switch {
	case v.Type == gjson.Null:
	case v.Type == gjson.String:
		if v.Str != "" {
			m.Parts = []Part{{Param: param, Type: "text", Text: v.Str, Raw: v}}
		}
	case v.IsArray():
		p.Each(param, v, func(param string, part gjson.Result) { m.Parts = append(m.Parts, p.part(param, part)) })
	default:
		p.Failf(param, "`%s` must be a string or an array of parts.", param)
	}
}

func (p *parser) part(param string, v gjson.Result) Part {
	if v.Type == gjson.String {
		return Part{Param: param, Type: "text", Text: v.Str, Raw: v}
	}
	out := Part{Param: param, Type: p.TextOrNull(param+".type", v.Get("type")), CacheControl: v.Get("cache_control"), Raw: v}
	switch out.Type {
	case "text":
		out.Text = p.TextOrNull(param+".text", v.Get("text"))
	case "refusal":
		out.Text = p.TextOrNull(param+".refusal", v.Get("refusal"))
	case "image_url":
		link := v.Get("image_url")
		if link.IsObject() {
			out.Detail, link = link.Get("detail").Str, link.Get("url")
		}
		if out.URL = p.TextOrNull(param+".image_url.url", link); out.URL == "" {
			p.Failf(param+".image_url", "`%s.image_url` has no url.", param)
		}
	case "input_audio":
		out.Data, out.MediaType = v.Get("input_audio.data").Str, "audio/"+v.Get("input_audio.format").Str
	case "file":
		out.FileName, out.FileID = v.Get("file.filename").Str, v.Get("file.file_id").Str
		out.MediaType, out.Data = SplitDataURL(v.Get("file.file_data").Str)
	case "":
		p.Failf(param+".type", "`%s.type` is missing.", param)
	}
	return out
}

// SplitDataURL takes a base64 data: URL apart; where it is none, data is all of it and mediaType "".
func SplitDataURL(url string) (mediaType, data string) {
	rest, ok := strings.CutPrefix(url, "data:")
	head, data, found := strings.Cut(rest, ",")
	mediaType, isBase64 := strings.CutSuffix(head, ";base64")
	if !ok || !found || !isBase64 {
		return "", url
	}
	mediaType, _, _ = strings.Cut(mediaType, ";")
	return mediaType, data
}
