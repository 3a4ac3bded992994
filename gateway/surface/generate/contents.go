package generate

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/surface/fields"
)

// conversation makes messages of contents. Contents of the model in a row are one message: the official
// clients keep a streamed answer as one content per event. Of other contents in a row the results of functions
// come first, because they must follow the calls.
type conversation struct {
	b       *builder
	calls   calls
	results []message
	user    []message
	turn    modelTurn
}

// modelTurn is what the model said in one turn.
type modelTurn struct {
	number  int
	begun   bool
	text    strings.Builder
	thought strings.Builder
	seals   []string // signatures of thought
	calls   []chat.ReplyCall
	google  string // Google's own signature of what is no call
}

func (b *builder) contents(o *fields.Object) error {
	c := conversation{b: b}
	if err := o.Each("contents", c.add); err != nil {
		return err
	}
	c.endUser()
	c.endModel()
	if !slices.ContainsFunc(b.out.Messages, func(m message) bool { return m.Role != chat.RoleSystem }) {
		return chat.Invalid("contents", "`contents` must be an array of at least one content with parts.")
	}
	return nil
}

func (c *conversation) add(param string, v gjson.Result) error {
	o, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	for _, name := range o.Names {
		if name != "role" && name != "parts" {
			return fields.Uncarried(o.Place(name))
		}
	}
	role, err := o.Text("role")
	if err != nil {
		return err
	}
	switch role {
	case "model":
		c.endUser()
		c.turn.begun = true
		return o.Each("parts", c.modelPart)
	case "", "user", "function", "tool":
		c.endModel()
		return c.addUser(&o)
	}
	return chat.Invalid(o.Place("role"), "`%s` must be user or model.", o.Place("role"))
}

// addUser adds what the application says, and the results of functions.
func (c *conversation) addUser(o *fields.Object) error {
	var parts []part
	err := o.Each("parts", func(param string, v gjson.Result) error {
		p, err := fields.Read(param, v)
		if err != nil {
			return err
		}
		if p.Has("functionResponse") {
			return c.result(&p)
		}
		more, err := c.b.userPart(&p)
		parts = append(parts, more...)
		return err
	})
	if err == nil && len(parts) > 0 {
		c.user = append(c.user, message{Role: chat.RoleUser, Content: contentOf(parts)})
	}
	return err
}

// contentOf is a message's content: a string where it is one text.
func contentOf(parts []part) any {
	if len(parts) == 1 && parts[0].Text != nil {
		return *parts[0].Text
	}
	return parts
}

// endUser ends a run of contents that are not the model's.
func (c *conversation) endUser() {
	c.b.out.Messages = append(append(c.b.out.Messages, c.results...), c.user...)
	c.results, c.user = nil, nil
}

func (c *conversation) modelPart(param string, v gjson.Result) error {
	p, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	for _, name := range p.Names {
		switch name {
		case "text", "thought", "thoughtSignature", "functionCall", "executableCode", "codeExecutionResult":
		default:
			return fields.Uncarried(p.Place(name))
		}
	}
	thought, err := p.Bool("thought")
	if err != nil {
		return err
	}
	text, err := p.Text("text")
	if err != nil {
		return err
	}
	signature, err := p.Text("thoughtSignature")
	if err != nil {
		return err
	}
	if p.Has("functionCall") {
		return c.call(&p, signature)
	}
	return c.turn.say(&p, text, signature, thought)
}

// say adds what is no call. Code that Google ran stands in the text: a chat has no other place for it.
func (t *modelTurn) say(p *fields.Object, text, signature string, thought bool) error {
	if isSealed(signature) {
		t.seals = append(t.seals, signature)
	} else if signature != "" && !thought {
		t.google = signature
	}
	if thought {
		t.thought.WriteString(text)
		return nil
	}
	t.text.WriteString(text)
	for _, name := range []string{"executableCode", "codeExecutionResult"} {
		if !p.Has(name) {
			continue
		}
		o, err := fields.Read(p.Place(name), p.Get(name))
		if err != nil {
			return err
		}
		t.text.WriteString(fenced(strings.ToLower(o.Get("language").Str), o.Get("code").Str+o.Get("output").Str))
	}
	return nil
}

func fenced(language, code string) string {
	if code == "" {
		return ""
	}
	return "\n```" + language + "\n" + strings.TrimSuffix(code, "\n") + "\n```\n"
}

func (c *conversation) call(p *fields.Object, signature string) error {
	o, err := fields.Read(p.Place("functionCall"), p.Get("functionCall"))
	if err != nil {
		return err
	}
	for _, name := range o.Names {
		if name != "id" && name != "name" && name != "args" && (name != "willContinue" || o.Get(name).Bool()) {
			return fields.Uncarried(o.Place(name))
		}
	}
	id, err := o.Text("id")
	if err != nil {
		return err
	}
	name, err := o.Text("name")
	if err != nil || name == "" {
		return chat.Invalid(o.Place("name"), "`%s` must be the name of a function.", o.Place("name"))
	}
	args := o.Get("args")
	if args.Exists() && !args.IsObject() {
		return chat.Invalid(o.Place("args"), "`%s` must be an object.", o.Place("args"))
	}
	c.b.say(args.Raw)
	call := chat.ReplyCall{ID: c.calls.add(id, name, c.turn.number), Type: "function", Function: chat.ReplyFunction{Name: name, Arguments: compact(args)}}
	if signature != "" && !isSealed(signature) {
		call.ExtraContent = signed(signature)
	}
	c.turn.calls = append(c.turn.calls, call)
	return nil
}

func signed(signature string) *chat.ExtraContent {
	return &chat.ExtraContent{Google: &chat.GoogleContent{ThoughtSignature: signature}}
}

// compact is an object without its white space; nothing is "{}".
func compact(object gjson.Result) string {
	var b bytes.Buffer
	if !object.IsObject() || json.Compact(&b, []byte(object.Raw)) != nil {
		return "{}"
	}
	return b.String()
}

// endModel ends a turn of the model. One that was only thought is none.
func (c *conversation) endModel() {
	t := &c.turn
	if t.begun && (t.text.Len() > 0 || len(t.calls) > 0) {
		m := message{Role: chat.RoleAssistant, ToolCalls: t.calls, ReasoningContent: t.thought.String(), ThinkingBlocks: t.blocks()}
		if text := t.text.String(); text != "" {
			c.b.say(text)
			m.Content = text
		}
		if t.google != "" {
			m.ExtraContent = signed(t.google)
		}
		c.b.out.Messages = append(c.b.out.Messages, m)
	}
	c.turn = modelTurn{number: t.number + 1}
}

// blocks are the signed thoughts of the turn.
func (t *modelTurn) blocks() (blocks []chat.ThinkingBlock) {
	end := 0
	for _, s := range t.seals {
		var b *chat.ThinkingBlock
		if b, end = unseal(s, t.thought.String(), end); b != nil {
			blocks = append(blocks, *b)
		}
	}
	return blocks
}
