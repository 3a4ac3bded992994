package provider

import (
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/tidwall/gjson"
	"github.com/tiktoken-go/tokenizer"
)

// OpenAI's prompt formula, as in its cookbook: what the chat template adds, in tokens.
const (
	messageTokens = 3 // around each message
	nameTokens    = 1 // for a message's name
	replyTokens   = 3 // to prime the reply
	// attachmentTokens stands for an image, a sound or a file in an estimate: one low-detail image
	// of gpt-4o. What such parts can cost at most is the price book's affair.
	attachmentTokens = 85
)

// An unknown vocabulary is taken to need at most upperNumerator/upperDenominator as many tokens as
// o200k_base: the makers of the models without a public one state factors up to 1.35 between
// their own generations, over text on which they were close to OpenAI's.
const (
	upperNumerator   = 3
	upperDenominator = 2
)

const (
	// maxBlankRun is the longest run of white space that the tokenizer sees in one piece: its time
	// grows with the square of a run that mixes blanks and line ends (100 kB take eight seconds).
	maxBlankRun = 256
	// maxCountedBytes bounds the text that is really counted, about a tenth of a second. The rest
	// is taken to be like it.
	maxCountedBytes = 1 << 20
)

// The vocabularies are some megabytes and take a while to build: once, when first needed.
var (
	o200k  = sync.OnceValue(func() tokenizer.Codec { return codec(tokenizer.O200kBase) })
	cl100k = sync.OnceValue(func() tokenizer.Codec { return codec(tokenizer.Cl100kBase) })
)

// codec gets an embedded vocabulary. That it is there is fixed at compile time.
func codec(name tokenizer.Encoding) tokenizer.Codec {
	c, err := tokenizer.Get(name)
	if err != nil {
		panic(err)
	}
	return c
}

// vocabulary is a public one.
type vocabulary struct {
	name  string
	codec func() tokenizer.Codec
}

var (
	vocabulary200k = vocabulary{"o200k_base", o200k}
	vocabulary100k = vocabulary{"cl100k_base", cl100k}
)

// family is what is known of how a model counts.
type family struct {
	vocabulary
	public bool // the vocabulary is the model's own
	exact  bool // the prompt formula has been seen to equal the bill
	fewer  int64
}

// families are the known name prefixes, the more special ones first.
var families = []struct {
	prefix string
	family family
}{
	{"sim-", family{vocabulary200k, true, true, 0}},
	{"gpt-3.5-turbo", family{vocabulary100k, true, true, 0}},
	{"gpt-35-turbo", family{vocabulary100k, true, true, 0}},
	{"gpt-4o", family{vocabulary200k, true, true, 0}},
	{"gpt-4.1", family{vocabulary200k, true, true, 0}},
	{"gpt-4.", family{vocabulary200k, true, false, 0}},
	{"gpt-4", family{vocabulary100k, true, true, 0}},
	{"gpt-5-chat", family{vocabulary200k, true, false, 0}},
	{"gpt-5-search", family{vocabulary200k, true, false, 0}},
	{"gpt-5-codex", family{vocabulary200k, true, false, 0}},
	{"gpt-5-pro", family{vocabulary200k, true, false, 0}},
	// Reasoning models bill one token fewer than the formula.
	{"gpt-5-", family{vocabulary200k, true, true, 1}},
	{"o1", family{vocabulary200k, true, true, 1}},
	{"o3", family{vocabulary200k, true, true, 1}},
	{"o4", family{vocabulary200k, true, true, 1}},
	{"gpt-", family{vocabulary200k, true, false, 0}},
	{"chatgpt-", family{vocabulary200k, true, false, 0}},
	{"codex-", family{vocabulary200k, true, false, 0}},
	{"text-embedding-", family{vocabulary100k, true, false, 0}},
	{"babbage-002", family{vocabulary100k, true, false, 0}},
	{"davinci-002", family{vocabulary100k, true, false, 0}},
}

// familyOf finds a model's family by its name, also of a fine-tuned one ("ft:gpt-4o:...") and
// behind a maker's prefix ("openai/gpt-4o").
func familyOf(model string) family {
	name := strings.TrimPrefix(strings.TrimPrefix(model, "openai/"), "ft:")
	if name == "gpt-5" {
		name = "gpt-5-"
	}
	for _, f := range families {
		if !strings.HasPrefix(name, f.prefix) {
			continue
		}
		found := f.family
		// Searching and listening models get more into their prompts than the request's text.
		if strings.Contains(name, "search") || strings.Contains(name, "audio") {
			found.exact = false
		}
		return found
	}
	return family{vocabulary: vocabulary200k}
}

// CountedBy says how CountText counts for a model: by which vocabulary, and by which factor that was
// raised where the model's own is not public.
func CountedBy(model string) string {
	f := familyOf(model)
	if f.public {
		return f.name
	}
	return fmt.Sprintf("%s*%d/%d", f.name, upperNumerator, upperDenominator)
}

// CountText is the number of tokens of a text for a model: by its own vocabulary where that is
// public, otherwise o200k_base's number times 3/2, rounded up. It takes about 0.1 microseconds per
// byte up to 1 MiB of text, and extrapolates from there.
func CountText(model, text string) int64 {
	n, _ := familyOf(model).count(text)
	return n
}

