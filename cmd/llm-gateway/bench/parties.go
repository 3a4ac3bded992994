package bench

import (
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
	engine.POST("/v1/*path", gin.WrapH(proxy))
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
