package generate

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"strings"

	"llm-gateway/gateway/provider/chat"
)

// Thinking that only its own provider takes back, and only with its signature, travels in the
// thoughtSignature of a thought part. That must be base64, of bytes: the official clients decode it and send
// it back in either alphabet. It does not repeat the thinking: it says which bytes of the turn's thought text
// it signs, because a stream tells the text in pieces and the signature at its end.

// signatureMark begins every such signature. Its length is a multiple of three, so that its base64 begins
// all of theirs; package gemini knows that base64, to keep them from Google.
const signatureMark = "llm-gateway/"

// Kinds of signed thinking.
const (
	kindThinking = 't'
	kindRedacted = 'r'
)

// seal is the signature for a block whose text begins at byte start of the turn's thought text.
func seal(b *chat.ThinkingBlock, start int) string {
	kind, secret := byte(kindThinking), b.Signature
	if b.Type == "redacted_thinking" {
		kind, secret = kindRedacted, b.Data
	}
	out := append([]byte(signatureMark), kind)
	out = binary.AppendUvarint(out, uint64(start))
	out = binary.AppendUvarint(out, uint64(len(b.Thinking)))
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE([]byte(b.Thinking)))
	return base64.StdEncoding.EncodeToString(append(out, secret...))
}

// isSealed says whether a signature was made by seal.
func isSealed(signature string) bool {
	data, ok := decode64(signature)
	return ok && strings.HasPrefix(string(data), signatureMark)
}

// unseal is the block of a signature made by seal, and where its text ends. thought is the turn's thought text,
// of which signatures sign one piece after another: from is where the last one ended. The block is nil where
// the text that it signs did not come back.
func unseal(signature, thought string, from int) (b *chat.ThinkingBlock, end int) {
	data, _ := decode64(signature)
	rest, ours := strings.CutPrefix(string(data), signatureMark)
	if !ours || rest == "" {
		return nil, from
	}
	kind, raw := rest[0], []byte(rest[1:])
	start, n := binary.Uvarint(raw)
	length, m := binary.Uvarint(raw[max(n, 0):])
	raw = raw[max(n, 0)+max(m, 0):]
	size := uint64(len(thought))
	if n <= 0 || m <= 0 || len(raw) < crc32.Size || start < uint64(from) || start > size || length > size-start {
		return nil, from
	}
	text, secret := thought[start:start+length], string(raw[crc32.Size:])
	switch {
	case crc32.ChecksumIEEE([]byte(text)) != binary.BigEndian.Uint32(raw):
		b = nil
	case kind == kindRedacted:
		b = &chat.ThinkingBlock{Type: "redacted_thinking", Data: secret}
	default:
		b = &chat.ThinkingBlock{Type: "thinking", Thinking: text, Signature: secret}
	}
	return b, int(start + length)
}

// alphabet brings base64 of either alphabet to the standard one.
var alphabet = strings.NewReplacer("-", "+", "_", "/", "\r", "", "\n", "")

// decode64 reads base64 in either alphabet, with or without padding.
func decode64(s string) ([]byte, bool) {
	data, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(alphabet.Replace(s), "="))
	return data, err == nil
}

// standard64 is base64 in the alphabet and with the padding that everyone takes. What is none stays as it is.
func standard64(s string) string {
	if !strings.ContainsAny(s, "-_\r\n") && len(s)%4 == 0 {
		return s
	}
	s = strings.TrimRight(alphabet.Replace(s), "=")
	if short := len(s) % 4; short > 1 {
		s += "=="[:4-short]
	}
	return s
}

// googles says whether a signature may be given to a client: one that is no base64 would break it.
func googles(signature string) bool {
	_, ok := decode64(signature)
	return ok && signature != ""
}