// count counts a text, and says whether the number is exact.
func (f family) count(text string) (int64, bool) {
	n, exact := countWith(f.codec(), text)
	if !f.public {
		return (n*upperNumerator + upperDenominator - 1) / upperDenominator, false
	}
	return n, exact
}

// countWith counts at most maxCountedBytes, in pieces that end in no longer run of white space
// than maxBlankRun. The text between two runs is not cut, so that only a cut run is inexact.
func countWith(c tokenizer.Codec, text string) (int64, bool) {
	exact, size := true, len(text)
	if size > maxCountedBytes {
		text, exact = strings.ToValidUTF8(text[:maxCountedBytes], ""), false
	}
	var n int64
	counted := len(text)
	for len(text) > 0 {
		cut := blankCut(text)
		exact = exact && cut == len(text)
		pieces, err := c.Count(text[:cut])
		if err != nil {
			// No token is shorter than a byte.
			pieces, exact = cut, false
		}
		n += int64(pieces)
		text = text[cut:]
	}
	if size > counted && counted > 0 {
		n = (n*int64(size) + int64(counted) - 1) / int64(counted)
	}
	return n, exact
}

// blankCut is where the first run of white space reaches maxBlankRun bytes; the text's length if
// none does.
func blankCut(text string) int {
	run := 0
	for i := 0; i < len(text); {
		r, width := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, width = utf8.DecodeRuneInString(text[i:])
		}
		i += width
		if r > ' ' && (r < utf8.RuneSelf || !unicode.IsSpace(r)) {
			run = 0
			continue
		}
		if run += width; run >= maxBlankRun {
			return i
		}
	}
	return len(text)
}

// CountPrompt is the number of input tokens that a chat-completions body will be billed for, by
// the formula of OpenAI's cookbook. exact means that the formula has been seen to equal the bill,
// to the token: plain text chat with a model of a known family. Otherwise tokens is an estimate
// and no bound: tools and schemas are counted as their JSON, attachments by a fixed number.
func CountPrompt(model string, body []byte) (tokens int64, exact bool) {
	p := prompt{family: familyOf(model), exact: true, tokens: replyTokens}
	p.exact, p.tokens = p.family.exact, p.tokens-p.family.fewer
	gjson.ParseBytes(body).ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "messages":
			value.ForEach(func(_, message gjson.Result) bool {
				p.message(message)
				return true
			})
		case "tools", "functions", "response_format", "web_search_options", "modalities", "audio":
			p.setting(key.Str, value)
		}
		return true
	})
	return p.tokens, p.exact
}

// prompt adds up the tokens of one request.
type prompt struct {
	family family
	tokens int64
	exact  bool
}

func (p *prompt) text(s string) {
	if s == "" {
		return
	}
	n, exact := p.family.count(s)
	p.tokens += n
	p.exact = p.exact && exact
}

// setting counts what a request says beside its messages: as the JSON that it is, where the model
// gets to see it.
func (p *prompt) setting(name string, value gjson.Result) {
	empty := !value.IsArray() && !value.IsObject() || len(value.Raw) == len("[]")
	if empty || (name == "response_format" && value.Get("type").Str == "text") {
		return
	}
	if name == "modalities" && value.Raw == `["text"]` {
		return
	}
	p.exact = false
	if name == "tools" || name == "functions" || name == "response_format" {
		p.text(value.Get("@ugly").Raw)
	}
}

func (p *prompt) message(message gjson.Result) {
	p.tokens += messageTokens
	message.ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "role":
			p.text(value.Str)
			p.exact = p.exact && plainRoles[value.Str]
		case "name":
			p.tokens += nameTokens
			p.text(value.Str)
		case "content":
			p.content(value)
		default:
			p.extra(key.Str, value)
		}
		return true
	})
}

// plainRoles are the roles whose messages are text and nothing else.
var plainRoles = map[string]bool{"system": true, "developer": true, "user": true, "assistant": true}

// content counts a message's content: a string, or a list of parts.
func (p *prompt) content(value gjson.Result) {
	if !value.IsArray() {
		p.text(value.Str)
		return
	}
	parts := 0
	value.ForEach(func(_, part gjson.Result) bool {
		parts++
		if text := part.Get("text"); text.Type == gjson.String {
			p.text(text.Str)
		} else {
			p.tokens, p.exact = p.tokens+attachmentTokens, false
		}
		return true
	})
	p.exact = p.exact && parts == 1
}

// extra counts the other members of a message: the text of calls and refusals, but no identifiers.
func (p *prompt) extra(name string, value gjson.Result) {
	if value.Type == gjson.Null {
		return
	}
	p.exact = false
	switch name {
	case "tool_calls":
		value.ForEach(func(_, call gjson.Result) bool {
			p.tokens += messageTokens
			p.text(string(appendCall(nil, call.Get("function"))))
			return true
		})
	case "function_call":
		p.text(string(appendCall(nil, value)))
	case "refusal":
		p.text(value.Str)
	}
}
