package anthropic

import (
	"encoding/base64"
	"slices"
	"strings"
	"unicode/utf8"

	"llm-gateway/gateway/provider/chat"
)

// imageTypes are the images that Anthropic reads.
var imageTypes = []string{"image/jpeg", "image/png", "image/gif", "image/webp"}

// partsOf translates a message's content. Text of white space only is left out: Anthropic refuses it, and
// it says nothing.
func partsOf(m *chat.Message, allowed ...string) (blocks []block, err error) {
	for i := range m.Parts {
		p := &m.Parts[i]
		if !slices.Contains(allowed, p.Type) {
			return nil, &chat.Unsupported{Param: p.Param, Message: "Anthropic takes no part of this type in a message of this role."}
		}
		var b block
		switch p.Type {
		case "image_url":
			b, err = image(p)
		case "file":
			b, err = document(p)
		default:
			b = block{Type: "text", Text: p.Text}
		}
		if err != nil {
			return nil, err
		}
		if b.Type == "text" && strings.TrimSpace(b.Text) == "" {
			continue
		}
		b.CacheControl = chat.RawObject(p.CacheControl)
		blocks = append(blocks, b)
	}
	return blocks, nil
}

func image(p *chat.Part) (block, error) {
	if strings.HasPrefix(p.URL, "https://") {
		return block{Type: "image", Source: &source{Type: "url", URL: p.URL}}, nil
	}
	mediaType, data := chat.SplitDataURL(p.URL)
	if mediaType == "image/jpg" {
		mediaType = "image/jpeg"
	}
	if !slices.Contains(imageTypes, mediaType) {
		return block{}, &chat.Unsupported{Param: p.Param + ".image_url",
			Message: "Anthropic reads images from https: links and base64 data: URLs, of type jpeg, png, gif or webp."}
	}
	return block{Type: "image", Source: &source{Type: "base64", MediaType: mediaType, Data: data}}, nil
}

// document translates a file: one that Anthropic keeps, a PDF, or plain text.
func document(p *chat.Part) (block, error) {
	b := block{Type: "document", Title: p.FileName}
	switch {
	case p.FileID != "":
		b.Source = &source{Type: "file", FileID: p.FileID}
	case p.MediaType == "application/pdf":
		b.Source = &source{Type: "base64", MediaType: p.MediaType, Data: p.Data}
	case p.MediaType == "text/plain":
		text, err := base64.StdEncoding.DecodeString(p.Data)
		if err != nil || !utf8.Valid(text) {
			return block{}, chat.Invalid(p.Param+".file.file_data", "`%s.file.file_data` is not text in base64.", p.Param)
		}
		b.Source = &source{Type: "text", MediaType: p.MediaType, Data: string(text)}
	default:
		return block{}, &chat.Unsupported{Param: p.Param + ".file", Message: "Anthropic reads files of type application/pdf and text/plain, as data: URLs."}
	}
	return b, nil
}
