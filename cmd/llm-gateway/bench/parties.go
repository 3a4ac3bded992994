package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/gin-gonic/gin"

	"llm-gateway/gateway/provider"
)

// idleConnections is how many connections the proxy keeps to its upstream: as many as clients.
const idleConnections = maxConnections

// Upstream serves the simulated provider until ctx ends; its address is written to out, once it
// listens.
func Upstream(ctx context.Context, out io.Writer) error {
	return serve(ctx, out, provider.Handler(provider.NewSimulated()))
}

// Proxy serves a bare gin reverse proxy before target until ctx ends: what an application would
// write in ten lines, without accounts, checks or money.
func Proxy(ctx context.Context, out io.Writer, target string) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(u) },
		FlushInterval: -1, // as the gateway does: every chunk at once
		Transport:     &http.Transport{MaxIdleConnsPerHost: idleConnections, DisableCompression: true},
	}
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.POST("/v1/*path", func(c *gin.Context) {
		// A ReverseProxy that still asks for the body's end when the upstream answers breaks the
		// answer off, now and then: the server has closed the body by then. A body in memory has no
		// such race, and costs as good as nothing.
		body, err := io.ReadAll(c.Request.Body)
		if err != nil {
			return
		}
		c.Request.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(c.Writer, c.Request)
	})
	return serve(ctx, out, engine)
}

func serve(ctx context.Context, out io.Writer, h http.Handler) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "http://%s\n", listener.Addr())
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() }) //nolint:errcheck // the run is over
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
