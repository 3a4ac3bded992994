package responses

import (
	"strings"

	"github.com/tidwall/gjson"
)

// toolList reads the tools that the model may call.
func (m *meter) toolList(param string, v gjson.Result) {
	m.Objects(param, v, func(param string, tool gjson.Result) {
		if kind := m.TextOrNull(param+".type", tool.Get("type")); kind != "namespace" {
			m.tool(param, kind, tool)
			return
		}
		m.f.InputBytes += toolTokens
		m.Objects(param+".tools", tool.Get("tools"), func(param string, tool gjson.Result) {
			kind := m.TextOrNull(param+".type", tool.Get("type"))
			if kind != "function" && kind != "custom" {
				m.Failf(param+".type", "A namespace holds functions and custom tools only.")
			}
			m.tool(param, kind, tool)
		})
	})
}

// tool reads one tool. The prompts of OpenAI's own tools are longer than their JSON.
func (m *meter) tool(param, kind string, tool gjson.Result) {
	switch {
	case kind == "function" || kind == "custom":
		m.f.InputBytes += toolTokens
	case isWebSearch(kind):
		m.runs, m.f.WebSearch = true, true
	case kind == "tool_search":
		m.runs = m.runs || tool.Get("execution").Str != "client"
		m.f.Opaque = true
	case kind == "shell" && hosted(tool.Get("environment")):
		m.Refusef(param+".environment", "`%s.environment` cannot be metered: only a local shell, which the client runs, can.", param)
	case kind == "local_shell", kind == "shell", kind == "apply_patch", kind == "computer_use_preview", kind == "computer":
		m.f.Opaque = true
	case kind == "":
		m.Failf(param+".type", "`%s.type` is missing.", param)
	default:
		m.Refusef(param+".type", "The tool `%.64s` cannot be metered: it bills by what no usage tells.", kind)
	}
}

func isWebSearch(kind string) bool {
	return kind == "web_search" || kind == "web_search_preview" ||
		strings.HasPrefix(kind, "web_search_20") || strings.HasPrefix(kind, "web_search_preview_20")
}

// hosted says whether a shell runs at OpenAI, in a container that is billed by itself.
func hosted(environment gjson.Result) bool {
	return environment.Type != gjson.Null && environment.Get("type").Str != "local"
}
