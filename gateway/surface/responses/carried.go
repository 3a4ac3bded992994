package responses

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// carriedPrefix begins the encrypted_content of the reasoning items that are made here. After it comes a JSON
// object in unpadded base64url, in the form of carried. Nothing is encrypted: what is in it is the client's
// to know, and for the provider that signed it to check.
const carriedPrefix = "llm-gateway.1."

// carried is what a provider wants back with its own reasoning. There may be none of it: then the prefix only
// tells that the item's summary is the reasoning itself.
type carried struct {
	// ThinkingBlocks are Anthropic's, signed.
	ThinkingBlocks []chat.ThinkingBlock `json:"thinking_blocks,omitempty"`
	// ThoughtSignature is Google's, of the message; Calls are those of calls, by their ids.
	ThoughtSignature string            `json:"thought_signature,omitempty"`
	Calls            map[string]string `json:"calls,omitempty"`
}

// holds says whether there is anything to carry.
func (c *carried) holds() bool {
	return len(c.ThinkingBlocks) > 0 || c.ThoughtSignature != "" || len(c.Calls) > 0
}

// sign keeps the signature of a call.
func (c *carried) sign(id, signature string) {
	if signature == "" {
		return
	}
	if c.Calls == nil {
		c.Calls = map[string]string{}
	}
	c.Calls[id] = signature
}

// think takes in a block of thinking, or a piece of one where its index says so.
func (c *carried) think(b gjson.Result) {
	at, block := b.Get("index"), chat.ThinkingBlock{Type: b.Get("type").Str, Thinking: b.Get("thinking").Str,
		Signature: b.Get("signature").Str, Data: b.Get("data").Str}
	if i := int(at.Int()); at.Exists() && i >= 0 && i < len(c.ThinkingBlocks) {
		of := &c.ThinkingBlocks[i]
		of.Thinking, of.Signature, of.Data = of.Thinking+block.Thinking, of.Signature+block.Signature, of.Data+block.Data
		return
	}
	c.ThinkingBlocks = append(c.ThinkingBlocks, block)
}

func (c *carried) encode() string {
	return carriedPrefix + base64.RawURLEncoding.EncodeToString(chat.Encode(c))
}

// carriedOf reads a reasoning item; false where it was not made here.
func carriedOf(item gjson.Result) (c carried, ours bool) {
	if item.Get("type").Str != "reasoning" {
		return c, false
	}
	text, ours := strings.CutPrefix(item.Get("encrypted_content").Str, carriedPrefix)
	if !ours {
		return c, false
	}
	if raw, err := base64.RawURLEncoding.DecodeString(text); err != nil || json.Unmarshal(raw, &c) != nil {
		return carried{}, true // cut or changed: still none of OpenAI's
	}
	return c, true
}
