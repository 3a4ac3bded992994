package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"llm-gateway/gateway"
)

// recordPause is how long after a change of prices that could not be recorded it is tried again.
const recordPause = 10 * time.Second

// onHangup opens the log again and reads the price book and the upstreams again at SIGHUP, and records what prices are in force where
// that could not be done at once, until the function it returns is called.
func onHangup(catalog *catalogFile, prices *priceRecorder, log *logs) (stop func()) {
	hangups, ended := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangups, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(ended)
		followHangups(ctx, hangups, catalog, prices, log)
	}()
	return func() {
		signal.Stop(hangups)
		cancel()
		<-ended
	}
}

func followHangups(ctx context.Context, hangups <-chan os.Signal, catalog *catalogFile, prices *priceRecorder, log *logs) {
	again := time.NewTicker(recordPause)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			if err := log.reopen(); err != nil {
				log.Error("LOG_FILE was not opened again; the one that was open stays", "error", err)
			}
			rereadCatalog(ctx, catalog, prices, log.Logger)
		case <-again.C:
			if prices.owes() {
				prices.save(ctx, catalog.now(), "start or SIGHUP, while the ledger did not answer")
			}
		}
	}
}

func rereadCatalog(ctx context.Context, catalog *catalogFile, prices *priceRecorder, log *slog.Logger) {
	before := catalog.now()
	err := catalog.reload(func(next *gateway.Catalog) error { return prices.accepts(ctx, before, next) })
	if err != nil {
		log.Error("the price book, the sell book and the upstreams were not read again; those in force stay", "error", err)
		return
	}
	log.Info("the price book, the sell book and the upstreams were read again")
	prices.save(ctx, catalog.now(), "SIGHUP")
}
