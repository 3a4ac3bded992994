package provider

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

const (
	shortestAnswer   = 8  // tokens
	answerVariation  = 40 // lengths
	maxSimulatedN    = 128
	simulatedHexID   = 24 // digits
	maxDirectiveText = 64 << 10
)

// simulatedWords are one token of o200k_base each, with and without a blank before them, so that a
// text of n words is n tokens.
var simulatedWords = strings.Fields(`the of and to in is that for it was on are as with they at
	be this from have or by one had not but what all were when we there can an your which their
	said if do will each about how up out them then she many some so these would other into has
	more her two like him see time could no make than first been its who now people my made over`)

// spacedWords are the same with the blank.
var spacedWords = func() []string {
	out := make([]string, len(simulatedWords))
	for i, w := range simulatedWords {
		out[i] = " " + w
	}
	return out
}()

// plan is one answer, decided before its first byte.
type plan struct {
	directives
	id           string
	model        string // JSON
	prompt       int64  // tokens
	choices      []simulatedChoice
	includeUsage bool // stream_options.include_usage
}

// simulatedChoice is one choice: words, or the pieces of a JSON text, or those of a tool call's
// arguments.
type simulatedChoice struct {
	id        string // of the tool call
	tool      string // its function's name, as JSON; "" for text
	pieces    []string
	words     int
	seed      uint64
	tokens    int64 // visible ones
	reasoning int64
	finish    string
}

// wishes are the parts of a request that the plan looks at.
type wishes struct {
	messages, tools, toolChoice, format, model gjson.Result
	limit                                      int64
	n                                          int64
	includeUsage                               bool
	refused                                    string
}

func wishesOf(body []byte) wishes {
	w := wishes{limit: SimulatedMaxOutput, n: 1}
	var newLimit, oldLimit gjson.Result
	gjson.ParseBytes(body).ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "model":
			w.model = value
		case "messages":
			w.messages = value
		case "tools":
			w.tools = value
		case "tool_choice":
			w.toolChoice = value
		case "response_format":
			w.format = value
		case "max_completion_tokens":
			newLimit = value
		case "max_tokens":
			oldLimit = value
		case "n":
			w.setNumber(&w.n, value, maxSimulatedN)
		case "stream_options":
			w.includeUsage = value.Get("include_usage").Bool()
		}
		return true
	})
	if newLimit.Type == gjson.Null {
		newLimit = oldLimit
	}
	w.setNumber(&w.limit, newLimit, maxSimulatedLimit)
	w.limit = min(w.limit, SimulatedMaxOutput)
	if w.model.Type != gjson.String || !w.messages.IsArray() {
		w.refused = "A request needs a model and messages."
	}
	return w
}

// maxSimulatedLimit is the largest maximum that may be asked for.
const maxSimulatedLimit = 1 << 31

// setNumber takes a number from 1 to limit; null leaves what is there.
func (w *wishes) setNumber(to *int64, value gjson.Result, limit int64) {
	if value.Type == gjson.Null {
		return
	}
	n, ok := chat.Integer(value)
	if !ok || n < 1 || n > limit {
		w.refused = "A maximum or n is not a number in its range."
		return
	}
	*to = n
}

// planOf plans the answer to a body; refused says why there will be none.
func planOf(body []byte) (p *plan, refused string) {
	w := wishesOf(body)
	if w.refused != "" {
		return nil, w.refused
	}
	sum := sha256.Sum256(body)
	p = &plan{directives: directives{tokens: -1, cutAt: -1, failAt: -1},
		id: hex.EncodeToString(sum[:])[:simulatedHexID], model: w.model.Raw,
		includeUsage: w.includeUsage}
	if refused = p.read(lastUserText(w.messages)); refused != "" {
		return nil, refused
	}
	p.prompt, _ = CountPrompt("sim-", body)
	p.cached = min(p.cached, p.prompt)
	tool, text, refused := w.structured()
	if refused != "" {
		return nil, refused
	}
	seed := binary.BigEndian.Uint64(sum[:])
	p.choices = make([]simulatedChoice, w.n)
	for i := range p.choices {
		c := &p.choices[i]
		c.seed, c.tool, c.finish = scramble(seed+uint64(i)), tool, "stop"
		if tool != "" {
			c.id, c.finish = p.id[:20]+strconv.Itoa(i), "tool_calls"
		}
		c.reasoning = min(p.reasoning, w.limit)
		c.fill(text, p.tokens, w.limit-c.reasoning)
	}
	return p, ""
}

