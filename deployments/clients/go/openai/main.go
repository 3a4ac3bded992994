// Command openai puts OpenAI's client for Go to use with the models of all providers.
package main

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
	"github.com/openai/openai-go/v3/shared"

	"llm-gateway-clients/scenario"
)

var (
	calls  scenario.Counted
	client = connect(scenario.Token)
)

func connect(key string) openai.Client {
	return openai.NewClient(option.WithBaseURL(scenario.Gateway+"/v1"), option.WithAPIKey(key),
		option.WithMaxRetries(0), option.WithHTTPClient(&calls))
}

func main() {
	scenario.Run("openai-go", &calls, []scenario.Scenario{
		{Name: "text", Play: text},
		{Name: "stream", Play: stream},
		{Name: "tools", Play: tools},
		{Name: "tool stream", Play: toolStream},
		{Name: "structured", Play: structured},
		{Name: "image", Play: image},
		{Name: "responses", Play: response},
		{Name: "responses stream", Play: responseStream},
		{Name: "embeddings", Providers: []string{"openai", "gemini"}, Play: embeddings},
		{Name: "models", Play: models},
		{Name: "error", Play: refusals},
		{Name: "abort", Play: abort},
		{Name: "refresh", Play: refresh},
	})
}

func ask(m scenario.Model, prompt string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: m.Name, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)}}
}

func text(m scenario.Model) {
	answer, err := client.Chat.Completions.New(context.Background(), ask(m, "Say hello to Ada"))
	scenario.Must(err)
	said := answer.Choices[0]
	scenario.Want(strings.Contains(said.Message.Content, "hello to Ada") && said.FinishReason == "stop", "%s", answer.RawJSON())
	u := answer.Usage
	scenario.Want(u.PromptTokens > 0 && u.CompletionTokens > 0 && u.TotalTokens == u.PromptTokens+u.CompletionTokens, "usage %s", u.RawJSON())
}

// accumulated reads a stream to its end.
func accumulated(params openai.ChatCompletionNewParams) (acc openai.ChatCompletionAccumulator) {
	params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	running := client.Chat.Completions.NewStreaming(context.Background(), params)
	defer running.Close()
	for running.Next() {
		scenario.Want(acc.AddChunk(running.Current()), "a chunk does not fit: %s", running.Current().RawJSON())
	}
	scenario.Must(running.Err())
	return acc
}

func stream(m scenario.Model) {
	acc := accumulated(ask(m, "Say hello to Ada"))
	said := acc.Choices[0]
	scenario.Want(strings.Contains(said.Message.Content, "hello to Ada") && said.FinishReason == "stop", "%+v", said)
	scenario.Want(acc.Usage.TotalTokens > 0, "the stream had no usage")
}

var weather = shared.FunctionDefinitionParam{Name: "get_weather", Description: openai.String("The weather in a city."),
	Parameters: shared.FunctionParameters{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}},
		"required": []string{"city"}, "additionalProperties": false}}

func withTools(m scenario.Model) openai.ChatCompletionNewParams {
	params := ask(m, "What is the weather in 'Oslo'?")
	params.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(weather)}
	return params
}

// calledOslo is the id of the one call that there must be.
func calledOslo(choice openai.ChatCompletionChoice) string {
	scenario.Want(choice.FinishReason == "tool_calls" && len(choice.Message.ToolCalls) == 1, "%+v", choice)
	call := choice.Message.ToolCalls[0]
	args := scenario.Decoded[map[string]string](call.Function.Arguments)
	scenario.Want(call.Function.Name == "get_weather" && args["city"] == "Oslo", "called %s with %s", call.Function.Name, call.Function.Arguments)
	return call.ID
}

func tools(m scenario.Model) {
	params := withTools(m)
	first, err := client.Chat.Completions.New(context.Background(), params)
	scenario.Must(err)
	finish(params, first.Choices[0])
}

func toolStream(m scenario.Model) {
	params := withTools(m)
	acc := accumulated(params)
	finish(params, acc.Choices[0])
}

// finish sends a tool's result back.
func finish(params openai.ChatCompletionNewParams, choice openai.ChatCompletionChoice) {
	id := calledOslo(choice)
	params.Messages = append(params.Messages, choice.Message.ToParam(), openai.ToolMessage("sunny, 21 degrees", id))
	second, err := client.Chat.Completions.New(context.Background(), params)
	scenario.Must(err)
	scenario.Want(strings.Contains(second.Choices[0].Message.Content, "sunny, 21 degrees"), "%s", second.RawJSON())
}

type city struct {
	City       string `json:"city"`
	Population int    `json:"population"`
}

func structured(m scenario.Model) {
	reflector := jsonschema.Reflector{DoNotReference: true}
	params := ask(m, "How many live in 'Oslo'? 700000")
	params.ResponseFormat = openai.ChatCompletionNewParamsResponseFormatUnion{OfJSONSchema: &shared.ResponseFormatJSONSchemaParam{
		JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{Name: "city", Strict: openai.Bool(true), Schema: reflector.Reflect(city{})}}}
	answer, err := client.Chat.Completions.New(context.Background(), params)
	scenario.Must(err)
	got := scenario.Decoded[city](answer.Choices[0].Message.Content)
	scenario.Want(got == city{"Oslo", 700000}, "%+v", got)
}

func image(m scenario.Model) {
	params := ask(m, "")
	params.Messages = []openai.ChatCompletionMessageParamUnion{openai.UserMessage([]openai.ChatCompletionContentPartUnionParam{
		openai.TextContentPart("Describe the pixel"),
		openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: "data:image/png;base64," + scenario.Pixel})})}
	answer, err := client.Chat.Completions.New(context.Background(), params)
	scenario.Must(err)
	scenario.Want(strings.Contains(answer.Choices[0].Message.Content, "Describe the pixel"), "%s", answer.RawJSON())
}

