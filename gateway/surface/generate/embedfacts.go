package generate

import (
	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/surface/fields"
)

// EmbedFacts reads what the meter needs of an embedContent request, or of a batchEmbedContents request with
// batch. There is no output. Each request of a batch has the model's context window to itself.
func EmbedFacts(body []byte, model string, batch bool) (*chat.Facts, error) {
	r := newReader(body, model)
	err := r.embeds(gjson.ParseBytes(body), batch)
	if err != nil {
		return nil, err
	}
	if r.Images > 0 { // no bound of theirs is known here
		r.Opaque, r.Images, r.ImageBytes = true, 0, 0
	}
	return &r.Facts, nil
}

func (r *reader) embeds(v gjson.Result, batch bool) error {
	if !batch {
		return r.embed("", v)
	}
	o, err := fields.Read("", v)
	if err != nil {
		return err
	}
	for _, name := range o.Names {
		switch name {
		case "requests":
			err = o.Each(name, func(param string, v gjson.Result) error {
				r.Inputs++
				return r.embed(param, v)
			})
		case "model":
			err = r.model(&o)
		default:
			r.Opaque = true
		}
		if err != nil {
			return err
		}
	}
	if r.Inputs == 0 {
		return chat.Invalid("requests", "`requests` must be an array of at least one request.")
	}
	return nil
}

func (r *reader) embed(param string, v gjson.Result) error {
	o, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	if !o.Has("content") {
		return chat.Invalid(o.Place("content"), "`%s` is missing.", o.Place("content"))
	}
	for _, name := range o.Names {
		switch name {
		case "content":
			err = r.content(o.Place(name), o.Get(name))
		case "model":
			err = r.model(&o)
		case "taskType", "title", "outputDimensionality", "embedContentConfig":
		default:
			r.Opaque = true
		}
		if err != nil {
			return err
		}
	}
	return nil
}