// scramble is the finaliser of splitmix64: near seeds give unlike answers.
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// fill decides what the choice says within limit tokens: text, or words if there is none. wanted is
// the number of words, -1 for the usual length.
func (c *simulatedChoice) fill(text string, wanted, limit int64) {
	if text != "" {
		c.fillText(text, limit)
		return
	}
	if wanted < 0 {
		wanted = shortestAnswer + int64(c.seed%answerVariation)
	}
	c.tokens = min(wanted, limit)
	c.words = int(c.tokens)
	if wanted > limit {
		c.finish = "length"
	}
}

// fillText takes as many tokens of a text as the limit allows. Tokens that are parts of one
// character are sent together.
func (c *simulatedChoice) fillText(text string, limit int64) {
	name := int64(0)
	if c.tool != "" {
		name, _ = countWith(o200k(), gjson.Parse(c.tool).Str)
	}
	_, tokens, err := o200k().Encode(text)
	if err != nil {
		tokens = nil
	}
	if name+int64(len(tokens)) > limit {
		c.finish = "length"
		if name >= limit {
			c.tool, name, tokens = "", 0, nil
		}
		tokens = tokens[:min(int64(len(tokens)), limit-name)]
	}
	c.tokens = name + int64(len(tokens))
	piece := ""
	for _, t := range tokens {
		if piece += t; utf8.ValidString(piece) {
			c.pieces, piece = append(c.pieces, piece), ""
		}
	}
}

// count is the number of pieces, steps that of the chunks: the role, the pieces, the finish.
func (c *simulatedChoice) count() int { return c.words + len(c.pieces) }
func (c *simulatedChoice) steps() int { return c.count() + 2 }

func (c *simulatedChoice) piece(i int) string {
	if c.words == 0 {
		return c.pieces[i]
	}
	word := scramble(c.seed+uint64(i)) % uint64(len(simulatedWords))
	if i == 0 {
		return simulatedWords[word]
	}
	return spacedWords[word]
}

// text is all of it.
func (c *simulatedChoice) text() string {
	var b strings.Builder
	for i := range c.count() {
		b.WriteString(c.piece(i))
	}
	return b.String()
}

// appendDelta appends a chunk's delta and what follows it in the choice.
func (c *simulatedChoice) appendDelta(out []byte, step int) []byte {
	switch {
	case step == 0 && c.tool != "":
		out = append(out, `{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_`...)
		out = append(append(out, c.id...), `","type":"function","function":{"name":`...)
		out = append(append(out, c.tool...), `,"arguments":""}}],"refusal":null}`...)
	case step == 0:
		out = append(out, `{"role":"assistant","content":"","refusal":null}`...)
	case step == c.steps()-1:
		out = append(append(out, `{},"logprobs":null,"finish_reason":"`...), c.finish...)
		return append(out, '"')
	case c.tool != "":
		out = append(out, `{"tool_calls":[{"index":0,"function":{"arguments":`...)
		out = append(gjson.AppendJSONString(out, c.piece(step-1)), `}}]}`...)
	default:
		out = gjson.AppendJSONString(append(out, `{"content":`...), c.piece(step-1))
		out = append(out, '}')
	}
	return append(out, `,"logprobs":null,"finish_reason":null`...)
}

// appendHead begins an answer or a chunk: everything before the choices.
func (p *plan) appendHead(out []byte, object string) []byte {
	out = append(append(out, `{"id":"chatcmpl-sim`...), p.id...)
	out = append(append(out, `","object":"`...), object...)
	out = strconv.AppendInt(append(out, `","created":`...), simulatedCreated, 10)
	out = append(append(out, `,"model":`...), p.model...)
	return append(out, `,"service_tier":"default","system_fingerprint":"fp_simulated"`...)
}

