// Command anthropic puts Anthropic's client for Go to use with the models of all providers.
package main

import (
	"context"
	"net/http"
	"strings"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
	"github.com/anthropics/anthropic-sdk-go/v2/toolrunner"

	"llm-gateway-clients/scenario"
)

var (
	calls  scenario.Counted
	client = connect(scenario.Token)
)

func connect(key string) anthropic.Client {
	return anthropic.NewClient(option.WithoutEnvironmentDefaults(), option.WithBaseURL(scenario.Gateway), option.WithAPIKey(key),
		option.WithMaxRetries(0), option.WithHTTPClient(&calls))
}

func main() {
	elsewhere := []string{"openai", "gemini"} // of Anthropic's own count there is no recorded answer
	scenario.Run("anthropic-go", &calls, []scenario.Scenario{
		{Name: "text", Play: text},
		{Name: "stream", Play: stream},
		{Name: "tools", Play: tools},
		{Name: "tool stream", Play: toolStream},
		{Name: "tool runner", Play: toolRunner},
		{Name: "structured", Play: structured},
		{Name: "image", Play: image},
		{Name: "count tokens", Providers: elsewhere, Play: countTokens},
		{Name: "models", Play: models},
		{Name: "error", Play: refusals},
		{Name: "abort", Play: abort},
		{Name: "refresh", Play: refresh},
	})
}

func ask(m scenario.Model, prompt string) anthropic.MessageNewParams {
	return anthropic.MessageNewParams{Model: m.Name, MaxTokens: 500,
		Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(prompt))}}
}

func textOf(message *anthropic.Message) string {
	var text strings.Builder
	for _, block := range message.Content {
		if block.Type == "text" {
			text.WriteString(block.Text)
		}
	}
	return text.String()
}

// said wants a message that ended by itself and holds some words.
func said(message *anthropic.Message, words string) {
	scenario.Want(strings.Contains(textOf(message), words) && message.StopReason == anthropic.StopReasonEndTurn, "%s", message.RawJSON())
	scenario.Want(message.Usage.InputTokens > 0 && message.Usage.OutputTokens > 0, "usage %+v", message.Usage)
}

func text(m scenario.Model) {
	params := ask(m, "Say hello to Ada")
	params.System = []anthropic.TextBlockParam{{Text: "Be brief."}}
	message, err := client.Messages.New(context.Background(), params)
	scenario.Must(err)
	said(message, "hello to Ada")
}

// accumulated reads a stream to its end.
func accumulated(params anthropic.MessageNewParams) *anthropic.Message {
	running := client.Messages.NewStreaming(context.Background(), params)
	defer running.Close()
	var message anthropic.Message
	for running.Next() {
		scenario.Must(message.Accumulate(running.Current()))
	}
	scenario.Must(running.Err())
	return &message
}

func stream(m scenario.Model) { said(accumulated(ask(m, "Say hello to Ada")), "hello to Ada") }

func withTools(m scenario.Model) anthropic.MessageNewParams {
	params := ask(m, "What is the weather in 'Oslo'?")
	tool := anthropic.ToolUnionParamOfTool(anthropic.ToolInputSchemaParam{Required: []string{"city"},
		Properties: map[string]any{"city": map[string]any{"type": "string"}}}, "get_weather")
	tool.OfTool.Description = anthropic.String("The weather in a city.")
	params.Tools = []anthropic.ToolUnionParam{tool}
	return params
}

func tools(m scenario.Model) {
	params := withTools(m)
	first, err := client.Messages.New(context.Background(), params)
	scenario.Must(err)
	finish(params, first)
}

func toolStream(m scenario.Model) {
	params := withTools(m)
	finish(params, accumulated(params))
}

// finish sends a tool's result back.
func finish(params anthropic.MessageNewParams, first *anthropic.Message) {
	scenario.Want(first.StopReason == anthropic.StopReasonToolUse && len(first.Content) > 0, "%s", first.RawJSON())
	call := first.Content[len(first.Content)-1].AsToolUse()
	args := scenario.Decoded[map[string]string](string(call.Input))
	scenario.Want(call.Name == "get_weather" && args["city"] == "Oslo", "called %s with %s", call.Name, call.Input)
	params.Messages = append(params.Messages, first.ToParam(), anthropic.NewUserMessage(anthropic.NewToolResultBlock(call.ID, "sunny, 21 degrees", false)))
	second, err := client.Messages.New(context.Background(), params)
	scenario.Must(err)
	said(second, "sunny, 21 degrees")
}

type place struct {
	City string `json:"city" jsonschema:"required"`
}

