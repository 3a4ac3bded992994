package embed

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// The forms in which OpenAI gives a vector.
const (
	Float  = "float"  // an array of numbers
	Base64 = "base64" // float32 after float32, little-endian
)

var errNoEmbeddings = errors.New("the answer has no embeddings")

// values is one vector in Google's form.
type values struct {
	Values json.RawMessage `json:"values"`
}

// GeminiAnswer translates OpenAI's answer into the one of embedContent, or of batchEmbedContents with batch.
func GeminiAnswer(answer []byte, batch bool) ([]byte, error) {
	v := gjson.ParseBytes(answer)
	data := v.Get("data").Array()
	if !gjson.ValidBytes(answer) || len(data) == 0 {
		return nil, errNoEmbeddings
	}
	slices.SortStableFunc(data, func(a, b gjson.Result) int { return int(a.Get("index").Int() - b.Get("index").Int()) })
	list := make([]values, len(data))
	for i, d := range data {
		vector := d.Get("embedding")
		if !vector.IsArray() {
			return nil, errNoEmbeddings
		}
		list[i].Values = json.RawMessage(vector.Raw)
	}
	type usage struct {
		Prompt int64 `json:"promptTokenCount"`
	}
	var out struct {
		Embedding  *values  `json:"embedding,omitempty"`
		Embeddings []values `json:"embeddings,omitempty"`
		Usage      *usage   `json:"usageMetadata,omitempty"`
	}
	if n := v.Get("usage.prompt_tokens"); n.Type == gjson.Number {
		out.Usage = &usage{n.Int()}
	}
	if batch {
		out.Embeddings = list
	} else {
		out.Embedding = &list[0]
	}
	return chat.Encode(out), nil
}

// embedding is one vector in OpenAI's form.
type embedding struct {
	Object    string          `json:"object"` // embedding
	Index     int             `json:"index"`
	Embedding json.RawMessage `json:"embedding"`
}

// OpenAIAnswer translates the answer to a batchEmbedContents or embedContent request into OpenAI's. encoding
// is Float or Base64, "" is Float; tokens is the usage.
func OpenAIAnswer(native []byte, model, encoding string, tokens int64) ([]byte, error) {
	v := gjson.ParseBytes(native)
	vectors := v.Get("embeddings").Array()
	if one := v.Get("embedding"); one.IsObject() {
		vectors = []gjson.Result{one}
	}
	if !gjson.ValidBytes(native) || len(vectors) == 0 {
		return nil, errNoEmbeddings
	}
	var out struct {
		Object string      `json:"object"`
		Data   []embedding `json:"data"`
		Model  string      `json:"model"`
		Usage  struct {
			Prompt int64 `json:"prompt_tokens"`
			Total  int64 `json:"total_tokens"`
		} `json:"usage"`
	}
	out.Object, out.Model, out.Usage.Prompt, out.Usage.Total = "list", model, tokens, tokens
	for i, vector := range vectors {
		numbers := vector.Get("values")
		if !numbers.IsArray() {
			return nil, errNoEmbeddings
		}
		e := embedding{Object: "embedding", Index: i, Embedding: json.RawMessage(numbers.Raw)}
		if encoding == Base64 {
			packed, err := pack(numbers)
			if err != nil {
				return nil, err
			}
			e.Embedding = chat.Encode(packed)
		}
		out.Data = append(out.Data, e)
	}
	return chat.Encode(out), nil
}

// pack is a vector as OpenAI has it in base64.
func pack(numbers gjson.Result) (string, error) {
	var b []byte
	var err error
	numbers.ForEach(func(_, v gjson.Result) bool {
		var n float64
		if n, err = strconv.ParseFloat(v.Raw, 32); v.Type != gjson.Number || err != nil {
			err = errNoEmbeddings
			return false
		}
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(n)))
		return true
	})
	return base64.StdEncoding.EncodeToString(b), err
}