// appendWhole appends the whole answer.
func (p *plan) appendWhole(out []byte) []byte {
	out = append(p.appendHead(out, "chat.completion"), `,"choices":[`...)
	for i := range p.choices {
		c := &p.choices[i]
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(append(out, `{"index":`...), int64(i), 10)
		out = append(out, `,"message":{"role":"assistant","content":`...)
		if c.tool == "" {
			out = gjson.AppendJSONString(out, c.text())
		} else {
			out = append(append(out, `null,"tool_calls":[{"id":"call_`...), c.id...)
			out = append(append(out, `","type":"function","function":{"name":`...), c.tool...)
			out = gjson.AppendJSONString(append(out, `,"arguments":`...), c.text())
			out = append(out, `}}]`...)
		}
		out = append(out, `,"refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"`...)
		out = append(append(out, c.finish...), '"', '}')
	}
	out = append(out, ']')
	if !p.noUsage {
		out = p.appendUsage(append(out, `,"usage":`...))
	}
	return append(out, '}')
}

// appendUsage appends the usage object.
func (p *plan) appendUsage(out []byte) []byte {
	var visible, reasoning int64
	for i := range p.choices {
		visible += p.choices[i].tokens
		reasoning += p.choices[i].reasoning
	}
	completion := visible + reasoning
	out = strconv.AppendInt(append(out, `{"prompt_tokens":`...), p.prompt, 10)
	out = strconv.AppendInt(append(out, `,"completion_tokens":`...), completion, 10)
	out = strconv.AppendInt(append(out, `,"total_tokens":`...), p.prompt+completion, 10)
	out = append(out, `,"prompt_tokens_details":{"cached_tokens":`...)
	out = strconv.AppendInt(out, p.cached, 10)
	out = append(out, `,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":`...)
	out = strconv.AppendInt(out, reasoning, 10)
	return append(out, `,"audio_tokens":0,"accepted_prediction_tokens":0,`+
		`"rejected_prediction_tokens":0}}`...)
}

// directives are what a prompt may ask of the simulation.
type directives struct {
	tokens, cached, reasoning int64 // tokens: -1 = not directed
	delay, pace               time.Duration
	status                    int
	cutAt, failAt             int // -1 = never
	noUsage, hang             bool
}

var directivePattern = regexp.MustCompile(`\bsim:([a-z]+)(?:=([0-9A-Za-z.µ]+))?`)

// read finds the directives in a text. Words that merely look like one are left alone; a known
// one with a wrong value is refused.
func (d *directives) read(text string) (refused string) {
	if len(text) > maxDirectiveText {
		text = text[len(text)-maxDirectiveText:]
	}
	if !strings.Contains(text, "sim:") {
		return ""
	}
	for _, m := range directivePattern.FindAllStringSubmatch(text, -1) {
		// A full stop ends a sentence, not a value.
		if !d.set(m[1], strings.TrimRight(m[2], ".")) {
			return "The directive sim:" + m[1] + " has a wrong value."
		}
	}
	return ""
}

// set takes one directive; false if its value is wrong.
func (d *directives) set(name, value string) (ok bool) {
	switch name {
	case "tokens":
		d.tokens, ok = directed(value, 0, SimulatedMaxOutput)
	case "cached":
		d.cached, ok = directed(value, 0, maxSimulatedLimit)
	case "reasoning":
		d.reasoning, ok = directed(value, 0, maxSimulatedLimit)
	case "delay":
		d.delay, ok = directedDuration(value)
	case "pace":
		d.pace, ok = directedDuration(value)
	case "status":
		var status int64
		status, ok = directed(value, 400, 599)
		d.status = int(status)
	case "cut":
		var k int64
		k, ok = directed(value, 0, maxSimulatedLimit)
		d.cutAt = int(k)
	case "error":
		var k int64
		k, ok = directed(value, 0, maxSimulatedLimit)
		d.failAt = int(k)
	case "nousage":
		d.noUsage, ok = true, true
	case "hang":
		d.hang, ok = true, true
	default:
		ok = true
	}
	return ok
}

func directed(value string, low, high int64) (int64, bool) {
	n, err := strconv.ParseInt(value, 10, 64)
	return n, err == nil && n >= low && n <= high
}

func directedDuration(value string) (time.Duration, bool) {
	d, err := time.ParseDuration(value)
	return d, err == nil && d >= 0
}

// lastUserText is the text of the last user message.
func lastUserText(messages gjson.Result) string {
	var last gjson.Result
	messages.ForEach(func(_, message gjson.Result) bool {
		if message.Get("role").Str == "user" {
			last = message.Get("content")
		}
		return true
	})
	return string(appendContent(nil, last))
}
