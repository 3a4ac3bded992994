package messages

import (
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// SignaturePrefix begins the signatures of thinking blocks that this gateway made: they are none of
// Anthropic's.
const SignaturePrefix = "llm-gateway:"

// The two places of a signature of Google's.
const (
	callSignature    = SignaturePrefix + "google-thought-signature:call:"
	messageSignature = SignaturePrefix + "google-thought-signature:message:"
)

// thoughts gathers the thinking of one turn.
type thoughts struct {
	blocks    []chat.ThinkingBlock
	ofCall    string // Google's signature of the call that comes next
	ofMessage string // Google's signature of the text
}

// add takes in a block. A signature without a text, where there is a text without a signature, is of
// that: in a stream some providers give it only at the end, when the block of the text is closed.
func (t *thoughts) add(b gjson.Result) {
	block := chat.ThinkingBlock{Type: b.Get("type").Str, Thinking: b.Get("thinking").Str,
		Signature: b.Get("signature").Str, Data: b.Get("data").Str}
	if of, ok := strings.CutPrefix(block.Signature, callSignature); ok {
		t.ofCall = of
		return
	}
	if of, ok := strings.CutPrefix(block.Signature, messageSignature); ok {
		t.ofMessage = of
		return
	}
	if block.Thinking == "" && block.Signature != "" {
		for i := range t.blocks {
			if earlier := &t.blocks[i]; earlier.Thinking != "" && earlier.Signature == "" {
				earlier.Signature = block.Signature
				return
			}
		}
	}
	t.blocks = append(t.blocks, block)
}

// forCall is the signature of the call that follows.
func (t *thoughts) forCall() string {
	signature := t.ofCall
	t.ofCall = ""
	return signature
}

func (t *thoughts) text() string {
	var text strings.Builder
	for i := range t.blocks {
		text.WriteString(t.blocks[i].Thinking)
	}
	return text.String()
}

func signed(signature string) *chat.ExtraContent {
	if signature == "" {
		return nil
	}
	return &chat.ExtraContent{Google: &chat.GoogleContent{ThoughtSignature: signature}}
}
