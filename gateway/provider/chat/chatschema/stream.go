package chatschema

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Stream checks an upstream's whole stream, given as the data of its events in their order; a last
// `[DONE]` may be there or not. Beyond Chunk of each it holds that
//   - all have one id and one `created`;
//   - the first delta of each choice has the role, and the last chunk of each, and no other, a finish_reason;
//   - a chunk without choices is the last one and has the usage, and no other chunk has one;
//   - the first delta of each tool call has id, type and name, later ones have no other id and no name,
//     and its arguments add up to JSON, unless the choice was cut (length, content_filter).
func Stream(events []string) error { return stream(events, Chunk) }

// StrictStream is Stream with StrictChunk, for what this product made.
func StrictStream(events []string) error { return stream(events, StrictChunk) }

func stream(events []string, valid func([]byte) error) error {
	if n := len(events); n > 0 && events[n-1] == "[DONE]" {
		events = events[:n-1]
	}
	if len(events) == 0 {
		return errors.New("there are no chunks")
	}
	f := &follower{choices: map[int]*choiceSoFar{}}
	for i, event := range events {
		if err := valid([]byte(event)); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
		var c chunk
		if err := json.Unmarshal([]byte(event), &c); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
		if err := f.follow(c); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
	}
	return f.end()
}

// chunk is what the rules of a stream look at.
type chunk struct {
	ID      string          `json:"id"`
	Created int64           `json:"created"`
	Choices []chunkChoice   `json:"choices"`
	Usage   json.RawMessage `json:"usage"`
}

type chunkChoice struct {
	Index        int    `json:"index"`
	Delta        delta  `json:"delta"`
	FinishReason string `json:"finish_reason"` // "" for null
}

type delta struct {
	Role      string      `json:"role"`
	ToolCalls []callDelta `json:"tool_calls"`
}

type callDelta struct {
	Index    int    `json:"index"`
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
	Custom struct {
		Name string `json:"name"`
	} `json:"custom"`
}

// follower is what a stream has said so far.
type follower struct {
	id      string
	created int64
	begun   bool
	ended   bool // the usage has come
	choices map[int]*choiceSoFar
}

type choiceSoFar struct {
	finish string
	calls  map[int]*callSoFar
}

type callSoFar struct{ id, kind, arguments string }

func (f *follower) follow(c chunk) error {
	if f.ended {
		return errors.New("the usage was not the last")
	}
	if !f.begun {
		f.begun, f.id, f.created = true, c.ID, c.Created
	}
	used := len(c.Usage) > 0 && string(c.Usage) != "null"
	switch {
	case c.ID != f.id:
		return fmt.Errorf("the id is %q, and was %q", c.ID, f.id)
	case c.Created != f.created:
		return fmt.Errorf("created is %d, and was %d", c.Created, f.created)
	case used && len(c.Choices) > 0:
		return errors.New("a usage beside choices")
	case !used && len(c.Choices) == 0:
		return errors.New("neither choices nor a usage")
	}
	f.ended = used
	for _, choice := range c.Choices {
		if err := f.choice(choice.Index, choice.Delta, choice.FinishReason); err != nil {
			return fmt.Errorf("choice %d: %w", choice.Index, err)
		}
	}
	return nil
}

func (f *follower) choice(index int, d delta, finish string) error {
	so := f.choices[index]
	switch {
	case so == nil && d.Role == "":
		return errors.New("the first delta has no role")
	case so == nil:
		so = &choiceSoFar{calls: map[int]*callSoFar{}}
		f.choices[index] = so
	case so.finish != "":
		return fmt.Errorf("it goes on after its finish_reason %q", so.finish)
	}
	so.finish = finish
	for _, call := range d.ToolCalls {
		if err := so.call(call); err != nil {
			return fmt.Errorf("tool call %d: %w", call.Index, err)
		}
	}
	return nil
}

func (c *choiceSoFar) call(d callDelta) error {
	so, name := c.calls[d.Index], d.Function.Name+d.Custom.Name
	switch {
	case so == nil && (d.ID == "" || d.Type == "" || name == ""):
		return fmt.Errorf("the first delta has id %q, type %q, name %q", d.ID, d.Type, name)
	case so == nil:
		so = &callSoFar{id: d.ID, kind: d.Type}
		c.calls[d.Index] = so
	case d.ID != "" && d.ID != so.id:
		return fmt.Errorf("the id is %q, and was %q", d.ID, so.id)
	case name != "":
		return fmt.Errorf("the name %q comes after the first delta, and clients append it", name)
	}
	so.arguments += d.Function.Arguments
	return nil
}

// end is what must hold when nothing more comes.
func (f *follower) end() error {
	for _, index := range slices.Sorted(maps.Keys(f.choices)) {
		c := f.choices[index]
		if c.finish == "" {
			return fmt.Errorf("choice %d has no finish_reason", index)
		}
		for _, n := range slices.Sorted(maps.Keys(c.calls)) {
			call := c.calls[n]
			cut := c.finish == "length" || c.finish == "content_filter"
			if call.kind == "function" && !cut && !json.Valid([]byte(call.arguments)) {
				return fmt.Errorf("choice %d: tool call %d: the arguments %.80q are not JSON", index, n, call.arguments)
			}
		}
	}
	if len(f.choices) == 0 {
		return errors.New("there are no choices")
	}
	return nil
}
