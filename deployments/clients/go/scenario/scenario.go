// Package scenario is what the programs share that put a client of a provider's API to use: the gateway's
// address and tokens, the model of each provider, and the count of what was answered. A program runs a list
// of scenarios with every provider's model, and ends at the first that fails.
package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
)

// Pixel is a picture, a PNG of one pixel, in base64.
const Pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

// Model is a provider's model, and the prompts by which its replaying stand-in fails.
type Model struct {
	Provider, Name string
	Fault          string // is refused, with 429
	Slow           string // is answered by a stream that takes its time
}

// Scenario is one way to use the client. It fails by Want or Must.
type Scenario struct {
	Name      string
	Providers []string // whose models it is for; none: everybody's
	Play      func(m Model)
}

// What the surroundings say.
var (
	Gateway = setting("GATEWAY_URL")
	Token   = setting("TOKEN")
	Expired = setting("EXPIRED_TOKEN") // a token that was valid once
)

func setting(name string) string {
	value := os.Getenv(name)
	if value == "" {
		fmt.Fprintln(os.Stderr, name, "is not set")
		os.Exit(1)
	}
	return value
}

// prompts pick recorded answers of the replaying server.
var prompts = map[string]Model{
	"openai":    {Fault: "cas:oa-chat-basic-1;fault=429", Slow: slow("oas-chat-usage-1")},
	"anthropic": {Fault: "cas:an-basic-2;fault=429", Slow: slow("ans-cache")},
	"gemini":    {Fault: "cas:ge-basic-1;fault=429", Slow: slow("ges-image")},
}

// slow asks for a recorded stream in a prompt that is as long as the recorded one was. The server's log tells by
// its nonce that it was to be aborted.
func slow(recording string) string {
	return strings.Repeat("word ", 1500) + "cas:" + recording + ";d=250;n=abort"
}

// called is a path that asks a model. Counting tokens costs nothing, and does not.
var called = regexp.MustCompile(`/(chat/completions|completions|embeddings|responses|messages)$`)

// Counted is an HTTP client that counts the calls of models that were answered; a stream is as soon as it begins.
type Counted struct{ calls atomic.Int64 }

// Do implements the clients' HTTPClient.
func (c *Counted) Do(r *http.Request) (*http.Response, error) {
	response, err := http.DefaultClient.Do(r)
	if err == nil && response.StatusCode == http.StatusOK && called.MatchString(r.URL.Path) {
		c.calls.Add(1)
	}
	return response, err
}

// failure is how a scenario ends early.
type failure struct{ error }

// Want fails a scenario where something is not as it should be.
func Want(holds bool, format string, args ...any) {
	if !holds {
		panic(failure{fmt.Errorf(format, args...)})
	}
}

// Must fails a scenario at an error.
func Must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// Refused is the error of the client's own type that a call must have ended with.
func Refused[E error](err error) (kind E) {
	Want(errors.As(err, &kind), "%T %v instead of %T", err, err, kind)
	return kind
}

// Decoded reads JSON.
func Decoded[T any](text string) (v T) {
	Must(json.Unmarshal([]byte(text), &v))
	return v
}

// Run runs all scenarios with all models, says so, and exits where one fails.
func Run(client string, calls *Counted, scenarios []Scenario) {
	models := Decoded[map[string]string](setting("MODELS"))
	for _, provider := range slices.Sorted(maps.Keys(models)) {
		m := prompts[provider]
		m.Provider, m.Name = provider, models[provider]
		for _, s := range scenarios {
			if s.Providers != nil && !slices.Contains(s.Providers, provider) {
				continue
			}
			if err := play(s, m); err != nil {
				fmt.Fprintf(os.Stderr, "failed %s %s %s: %v\n", client, provider, s.Name, err)
				os.Exit(1)
			}
			fmt.Println("ok", client, provider, s.Name)
		}
	}
	fmt.Println("calls", calls.calls.Load())
}

func play(s Scenario, m Model) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.error
		default:
			panic(r)
		}
	}()
	s.Play(m)
	return nil
}
