package gemini

import (
	"encoding/json"
	"slices"
	"strings"

	"llm-gateway/gateway/provider/chat"
)

// The roles of Google's contents.
const (
	roleUser  = "user"
	roleModel = "model"
)

// unsigned stands for the signature that Gemini 3 demands of a turn's first function call and that there
// is none of: the calls were made by another model, or the client lost it. Google documents the word
// for this purpose.
const unsigned = "skip_thought_signature_validator"

// madeCall is an assistant's call that a tool message may answer.
type madeCall struct {
	name  string
	id    string // for Google; "" if it was minted here or elsewhere
	order int    // among all calls
}

// result is a tool message that waits for the others of its turn.
type result struct {
	order    int
	response *functionResponse
}

func (b *builder) messages() error {
	for i := range b.r.Messages {
		m := &b.r.Messages[i]
		if m.Role != chat.RoleTool && m.Role != chat.RoleFunction && !m.System() {
			b.flush()
		}
		if err := b.message(m); err != nil {
			return err
		}
	}
	b.flush()
	if !slices.ContainsFunc(b.out.Contents, func(c *content) bool { return c.Role == roleUser }) {
		return &chat.Unsupported{Param: "messages", Message: "Gemini needs at least one user message that is not empty."}
	}
	return nil
}

func (b *builder) message(m *chat.Message) error {
	switch {
	case m.System():
		return b.system(m)
	case m.Role == chat.RoleUser:
		return b.user(m)
	case m.Role == chat.RoleAssistant:
		return b.assistant(m)
	case m.Role == chat.RoleTool, m.Role == chat.RoleFunction:
		return b.result(m)
	}
	return chat.Invalid(m.Param+".role", "`%s.role` must be system, developer, user, assistant or tool.", m.Param)
}

// system gathers what the application says to the model, wherever it stands.
func (b *builder) system(m *chat.Message) error {
	parts, err := texts(m)
	if err != nil || len(parts) == 0 {
		return err
	}
	if b.out.SystemInstruction == nil {
		b.out.SystemInstruction = &content{}
	}
	b.out.SystemInstruction.Parts = append(b.out.SystemInstruction.Parts, parts...)
	return nil
}

func (b *builder) user(m *chat.Message) error {
	var parts []part
	for i := range m.Parts {
		p, err := partOf(&m.Parts[i])
		if err != nil {
			return err
		}
		if p != nil {
			parts = append(parts, *p)
		}
	}
	b.add(roleUser, parts)
	return nil
}

// add appends parts to the turn under way, or begins one where the other side spoke last.
func (b *builder) add(role string, parts []part) {
	if len(parts) == 0 {
		return
	}
	if n := len(b.out.Contents); n > 0 && b.out.Contents[n-1].Role == role && !b.out.Contents[n-1].results {
		b.out.Contents[n-1].Parts = append(b.out.Contents[n-1].Parts, parts...)
		return
	}
	b.out.Contents = append(b.out.Contents, &content{Role: role, Parts: parts})
}

// assistant sends back what the model said and called. Its reasoning stays behind: Google takes thoughts
// back by their signatures, not as text.
func (b *builder) assistant(m *chat.Message) error {
	parts, err := texts(m)
	if err != nil {
		return err
	}
	if m.Refusal != "" {
		parts = append(parts, textPart(m.Refusal))
	}
	if m.ThoughtSignature != "" {
		if len(parts) == 0 {
			parts = append(parts, textPart(""))
		}
		parts[len(parts)-1].ThoughtSignature = m.ThoughtSignature
	}
	for i := range m.ToolCalls {
		p, err := b.call(&m.ToolCalls[i])
		if err != nil {
			return err
		}
		if i == 0 && p.ThoughtSignature == "" && b.model.signs() {
			p.ThoughtSignature = unsigned
		}
		parts = append(parts, p)
	}
	b.add(roleModel, parts)
	return nil
}

// texts are the parts of a message that may only have text.
func texts(m *chat.Message) ([]part, error) {
	var parts []part
	for i := range m.Parts {
		switch p := &m.Parts[i]; {
		case p.Type != "text" && p.Type != "refusal":
			return nil, chat.Refuse(provider, p.Param)
		case p.Text != "":
			parts = append(parts, textPart(p.Text))
		}
	}
	return parts, nil
}

func textPart(text string) part { return part{Text: &text} }

func (b *builder) call(c *chat.ToolCall) (part, error) {
	if c.Custom {
		return part{}, chat.Refuse(provider, c.Param)
	}
	call := &functionCall{Name: c.Name, Args: json.RawMessage("{}")}
	if args := strings.TrimSpace(c.Arguments); args != "null" {
		if !isObject(args) {
			return part{}, chat.Invalid(c.Param+".function.arguments", "`%s.function.arguments` must be a JSON object.", c.Param)
		}
		call.Args = json.RawMessage(args)
	}
	if isGoogles(c.ID) {
		call.ID = c.ID
	}
	b.made++
	made := madeCall{name: c.Name, id: call.ID, order: b.made}
	b.calls["name "+c.Name] = made
	if c.ID != "" {
		b.calls["id "+c.ID] = made
	}
	return part{FunctionCall: call, ThoughtSignature: c.ThoughtSignature}, nil
}

// result takes in a tool message. Google knows results by the function's name, OpenAI by the call's id.
func (b *builder) result(m *chat.Message) error {
	key, param := "id "+m.ToolCallID, m.Param+".tool_call_id"
	if m.Role == chat.RoleFunction {
		key, param = "name "+m.Name, m.Param+".name"
	}
	made, ok := b.calls[key]
	if !ok {
		return chat.Invalid(param, "`%s` is of no earlier call of an assistant message.", param)
	}
	if _, err := texts(m); err != nil {
		return err
	}
	response := &functionResponse{ID: made.id, Name: made.name}
	if text := m.Text(); isObject(strings.TrimSpace(text)) {
		response.Response = json.RawMessage(strings.TrimSpace(text))
	} else {
		response.Response = chat.Encode(map[string]string{"result": text})
	}
	b.results = append(b.results, result{made.order, response})
	return nil
}

// flush ends a run of tool messages: one turn, in the order of the calls.
func (b *builder) flush() {
	if len(b.results) == 0 {
		return
	}
	slices.SortStableFunc(b.results, func(x, y result) int { return x.order - y.order })
	c := &content{Role: roleUser, results: true}
	for _, r := range b.results {
		c.Parts = append(c.Parts, part{FunctionResponse: r.response})
	}
	b.out.Contents, b.results = append(b.out.Contents, c), nil
}

func isObject(text string) bool { return strings.HasPrefix(text, "{") && json.Valid([]byte(text)) }

// maxCallID bounds an id that may be Google's, in bytes.
const maxCallID = 64

// isGoogles tells whether Google may have given the id: it has no form of its own, so what others mint
// is known by theirs. A foreign id left out costs nothing, results are then found by name and order.
func isGoogles(id string) bool {
	for _, prefix := range []string{"call_", "call-", "toolu_", "chatcmpl-", "functions.", "fc_"} {
		if strings.HasPrefix(id, prefix) {
			return false
		}
	}
	odd := func(c rune) bool {
		return c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	}
	return id != "" && len(id) <= maxCallID && !strings.ContainsFunc(id, odd)
}
