# make run and make test are all the set-up there is, on a machine with Go.

BIN        := bin/llm-gateway
LINT       := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
VULNDB     ?= latest
FUZZTIME   ?= 50000x
TESTFLAGS  ?=
# So many packages, and tests of each, at once, on large machines, too: all share the 100 connections of one Postgres.
AT_ONCE    ?= 2

.DEFAULT_GOAL := build
.PHONY: run demo build test test-real test-real-sample check acceptance acceptance-real faults faults-real rebuild-million rebuild-million-real audit-million audit-million-real slow-streams telemetry-load hostile clients clients-go clients-raise vuln fuzz soak bench clean

run: build ## the gateway; it ends with make, however make ends
	exec $(BIN) serve --end-with-parent

demo: build ## in under a minute: requests, their events, balances rebuilt from events
	$(BIN) demo

build:
	go build -o $(BIN) ./cmd/llm-gateway

# The first run on a machine also fetches the official clients, which may take minutes.
test: build ## every test, on an embedded Postgres, Kafka and Redis
	$(BIN) embedded -- go test -timeout 40m -p $(AT_ONCE) -parallel $(AT_ONCE) $(TESTFLAGS) ./...

REAL := deployments/test-real/run --

SERVERS_KILLED := KILL_SERVERS=1 go test -count=1 -v -timeout 30m -run '^TestServersKilled$$' ./cmd/llm-gateway

test-real: build ## the same tests, on a real Postgres, Kafka and Redis; then these are killed
	$(REAL) go test -count=1 -timeout 40m -p $(AT_ONCE) -parallel $(AT_ONCE) $(TESTFLAGS) ./...
	$(REAL) env $(SERVERS_KILLED)

# What makes use of the servers, less what does not depend on whose they are: that was tried on the embedded ones.
SERVED := ./cmd/llm-gateway ./gateway/limit ./ledger/... ./migrations/... ./projections/...
ANY_SERVERS := ^Test(Clients.*|Telemetry.*|Sentry.*|Issuer.*|Isolation|Hostile|Alerts.*|OwnReplay.*|Embedded.*|EndsWithItsParent|SlowStreams|Backpressure|Tidy.*|CheckProduction|CheckProviders.*)$$

test-real-sample: build ## of the same tests those to which it matters, as CI runs them
	$(REAL) go test -count=1 -timeout 40m -p $(AT_ONCE) -parallel $(AT_ONCE) -skip '$(ANY_SERVERS)' $(SERVED)
	$(REAL) env $(SERVERS_KILLED)

check: ## format, vet, lint, the repository's own rules, and the alerts by promtool where it is
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt: $$unformatted" >&2; exit 1; fi
	go vet ./...
	go run $(LINT) run --allow-parallel-runners
	go test -count=1 -run 'Tidy|EnvExample|OpenAPI|Alerts|Dashboard|MetricsAreExported' ./cmd/llm-gateway

ACCEPTANCE_TESTS := TestTenThousandRequests|TestNobodyOverspends|TestFirstTokenRace|TestStartAndKill|TestEndsWithItsParent|TestKillUnderLoad|TestStopUnderLoad|TestEventsAreImmutable|TestPostgresAway|TestFrozen|TestTopicDeleted|TestProjectionDropped|TestProjectorAndRedisStopped|TestFlushAllUnderLoad|TestVisible|TestTailLost|TestSpool|TestKeyOverGateways
ACCEPTANCE := ACCEPTANCE=full go test -count=1 -v -timeout 60m -run '^($(ACCEPTANCE_TESTS))$$' ./cmd/llm-gateway

acceptance: build ## the long tests in full: 10,000 requests, 25 kills under load
	$(BIN) embedded -- env $(ACCEPTANCE)

acceptance-real: build ## the same, on a real Postgres, Kafka and Redis
	$(REAL) env $(ACCEPTANCE)

FAULTS := ACCEPTANCE=full go test -count=1 -v -timeout 60m -run '^(TestKillPoints|TestFrozenOwner|TestSickNetwork)$$' ./cmd/llm-gateway

faults: build ## 500 kills of gateways under load, on the embedded parts
	$(BIN) embedded -- env $(FAULTS)

faults-real: build ## the same on a real Postgres, Kafka and Redis, and 40 kills of those
	$(REAL) env $(FAULTS)
	$(REAL) env ACCEPTANCE=full $(SERVERS_KILLED)

MILLION := EVENTS=1000000 go test -count=1 -v -timeout 60m -run '^TestRebuildMany$$' ./cmd/llm-gateway

rebuild-million: build ## rebuild every projection from a million events: rate and memory
	$(BIN) embedded -- env $(MILLION)

rebuild-million-real: build ## the same, on a real Postgres, Kafka and Redis
	$(REAL) env $(MILLION)

AUDIT := AUDIT_REQUESTS=1000000 go test -count=1 -v -timeout 60m -run '^TestAuditMany$$' ./cmd/llm-gateway

audit-million: build ## calculate a million charges again: rate and memory
	$(BIN) embedded -- env $(AUDIT)

audit-million-real: build ## the same, on a real Postgres, Kafka and Redis
	$(REAL) env $(AUDIT)

slow-streams: build ## 1,000 streams at once, and clients that do not read: memory
	$(BIN) embedded -- env ACCEPTANCE=full go test -count=1 -v -run '^(TestSlowStreams|TestBackpressure|TestNeverReads)$$' ./cmd/llm-gateway

telemetry-load: build ## receivers of telemetry that behave badly, under load: added p99, memory, drops
	$(BIN) embedded -- env ACCEPTANCE=full go test -count=1 -v -timeout 30m -run '^TestTelemetryLoad$$' ./cmd/llm-gateway

hostile: build ## hostile requests in thirty rounds, and slow senders until they are cut off
	$(BIN) embedded -- env ACCEPTANCE=full go test -count=1 -v -run '^TestHostile$$' ./cmd/llm-gateway

clients: build ## the official clients, at their pinned versions, on the binary
	$(BIN) embedded -- env ACCEPTANCE=full go test -count=1 -v -timeout 30m -run '^Test(Official)?Clients' ./cmd/llm-gateway

clients-go: build ## the official clients for Go alone, which take minutes to build
	$(BIN) embedded -- env ACCEPTANCE=full go test -count=1 -v -timeout 30m -run '^TestClientsGo$$' ./cmd/llm-gateway

clients-raise: ## pin the newest versions of the official clients; then run `make clients`
	@set -e; for raise in deployments/clients/*/raise; do echo "$$raise"; "$$raise"; done

vuln: ## known vulnerabilities in what is linked in, by the database as of VULNDB
	deployments/vuln/run $(VULNDB)

# By count: Go before 1.27 may report the end of a time as a failure (golang/go#75804).
fuzz: ## each fuzz test for FUZZTIME, one after the other
	@set -e; grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r file; do \
		sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file" | while read -r name; do \
			echo "$$name in $$(dirname "$$file")"; \
			go test -run='^$$' -fuzz="^$$name\$$" -fuzztime=$(FUZZTIME) "$$(dirname "$$file")" </dev/null; \
		done; \
	done

SOAK ?= 10
soak: ## the simulation on new seeds, for SOAK minutes or until interrupted
	SOAK=$(SOAK) go test -count=1 -v -timeout 0 -run '^TestSoak$$' ./cmd/llm-gateway/simulation

bench: build ## the CPU of a billed request, beside a bare reverse proxy
	$(BIN) bench

clean:
	rm -rf bin
