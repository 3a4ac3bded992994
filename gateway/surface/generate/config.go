package generate

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/surface/fields"
)

// config reads generationConfig. What is not carried is refused by name.
func (b *builder) config(o *fields.Object) error {
	if !o.Has("generationConfig") {
		return nil
	}
	c, err := fields.Read(o.Place("generationConfig"), o.Get("generationConfig"))
	if err != nil {
		return err
	}
	for _, name := range c.Names {
		if err := b.setting(&c, name); err != nil {
			return err
		}
	}
	return b.format(&c)
}

func (b *builder) setting(c *fields.Object, name string) (err error) {
	if to := b.number(name); to != nil {
		*to, err = numberOf(c, name)
		return err
	}
	switch name {
	case "maxOutputTokens":
		b.out.MaxTokens, err = c.Count(name, maxAskedToken)
	case "candidateCount":
		if b.out.N, err = c.Count(name, maxCandidates); b.out.N == 1 {
			b.out.N = 0
		}
	case "stopSequences":
		err = c.Each(name, b.stop)
	case "responseLogprobs":
		b.out.Logprobs, err = c.Bool(name)
	case "responseModalities":
		err = b.modalities(c)
	case "thinkingConfig":
		err = b.thinking(c.Place(name), c.Get(name))
	case "mediaResolution":
		b.detail, err = detailOf(c.Place(name), c.Get(name))
	case "responseMimeType", "responseSchema", "responseJsonSchema", "_responseJsonSchema": // in format
	default:
		err = fields.Uncarried(c.Place(name))
	}
	return err
}

// number is where a setting goes that is a number; nil if it is none.
func (b *builder) number(name string) *json.RawMessage {
	switch name {
	case "temperature":
		return &b.out.Temperature
	case "topP":
		return &b.out.TopP
	case "topK":
		return &b.out.TopK
	case "seed":
		return &b.out.Seed
	case "presencePenalty":
		return &b.out.Presence
	case "frequencyPenalty":
		return &b.out.Frequency
	case "logprobs":
		return &b.out.TopLogprobs
	}
	return nil
}

// numberOf is a number as it was written, but for whole ones: Google's clients write 40.0 where others want
// a whole number.
func numberOf(c *fields.Object, name string) (json.RawMessage, error) {
	v := c.Get(name)
	if v.Type != gjson.Number {
		return nil, chat.Invalid(c.Place(name), "`%s` must be a number.", c.Place(name))
	}
	whole, fraction, _ := strings.Cut(v.Raw, ".")
	if _, err := strconv.ParseInt(whole, 10, 64); err == nil && strings.Trim(fraction, "0") == "" {
		return json.RawMessage(whole), nil
	}
	return json.RawMessage(v.Raw), nil
}

func (b *builder) stop(param string, v gjson.Result) error {
	if v.Type != gjson.String {
		return chat.Invalid(param, "`%s` must be a string.", param)
	}
	b.out.Stop = append(b.out.Stop, v.Str)
	return nil
}

// modalities: text alone is what everyone gives unasked.
func (b *builder) modalities(c *fields.Object) error {
	var kinds []string
	err := c.Each("responseModalities", func(param string, v gjson.Result) error {
		switch kind := strings.ToLower(v.Str); kind {
		case "text", "image":
			kinds = append(kinds, kind)
		case "modality_unspecified":
		default:
			return fields.Uncarried(param)
		}
		return nil
	})
	if strings.Join(kinds, "") != "text" {
		b.out.Modalities = kinds
	}
	return err
}

// The budgets up to which thinking is little or moderate, in tokens: those that stand for OpenAI's words
// where a chat completion is sent to Google.
const (
	lowBudget    = 1024
	mediumBudget = 8192
)

// thinking is how hard to think. Whether the thoughts are shown is not asked: they always are, where they
// are known.
func (b *builder) thinking(param string, v gjson.Result) error {
	o, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	for _, name := range o.Names {
		switch name {
		case "includeThoughts":
			_, err = o.Bool(name)
		case "thinkingLevel":
			err = b.level(&o)
		case "thinkingBudget":
			err = b.budget(&o)
		default:
			err = fields.Uncarried(o.Place(name))
		}
		if err != nil {
			return err
		}
	}
	if o.Has("thinkingLevel") && o.Has("thinkingBudget") {
		return chat.Invalid(o.Place("thinkingBudget"), "`thinkingLevel` and `thinkingBudget` cannot both be given.")
	}
	return nil
}

func (b *builder) level(o *fields.Object) error {
	switch level := strings.ToLower(o.Get("thinkingLevel").Str); level {
	case "minimal", "low", "medium", "high":
		b.out.ReasoningEffort = level
	case "thinking_level_unspecified":
	default:
		return chat.Invalid(o.Place("thinkingLevel"), "`%s` must be MINIMAL, LOW, MEDIUM or HIGH.", o.Place("thinkingLevel"))
	}
	return nil
}

func (b *builder) budget(o *fields.Object) error {
	v := o.Get("thinkingBudget")
	n, err := strconv.ParseInt(v.Raw, 10, 32)
	switch {
	case v.Type != gjson.Number || err != nil || n < -1:
		return chat.Invalid(o.Place("thinkingBudget"), "`%s` must be a whole number from -1.", o.Place("thinkingBudget"))
	case n == -1: // as the model likes
	case n == 0:
		b.out.ReasoningEffort = "none"
	case n <= lowBudget:
		b.out.ReasoningEffort = "low"
	case n <= mediumBudget:
		b.out.ReasoningEffort = "medium"
	default:
		b.out.ReasoningEffort = "high"
	}
	return nil
}

// schemaName is the name that OpenAI wants a schema to have, and Google has none for.
const schemaName = "response"

// format is what form the answer must have.
func (b *builder) format(c *fields.Object) error {
	schema, err := oneSchema(c, "responseSchema", "responseJsonSchema", "_responseJsonSchema")
	if err != nil {
		return err
	}
	mime, err := c.Text("responseMimeType")
	switch {
	case err != nil:
		return err
	case mime != "" && mime != "application/json" && (mime != "text/plain" || schema != nil):
		return fields.Uncarried(c.Place("responseMimeType"))
	case schema != nil:
		b.out.ResponseFormat = &responseFormat{Type: "json_schema", JSONSchema: &jsonSchema{Name: schemaName, Schema: schema}}
	case mime == "application/json":
		b.out.ResponseFormat = &responseFormat{Type: "json_object"}
	}
	return nil
}
