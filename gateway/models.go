package gateway

import (
	"net/http"

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

// models is GET /v1/models: what can be called now.
func (g *Gateway) models(c *gin.Context) error {
	entries := []modelEntry{}
	book, now := g.prices(), g.now()
	for _, m := range book.Models() {
		if g.providers[m.Provider] == nil || m.Mode != domain.ModeChat || m.ResponsesOnly {
			continue
		}
		if _, _, err := book.Lookup(m.Name, now); err != nil {
			continue
		}
		entries = append(entries, modelEntry{ID: m.Name, Object: "model", Created: launchDay, OwnedBy: m.Provider,
			Permission: []string{}, Root: m.Name})
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
