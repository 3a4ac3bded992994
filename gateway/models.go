package gateway

import (
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"

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

// models is GET /v1/models: what can be called now.
func (g *Gateway) models(c *gin.Context) error {
	entries := []modelEntry{}
	catalog, now := g.catalog(), g.now()
	for _, m := range catalog.Prices.Models() {
		if _, err := catalog.target(m, now); err != nil || len(entries) > 0 && entries[len(entries)-1].ID == m.Name {
			continue // the same model of another provider is no other model
		}
		entries = append(entries, entryOf(m.Name, m))
	}
	for _, alias := range slices.Sorted(maps.Keys(catalog.Routing.Aliases)) {
		if targets, err := catalog.serving(catalog.Routing.Aliases[alias], now, rand.New(rand.NewPCG(0, 0))); err == nil { //nolint:gosec // the order does not matter
			entries = append(entries, entryOf(alias, targets[0].model))
		}
	}
	format := c.Query("format")
	if format == "array" || format == "" && g.modelsArray {
		c.JSON(http.StatusOK, entries)
		return nil
	}
	if format != "" && format != "openai" {
		return invalid("invalid_value", "format", "`format` must be openai or array.")
	}
	c.JSON(http.StatusOK, gin.H{"object": "list", "data": entries})
	return nil
}