// toolRunner calls the tool by itself. It asks for a thread, and goes on without where there is none.
func toolRunner(m scenario.Model) {
	var asked []string
	tool, err := toolrunner.NewBetaToolFromJSONSchema("get_weather", "The weather in a city.",
		func(_ context.Context, in place) (anthropic.BetaToolResultBlockParamContentUnion, error) {
			asked = append(asked, in.City)
			return anthropic.BetaToolResultBlockParamContentUnion{OfText: &anthropic.BetaTextBlockParam{Text: "sunny, 21 degrees"}}, nil
		})
	scenario.Must(err)
	runner := client.Beta.Messages.NewToolRunner([]anthropic.BetaTool{tool}, anthropic.BetaToolRunnerParams{MaxIterations: 4,
		BetaMessageNewParams: anthropic.BetaMessageNewParams{Model: m.Name, MaxTokens: 500,
			Messages: []anthropic.BetaMessageParam{anthropic.NewBetaUserMessage(anthropic.NewBetaTextBlock("What is the weather in 'Oslo'?"))}}})
	message, err := runner.RunToCompletion(context.Background())
	scenario.Must(err)
	scenario.Want(len(asked) == 1 && asked[0] == "Oslo", "called with %q", asked)
	scenario.Want(len(message.Content) > 0 && strings.Contains(message.Content[0].Text, "sunny, 21 degrees"), "%s", message.RawJSON())
}

type city struct {
	City       string `json:"city"`
	Population int    `json:"population"`
}

func structured(m scenario.Model) {
	var got city
	_, err := client.Beta.Messages.New(context.Background(), anthropic.BetaMessageNewParams{Model: m.Name, MaxTokens: 500,
		Messages:     []anthropic.BetaMessageParam{anthropic.NewBetaUserMessage(anthropic.NewBetaTextBlock("How many live in 'Oslo'? 700000"))},
		OutputConfig: anthropic.BetaOutputConfigParam{Format: anthropic.BetaJSONOutputFormatParam{Schema: &got}}})
	scenario.Must(err)
	scenario.Want(got == city{"Oslo", 700000}, "%+v", got)
}

func image(m scenario.Model) {
	params := ask(m, "Describe the pixel")
	params.Messages[0] = anthropic.NewUserMessage(anthropic.NewImageBlockBase64("image/png", scenario.Pixel), anthropic.NewTextBlock("Describe the pixel"))
	message, err := client.Messages.New(context.Background(), params)
	scenario.Must(err)
	said(message, "Describe the pixel")
}

func countTokens(m scenario.Model) {
	count := func(prompt string) int64 {
		n, err := client.Messages.CountTokens(context.Background(), anthropic.MessageCountTokensParams{Model: m.Name,
			Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(prompt))}})
		scenario.Must(err)
		return n.InputTokens
	}
	few, many := count("Say hello to Ada"), count(strings.Repeat("Say hello to Ada. ", 50))
	scenario.Want(few > 0 && many > few+100, "%d and %d tokens", few, many)
}

func models(m scenario.Model) {
	found := false
	list := client.Models.ListAutoPaging(context.Background(), anthropic.ModelListParams{})
	for list.Next() {
		found = found || list.Current().ID == m.Name
	}
	scenario.Must(list.Err())
	one, err := client.Models.Get(context.Background(), m.Name, anthropic.ModelGetParams{})
	scenario.Must(err)
	scenario.Want(found && one.ID == m.Name, "listed: %v; by name: %s", found, one.RawJSON())
}

func refusals(m scenario.Model) {
	unknown := m
	unknown.Name = "no-such-model"
	_, err := client.Messages.New(context.Background(), ask(unknown, "hi"))
	refused := scenario.Refused[*anthropic.Error](err)
	scenario.Want(refused.StatusCode == http.StatusNotFound && refused.Type() == "not_found_error" && refused.RequestID != "", "%s", refused.RawJSON())
	_, err = client.Messages.New(context.Background(), ask(m, m.Fault))
	refused = scenario.Refused[*anthropic.Error](err)
	scenario.Want(refused.StatusCode == http.StatusTooManyRequests && refused.Type() == "rate_limit_error", "%d %s", refused.StatusCode, refused.RawJSON())
}

func abort(m scenario.Model) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	running := client.Messages.NewStreaming(ctx, ask(m, m.Slow))
	defer running.Close()
	read := 0
	for running.Next() {
		if running.Current().Delta.Text != "" {
			read++
			cancel()
		}
	}
	scenario.Want(read >= 1 && ctx.Err() != nil && running.Err() != nil, "read %d, then %v", read, running.Err())
}

func refresh(m scenario.Model) {
	late := connect(scenario.Expired)
	_, err := late.Messages.New(context.Background(), ask(m, "Say hello to Ada"))
	refused := scenario.Refused[*anthropic.Error](err)
	scenario.Want(refused.StatusCode == http.StatusUnauthorized && refused.Type() == "authentication_error", "%d %s", refused.StatusCode, refused.RawJSON())
	// A key can be given with each request.
	message, err := late.Messages.New(context.Background(), ask(m, "Say hello to Ada"), option.WithAPIKey(scenario.Token))
	scenario.Must(err)
	said(message, "hello to Ada")
}