// response is Responses; OpenAI's own answers are recorded ones.
func response(m scenario.Model) {
	prompt := "What is the weather in 'Oslo'?"
	if m.Provider == "openai" {
		prompt = "cas:flow-oaresp-tool " + prompt
	}
	input := responses.ResponseInputParam{responses.ResponseInputItemParamOfMessage(prompt, responses.EasyInputMessageRoleUser)}
	params := responses.ResponseNewParams{Model: m.Name, Tools: []responses.ToolUnionParam{responses.ToolParamOfFunction("get_weather", weather.Parameters, true)},
		Input: responses.ResponseNewParamsInputUnion{OfInputItemList: input}}
	first, err := client.Responses.New(context.Background(), params)
	scenario.Must(err)
	at := slices.IndexFunc(first.Output, func(o responses.ResponseOutputItemUnion) bool { return o.Type == "function_call" })
	scenario.Want(at >= 0 && first.Status == "completed" && first.Usage.TotalTokens > 0, "%s", first.RawJSON())
	call := first.Output[at].AsFunctionCall()
	result := responses.ResponseInputItemParamOfFunctionCallOutput("sunny, 40 degrees")
	result.OfFunctionCallOutput.CallID = openai.String(call.CallID)
	params.Input.OfInputItemList = append(input, responses.ResponseInputItemParamOfFunctionCall(call.Arguments, call.CallID, call.Name), result)
	second, err := client.Responses.New(context.Background(), params)
	scenario.Must(err)
	scenario.Want(strings.Contains(second.OutputText(), "40"), "%s", second.RawJSON())
}

func responseStream(m scenario.Model) {
	prompt := "Say nine to Ada"
	if m.Provider == "openai" {
		prompt = "cas:oas-resp-2"
	}
	running := client.Responses.NewStreaming(context.Background(), responses.ResponseNewParams{Model: m.Name,
		Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(prompt)}})
	defer running.Close()
	var deltas strings.Builder
	var last responses.Response
	for running.Next() {
		switch event := running.Current().AsAny().(type) {
		case responses.ResponseTextDeltaEvent:
			deltas.WriteString(event.Delta)
		case responses.ResponseCompletedEvent:
			last = event.Response
		}
	}
	scenario.Must(running.Err())
	scenario.Want(strings.Contains(deltas.String(), "nine") && last.OutputText() == deltas.String(), "streamed %q, at the end %q", deltas.String(), last.OutputText())
	scenario.Want(last.Usage.TotalTokens > 0, "the stream had no usage")
}

func embeddings(m scenario.Model) {
	asked := map[string][2]string{"openai": {"text-embedding-3-small", "cas:oa-emb-3"}, "gemini": {"gemini-embedding-001", "cas:ge-emb"}}[m.Provider]
	answer, err := client.Embeddings.New(context.Background(), openai.EmbeddingNewParams{Model: asked[0],
		Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String(asked[1])}})
	scenario.Must(err)
	scenario.Want(len(answer.Data) == 1 && len(answer.Data[0].Embedding) > 100, "%.200s", answer.RawJSON())
}

func models(m scenario.Model) {
	found := false
	list := client.Models.ListAutoPaging(context.Background())
	for list.Next() {
		found = found || list.Current().ID == m.Name
	}
	scenario.Must(list.Err())
	one, err := client.Models.Get(context.Background(), m.Name)
	scenario.Must(err)
	scenario.Want(found && one.ID == m.Name, "listed: %v; by name: %s", found, one.RawJSON())
}

func refusals(m scenario.Model) {
	unknown := m
	unknown.Name = "no-such-model"
	_, err := client.Chat.Completions.New(context.Background(), ask(unknown, "hi"))
	refused := scenario.Refused[*openai.Error](err)
	scenario.Want(refused.StatusCode == http.StatusNotFound && refused.Code == "model_not_found", "%s", refused.RawJSON())
	_, err = client.Chat.Completions.New(context.Background(), ask(m, m.Fault))
	refused = scenario.Refused[*openai.Error](err)
	scenario.Want(refused.StatusCode == http.StatusTooManyRequests, "%d %s", refused.StatusCode, refused.RawJSON())
	running := client.Chat.Completions.NewStreaming(context.Background(), ask(m, m.Fault))
	scenario.Want(!running.Next(), "a stream in spite of a refusal")
	scenario.Want(scenario.Refused[*openai.Error](running.Err()).StatusCode == http.StatusTooManyRequests, "%v", running.Err())
}

func abort(m scenario.Model) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	running := client.Chat.Completions.NewStreaming(ctx, ask(m, m.Slow))
	defer running.Close()
	read := 0
	for running.Next() {
		if c := running.Current().Choices; len(c) > 0 && c[0].Delta.Content != "" {
			read++
			cancel()
		}
	}
	scenario.Want(read >= 1 && ctx.Err() != nil && running.Err() != nil, "read %d, then %v", read, running.Err())
}

func refresh(m scenario.Model) {
	late := connect(scenario.Expired)
	_, err := late.Chat.Completions.New(context.Background(), ask(m, "Say hello to Ada"))
	refused := scenario.Refused[*openai.Error](err)
	scenario.Want(refused.StatusCode == http.StatusUnauthorized && refused.Code == "token_expired", "%d %s", refused.StatusCode, refused.RawJSON())
	// A key can be given with each request.
	answer, err := late.Chat.Completions.New(context.Background(), ask(m, "Say hello to Ada"), option.WithAPIKey(scenario.Token))
	scenario.Must(err)
	scenario.Want(strings.Contains(answer.Choices[0].Message.Content, "hello to Ada"), "%s", answer.RawJSON())
}
