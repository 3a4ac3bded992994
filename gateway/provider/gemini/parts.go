package gemini

import (
	"path"
	"strings"

	"llm-gateway/gateway/provider/chat"
)

// filesAPI is where Google keeps uploaded files; requests name them by their whole address.
const filesAPI = "https://generativelanguage.googleapis.com/v1beta/"

// partOf translates a part of a user's message; nil if it is an empty text.
func partOf(p *chat.Part) (*part, error) {
	switch p.Type {
	case "text", "refusal":
		if p.Text == "" {
			return nil, nil
		}
		out := textPart(p.Text)
		return &out, nil
	case "image_url":
		return linkPart(p.Param+".image_url.url", p.URL, "")
	case "input_audio":
		if p.Data == "" || p.MediaType == "audio/" {
			return nil, chat.Invalid(p.Param+".input_audio", "`%s.input_audio` needs `data` and `format`.", p.Param)
		}
		return &part{InlineData: &inlineData{MimeType: p.MediaType, Data: p.Data}}, nil
	case "file":
		return filePart(p)
	}
	return nil, chat.Refuse(provider, p.Param)
}

func filePart(p *chat.Part) (*part, error) {
	if p.FileID != "" {
		return linkPart(p.Param+".file.file_id", p.FileID, p.FileName)
	}
	mime := p.MediaType
	if mime == "" {
		mime = mimeOf(p.FileName)
	}
	if p.Data == "" || mime == "" {
		return nil, chat.Invalid(p.Param+".file", "`%s.file` needs `file_data` as a base64 data: URL with a media type, or `file_id`.", p.Param)
	}
	return &part{InlineData: &inlineData{MimeType: mime, Data: p.Data}}, nil
}

// linkPart is data in place, or a link that Google follows by itself.
func linkPart(param, url, name string) (*part, error) {
	if strings.HasPrefix(url, "data:") {
		mime, data := chat.SplitDataURL(url)
		if mime == "" || data == "" {
			return nil, chat.Invalid(param, "`%s` must be a base64 data: URL with a media type.", param)
		}
		return &part{InlineData: &inlineData{MimeType: mime, Data: data}}, nil
	}
	if strings.HasPrefix(url, "files/") {
		url = filesAPI + url
	}
	if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "gs://") {
		return nil, &chat.Unsupported{Param: param, Message: "Gemini takes data: URLs, https: links, gs: links and its own files here."}
	}
	mime := mimeOf(name)
	if mime == "" {
		address, _, _ := strings.Cut(url, "?")
		address, _, _ = strings.Cut(address, "#")
		mime = mimeOf(address)
	}
	return &part{FileData: &fileData{MimeType: mime, FileURI: url}}, nil
}

// mimeTypes are those that Gemini reads, by the endings that files have.
var mimeTypes = map[string]string{
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
	".heic": "image/heic", ".heif": "image/heif", ".pdf": "application/pdf", ".txt": "text/plain", ".md": "text/markdown",
	".csv": "text/csv", ".html": "text/html", ".xml": "text/xml", ".json": "application/json",
	".wav": "audio/wav", ".mp3": "audio/mp3", ".aiff": "audio/aiff", ".aac": "audio/aac", ".ogg": "audio/ogg", ".flac": "audio/flac",
	".mp4": "video/mp4", ".mpeg": "video/mpeg", ".mov": "video/mov", ".avi": "video/avi", ".webm": "video/webm",
}

// mimeOf guesses by the name's ending; "" leaves it to Google.
func mimeOf(name string) string { return mimeTypes[strings.ToLower(path.Ext(name))] }

// Sounds says whether what a request brings, or links to, may be sound: Google bills that apart, whatever part
// of a message it comes in.
func Sounds(r *chat.Request) bool {
	for i := range r.Messages {
		for j := range r.Messages[i].Parts {
			p, err := partOf(&r.Messages[i].Parts[j])
			switch {
			case err != nil || p == nil:
			case p.InlineData != nil && chat.Sounds(p.InlineData.MimeType), p.FileData != nil && chat.Sounds(p.FileData.MimeType):
				return true
			}
		}
	}
	return false
}
