package gateway

import "llm-gateway/gateway/provider/chat"

// ChatFacts is what is read of a chat completion, for the tests beside this package.
func ChatFacts(body []byte) (*chat.Facts, error) {
	f, failed := parseChat(body)
	if failed != nil {
		return nil, failed
	}
	return f, nil
}

// GenerateLimit is where a request of Google's limits its output.
var GenerateLimit = generateLimit
