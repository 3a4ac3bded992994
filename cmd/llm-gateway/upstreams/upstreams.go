package upstreams

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"llm-gateway/cmd/llm-gateway/secret"
	"llm-gateway/domain"
)

// Bounds of the file. They are far above any real one.
const (
	maxFile        = 2 << 20 // bytes
	maxUpstreams   = 100
	maxKeys        = 64   // of one upstream
	maxModels      = 2000 // of one upstream
	maxAliases     = 2000 // of the file
	maxFallbacks   = 2000 // lists, of the file
	maxTries       = 8    // models of one list
	maxHeaders     = 32   // of one upstream
	maxHeaderValue = 1024 // bytes
	maxWeight      = 1000 // of an upstream or a key
	maxName        = 64   // bytes of an upstream's name
	maxModelName   = 128  // bytes of a model's or alias's name
	maxUpstreamID  = 256  // bytes of what an upstream calls a model
	maxURL         = 1024 // bytes
	maxKeyBytes    = 4096 // bytes of a key
	maxTimeout     = 24 * time.Hour
)

// The types of upstreams: whose API one speaks.
const (
	TypeOpenAI    = "openai"
	TypeAzure     = "azure"
	TypeAnthropic = "anthropic"
	TypeGemini    = "gemini"
)

// What limits the output at an upstream.
const (
	LimitAsIs                = "as_is"                 // whatever the client sent
	LimitMaxTokens           = "max_tokens"            // max_tokens, whichever the client sent
	LimitMaxCompletionTokens = "max_completion_tokens" // max_completion_tokens, whichever the client sent
)

// DefaultAzureVersion is the api-version of Azure where none is written.
const DefaultAzureVersion = "2024-10-21"

// File is what the file says. It holds secrets, which are not printed.
type File struct {
	Upstreams []Upstream          // in the file's order; names are unique
	Aliases   map[string]string   // a name -> the model, or provider/model, that it stands for
	Fallbacks map[string][]string // a model, provider/model or alias -> what is tried next, in order

	lines map[string]int // where an alias or a list of fallbacks stands, by place and name
}

// Upstream is one provider.
type Upstream struct {
	Name       string // in events, in statistics, and before the slash of provider/model
	Type       string // one of the types above
	BaseURL    string // http or https, without a slash at its end; "": the built-in provider's
	APIVersion string // Azure's api-version; "" for others
	Keys       []Key  // none: the built-in provider's setting, or an upstream without credentials
	// OutputLimit is one of the limits above.
	OutputLimit string
	// Weight is the share of the requests for a model that several upstreams have; 0: only after the
	// others failed.
	Weight  int
	Headers http.Header // sent along; never credentials
	// Connect bounds the way to a connection, FirstByte the time from the call to the answer's headers, Idle that
	// in which a body brings nothing, Total that of the whole call. 0: what the settings say.
	Connect, FirstByte, Idle, Total time.Duration
	Models                          []domain.Model // with prices as listed, which is how domain.NewPriceBook takes them; none: a built-in provider's, as the price book has them
}

// Key is one of an upstream's credentials; Weight is as of Upstream.
type Key struct {
	Secret secret.Text
	Weight int
}

// Options are what the file is read with.
type Options struct {
	Currency string                   // of the price book: the file's prices are in it
	Getenv   func(name string) string // finds what api_key_env names; nil: os.Getenv
}

// Load reads the file and the keys that it points to. Errors begin with "upstreams: ", name the line
// where there is one, and show no secret. What the names in the file lead to is for Check.
func Load(path string, o Options) (*File, error) {
	f, err := load(path, o)
	if err != nil {
		return nil, fmt.Errorf("upstreams: %w", err)
	}
	return f, nil
}

func load(path string, o Options) (*File, error) {
	opened, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer opened.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(opened, maxFile+1))
	if err != nil {
		return nil, err
	}
	var form fileForm
	if err := decode(text, &form); err != nil {
		return nil, err
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	return form.convert(&reader{dir: filepath.Dir(path), getenv: o.Getenv}, o.Currency)
}

// Models is the book's models with the file's: a provider that lists models of its own has these, and
// no longer the book's. It is what Check judges names by.
func (f *File) Models(book []*domain.Model) []*domain.Model {
	own := map[string]bool{}
	for i := range f.Upstreams {
		own[f.Upstreams[i].Name] = len(f.Upstreams[i].Models) > 0
	}
	var all []*domain.Model
	for _, m := range book {
		if !own[m.Provider] {
			all = append(all, m)
		}
	}
	for i := range f.Upstreams {
		for j := range f.Upstreams[i].Models {
			all = append(all, &f.Upstreams[i].Models[j])
		}
	}
	return all
}
