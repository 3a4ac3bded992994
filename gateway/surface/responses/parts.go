package responses

import (
	"encoding/json"
	"strconv"

	"github.com/tidwall/gjson"
)

// part is one part of a message of a chat completion.
type part struct {
	Type         string          `json:"type"`
	Text         *string         `json:"text,omitempty"`
	Refusal      *string         `json:"refusal,omitempty"`
	ImageURL     *imageURL       `json:"image_url,omitempty"`
	InputAudio   json.RawMessage `json:"input_audio,omitempty"`
	File         *file           `json:"file,omitempty"`
	CacheControl json.RawMessage `json:"cache_control,omitempty"`
}

type imageURL struct {
	URL    string `json:"url"`
	Detail string `json:"detail,omitempty"`
}

type file struct {
	FileName string `json:"filename,omitempty"`
	FileData string `json:"file_data,omitempty"`
}

// contentOf is a text as a string where that is all there is, else the parts.
func contentOf(parts []part) any {
	switch {
	case len(parts) == 0:
		return ""
	case len(parts) == 1 && parts[0].Text != nil && parts[0].CacheControl == nil:
		return *parts[0].Text
	}
	return parts
}

// parts translates a content: a string, or an array of parts.
func (c *conversation) parts(param string, v gjson.Result) (parts []part) {
	if v.Type == gjson.String {
		return []part{{Type: "text", Text: &v.Str}}
	}
	if !v.IsArray() {
		c.Failf(param, "`%s` must be a string or an array of parts.", param)
	}
	for i, of := range v.Array() {
		own := c.part(param+"["+strconv.Itoa(i)+"]", of)
		own.CacheControl = rawOf(of.Get("cache_control"))
		parts = append(parts, own)
	}
	return parts
}

func (c *conversation) part(param string, v gjson.Result) part {
	switch kind := v.Get("type").Str; kind {
	case "input_text", "output_text":
		text := v.Get("text")
		if text.Type != gjson.String {
			c.Failf(param+".text", "`%s.text` must be a string.", param)
		}
		return part{Type: "text", Text: &text.Str}
	case "refusal":
		text := v.Get("refusal").Str
		return part{Type: kind, Refusal: &text}
	case "input_image":
		url := v.Get("image_url")
		if url.Type != gjson.String || url.Str == "" {
			c.Failf(param+".image_url", "`%s.image_url` must be a link or a data: URL: files that OpenAI keeps are out of this model's reach.", param)
		}
		return part{Type: "image_url", ImageURL: &imageURL{URL: url.Str, Detail: v.Get("detail").Str}}
	case "input_audio":
		audio := v.Get("input_audio")
		if !audio.IsObject() {
			c.Failf(param+".input_audio", "`%s.input_audio` must be an object.", param)
		}
		return part{Type: kind, InputAudio: rawOf(audio)}
	case "input_file":
		data := v.Get("file_data")
		if data.Type != gjson.String || data.Str == "" {
			c.Failf(param, "`%s` needs file_data: links, and files that OpenAI keeps, are out of this model's reach.", param)
		}
		return part{Type: "file", File: &file{FileName: v.Get("filename").Str, FileData: data.Str}}
	default:
		c.Failf(param+".type", "`%s.type` is none that is known here.", param)
		return part{}
	}
}
