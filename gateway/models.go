package gateway

import (
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"llm-gateway/domain"
)

// launchDay stands for the unknown day on which a model came out: 2024-01-01, in Unix seconds.
const launchDay = 1704067200

// modelEntry is one model in OpenAI's form, with the fields that older clients look for.
type modelEntry struct {
	ID         string   `json:"id"`
	Object     string   `json:"object"`
	Created    int64    `json:"created"`
	OwnedBy    string   `json:"owned_by"`
	Permission []string `json:"permission"`
	Root       string   `json:"root"`
	Parent     *string  `json:"parent"`
}

// entryOf is a model under a name that it goes by.
func entryOf(name string, m *domain.Model) modelEntry {
	return modelEntry{ID: name, Object: "model", Created: launchDay, OwnedBy: m.Provider, Permission: []string{}, Root: m.Name}
}

// callable are the models that can be called now, by name, and the aliases after them.
func (g *Gateway) callable() (out []modelEntry, models map[string]*domain.Model) {
	catalog, now := g.catalog(), g.now()
	models = map[string]*domain.Model{}
	add := func(name string, m *domain.Model) {
		if models[name] == nil { // the same model of another provider is no other model
			models[name], out = m, append(out, entryOf(name, m))
		}
	}
	for _, m := range catalog.Prices.Models() {
		if _, err := catalog.target(anyDoor, m, now); err == nil {
			add(m.Name, m)
		}
	}
	for _, alias := range slices.Sorted(maps.Keys(catalog.Routing.Aliases)) {
		if targets, err := catalog.serving(anyDoor, catalog.Routing.Aliases[alias], now, rand.New(rand.NewPCG(0, 0))); err == nil { //nolint:gosec // the order does not matter
			add(alias, targets[0].model)
		}
	}
	return out, models
}

// models is GET /v1/models and /v1beta/models: what can be called now, in the form of the client's API.
func (g *Gateway) models(c *gin.Context) error {
	entries, models := g.callable()
	format := c.Query("format")
	switch {
	case format != "" && format != "openai" && format != "array":
		return invalid("invalid_value", "format", "`format` must be openai or array.")
	case format == "" && doorOf(c) == generateDoor:
		c.JSON(http.StatusOK, gin.H{"models": googleEntries(entries, models)})
	case format == "" && doorOf(c) == messagesDoor:
		c.JSON(http.StatusOK, anthropicModels(entries))
	case format == "array" || format == "" && g.modelsArray:
		c.JSON(http.StatusOK, append([]modelEntry{}, entries...))
	default:
		c.JSON(http.StatusOK, gin.H{"object": "list", "data": append([]modelEntry{}, entries...)})
	}
	return nil
}

// named finds the model that a path names, by any of its names.
func (g *Gateway) named(c *gin.Context) (string, *domain.Model, error) {
	name, err := url.PathUnescape(strings.TrimPrefix(c.Param("id"), "/"))
	if err != nil {
		return "", nil, unknownURL(c)
	}
	_, models := g.callable()
	if m := models[name]; m != nil {
		return name, m, nil
	}
	catalog := g.catalog()
	for _, m := range catalog.Prices.Named(name) { // provider/model
		if _, err := catalog.target(anyDoor, m, g.now()); err == nil {
			return name, m, nil
		}
	}
	return "", nil, modelUnknown(name)
}

// model is GET /v1/models/{id} and /v1beta/models/{id}.
func (g *Gateway) model(c *gin.Context) error {
	name, m, err := g.named(c)
	if err != nil {
		return err
	}
	switch doorOf(c) {
	case generateDoor:
		c.JSON(http.StatusOK, googleEntryOf(name, m))
	case messagesDoor:
		c.JSON(http.StatusOK, anthropicModelOf(entryOf(name, m)))
	default:
		c.JSON(http.StatusOK, entryOf(name, m))
	}
	return nil
}

// anthropicModel is one model in Anthropic's form.
type anthropicModel struct {
	Type        string `json:"type"`
	ID          string `json:"id"`
	DisplayName string `json:"display_name"`
	CreatedAt   string `json:"created_at"`
}

func anthropicModelOf(e modelEntry) anthropicModel {
	return anthropicModel{"model", e.ID, e.ID, time.Unix(e.Created, 0).UTC().Format(time.RFC3339)}
}

func anthropicModels(entries []modelEntry) gin.H {
	data := []anthropicModel{}
	for _, e := range entries {
		data = append(data, anthropicModelOf(e))
	}
	out := gin.H{"data": data, "has_more": false, "first_id": nil, "last_id": nil}
	if len(data) > 0 {
		out["first_id"], out["last_id"] = data[0].ID, data[len(data)-1].ID
	}
	return out
}

// googleEntry is one model in Google's form.
type googleEntry struct {
	Name        string   `json:"name"`
	Version     string   `json:"version"`
	DisplayName string   `json:"displayName"`
	InputLimit  int64    `json:"inputTokenLimit"`
	OutputLimit int64    `json:"outputTokenLimit"`
	Methods     []string `json:"supportedGenerationMethods"`
}

func googleEntryOf(name string, m *domain.Model) googleEntry {
	methods := []string{"generateContent", "streamGenerateContent", "countTokens"}
	if m.Mode == domain.ModeEmbedding {
		methods = []string{"embedContent", methodBatchEmbed}
	}
	return googleEntry{"models/" + name, "001", name, m.Context, m.OutputLimit(), methods}
}

func googleEntries(entries []modelEntry, models map[string]*domain.Model) []googleEntry {
	out := []googleEntry{}
	for _, e := range entries {
		if m := models[e.ID]; generateDoor.serves(m) || embedDoor.serves(m) {
			out = append(out, googleEntryOf(e.ID, m))
		}
	}
	return out
}
