package provider

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/tidwall/gjson"
)

// maxHandlerBody bounds a request's body at Handler, in bytes.
const maxHandlerBody = 32 << 20

// Handler serves a provider as an OpenAI-compatible upstream: POST /v1/chat/completions. It is
// what benches and tests put behind the gateway, so it does no more than pass on: no
// authentication, and one write per chunk as real upstreams do. A cut stream breaks the connection.
func Handler(p Provider) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHandlerBody))
		if err != nil || !json.Valid(body) || !gjson.ParseBytes(body).IsObject() {
			writeError(w, statusError(p.Name(), http.StatusBadRequest, "",
				errorJSON("The body is not a JSON object of bounded size.", "invalid_request_error")))
			return
		}
		call := Request{Model: gjson.GetBytes(body, "model").Str, Body: body, Header: r.Header}
		if gjson.GetBytes(body, "stream").Bool() {
			serveStream(w, r, p, call)
			return
		}
		completion, err := p.Complete(r.Context(), call)
		if err != nil {
			writeError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(completion.Body) // a client that has gone needs no answer
	})
	return mux
}

func serveStream(w http.ResponseWriter, r *http.Request, p Provider, call Request) {
	stream, err := p.Stream(r.Context(), call)
	if err != nil {
		writeError(w, err)
		return
	}
	defer func() { _ = stream.Close() }()
	w.Header().Set("Content-Type", "text/event-stream")
	flusher := http.NewResponseController(w)
	var frame []byte
	for {
		chunk, err := stream.Next()
		data := chunk.Data
		if err != nil {
			data = lastEvent(err)
		}
		if data == nil {
			_ = flusher.Flush() // the headers at least, before the connection breaks
			panic(http.ErrAbortHandler)
		}
		frame = append(append(append(frame[:0], "data: "...), data...), "\n\n"...)
		if _, writeErr := w.Write(frame); writeErr != nil || err != nil {
			return
		}
		if flusher.Flush() != nil {
			return
		}
	}
}

// lastEvent is the data with which a stream ends: [DONE], an error event, or nil for a cut.
func lastEvent(err error) []byte {
	if err == io.EOF {
		return doneData
	}
	e := &Error{}
	if errors.As(err, &e) {
		return e.Body
	}
	return nil
}

// writeError answers with a provider's error. A caller who has gone gets nothing.
func writeError(w http.ResponseWriter, err error) {
	e := &Error{}
	ok := errors.As(err, &e)
	if !ok || e.Kind == KindCanceled {
		panic(http.ErrAbortHandler)
	}
	status := e.Status
	if status < http.StatusBadRequest {
		status = http.StatusBadGateway
	}
	if e.RetryAfter != "" {
		w.Header().Set("Retry-After", e.RetryAfter)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(e.Body) // a client that has gone needs no answer
}
