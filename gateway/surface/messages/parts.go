package messages

import (
	"cmp"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

func textPart(text string) part { return part{Type: "text", Text: &text} }

// parts translates a block of anything but thinking, calls and their results.
func (t *translator) parts(param string, b gjson.Result) []part {
	var parts []part
	switch kind := b.Get("type"); kind.Str {
	case "text":
		parts = []part{textPart(t.Text(param+".text", b.Get("text")))}
	case "image":
		parts = t.image(param, b.Get("source"))
	case "document":
		parts = t.document(param, b)
	case "search_result":
		parts = t.searchResult(param, b)
	case "tool_reference": // deferred tools are all shown
		parts = []part{textPart(t.Text(param+".tool_name", b.Get("tool_name")))}
	case "thinking", "redacted_thinking", "fallback":
	default:
		t.refuse(param + ".type")
	}
	if last := len(parts) - 1; last >= 0 {
		parts[last].CacheControl = chat.RawObject(b.Get("cache_control"))
	}
	return parts
}

func (t *translator) image(param string, source gjson.Result) []part {
	url := source.Get("url").Str
	switch source.Get("type").Str {
	case "base64":
		url = "data:" + t.Text(param+".source.media_type", source.Get("media_type")) + ";base64," + t.Text(param+".source.data", source.Get("data"))
	case "url":
		t.name(param+".source.url", source.Get("url"))
	default:
		t.refuse(param + ".source.type")
	}
	return []part{{Type: "image_url", ImageURL: &chat.ImageURL{URL: url}}}
}

// document translates a document: text is text, pages are a file.
func (t *translator) document(param string, b gjson.Result) []part {
	t.uncited(param, b)
	source, title := b.Get("source"), b.Get("title").Str
	var parts []part
	if head := join(title, b.Get("context").Str); head != "" && source.Get("type").Str != "base64" {
		parts = []part{textPart(head)}
	}
	switch kind := source.Get("type").Str; {
	case kind == "text":
		return append(parts, textPart(t.Text(param+".source.data", source.Get("data"))))
	case kind == "content" && source.Get("content").Type == gjson.String:
		return append(parts, textPart(source.Get("content").Str))
	case kind == "content":
		t.Each(param+".source.content", source.Get("content"), func(param string, inner gjson.Result) {
			parts = append(parts, t.parts(param, inner)...)
		})
		return parts
	case kind == "base64":
		url := "data:" + t.Text(param+".source.media_type", source.Get("media_type")) + ";base64," + t.Text(param+".source.data", source.Get("data"))
		return []part{{Type: "file", File: &file{Name: cmp.Or(title, "document.pdf"), Data: url}}}
	}
	t.refuse(param + ".source.type")
	return nil
}

// searchResult is its text, with where it comes from.
func (t *translator) searchResult(param string, b gjson.Result) []part {
	t.uncited(param, b)
	text := join(b.Get("title").Str, b.Get("source").Str)
	t.Each(param+".content", b.Get("content"), func(param string, inner gjson.Result) {
		text = join(text, t.Text(param+".text", inner.Get("text")))
	})
	return []part{textPart(text)}
}

// uncited refuses what is to be cited: the answer would have no citations.
func (t *translator) uncited(param string, b gjson.Result) {
	if b.Get("citations.enabled").Bool() {
		t.refuse(param + ".citations")
	}
}

// join sets lines one below the other; empty ones are left out.
func join(lines ...string) string {
	var some []string
	for _, line := range lines {
		if line != "" {
			some = append(some, line)
		}
	}
	return strings.Join(some, "\n")
}
