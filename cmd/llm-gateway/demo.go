package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/ledger"
	"llm-gateway/projections"
)

const (
	demoAccount = "demo"
	demoBalance = "1"
	demoTopUp   = "5"
	demoModel   = "sim-small"
	demoTime    = 2 * time.Minute  // for all of it
	demoCatchUp = 10 * time.Second // for the projections to come to the ledger's end
	demoTTL     = time.Hour        // of its token
)

var demoVerb = verb{
	name: "demo", args: "[--keep]",
	summary: "show a few requests and what becomes of their money, in under a minute",
	about: `It starts the embedded parts in a temporary directory, tops up an account, sends completions (whole,
streamed, one that the client aborts, one that fails at the provider), and shows every event of
theirs, the balance, the projections rebuilt from the topic and from the ledger, and the
verification. It needs no key and no network, and removes the directory in the end; --keep does not.`,
	run: runDemo,
}

func runDemo(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	keep := fs.Bool("keep", false, "keep the directory")
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, demoTime)
	defer cancel()
	dir, err := os.MkdirTemp("", program+"-demo-")
	if err != nil {
		return err
	}
	if !*keep {
		defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	}
	s, err := demoSettings(dir)
	if err != nil {
		return err
	}
	return a.demonstrate(ctx, s)
}

// demoSettings are the defaults, in a directory of their own: what the user's environment says is for
// the user's gateway.
func demoSettings(dir string) (*Settings, error) {
	return loadSettings(sources{environment: map[string]string{
		"HOST": "127.0.0.1", "PORT": "0", "LOG_LEVEL": "ERROR", "DATA_DIR": dir, "BILLING_DEFAULT_BALANCE": demoBalance,
		"SIMULATED_PROVIDER": "on", "RATE_LIMIT_REQUESTS_PER_MINUTE": "0", "RATE_LIMIT_REQUESTS_PER_HOUR": "0", "EMBEDDED_POSTGRES_BIN": os.Getenv("EMBEDDED_POSTGRES_BIN"),
	}})
}

// demonstrate runs the gateway and the script.
func (a *app) demonstrate(ctx context.Context, s *Settings) error {
	begin := time.Now()
	catalog, err := s.servable(sources{})
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler) // the provider's failure is part of the show
	h, err := holdDir(ctx, s, s.DataDir, log)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, h.release())
	}
	running, err := startServing(ctx, s, catalog, h.backend, listener, log)
	if err != nil {
		return errors.Join(err, listener.Close(), h.release())
	}
	token, _, err := a.sign(s, demoAccount, gateway.RoleUser, demoTTL)
	if err == nil {
		d := &demo{app: a, parts: running.parts, backend: h.backend, base: "http://" + listener.Addr().String(), token: token}
		d.headline("Postgres, Kafka and Redis, embedded", "ready in "+time.Since(begin).Round(time.Millisecond).String())
		err = d.play(ctx)
	}
	running.stop()
	if err == nil {
		fmt.Fprintf(a.stdout, "\nAll of this in %s. `make run` starts the same gateway to stay.\n", time.Since(begin).Round(100*time.Millisecond))
	}
	return errors.Join(err, h.release())
}

// demo is one showing.
type demo struct {
	*app
	parts   *parts
	backend backend
	base    string
	token   string
	shown   []demoRequest
}

// demoRequest is one request and what its client saw.
type demoRequest struct {
	title, saw string
	id         uuid.UUID
}

func (d *demo) headline(title, note string) {
	if note != "" {
		note = "  (" + note + ")"
	}
	fmt.Fprintf(d.stdout, "\n== %s%s\n", title, note)
}

func (d *demo) play(ctx context.Context) error {
	for _, act := range []func(context.Context) error{d.fund, d.send, d.events, d.balance, d.rebuild, d.verify} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// fund opens the account, with its first balance, and tops it up.
func (d *demo) fund(ctx context.Context) error {
	d.headline("An account", "")
	opened, err := appendOne(ctx, d.parts.ledger, demoAccount, domain.Open{Grant: domain.MustAmount(demoBalance), Actor: actor})
	if err != nil {
		return err
	}
	topped, err := appendOne(ctx, d.parts.ledger, demoAccount, domain.Credit{Amount: domain.MustAmount(demoTopUp),
		Data: domain.MovementData{Reference: "demo top-up", Actor: actor}})
	if err != nil {
		return err
	}
	return d.printTable(append(eventRows(nil, opened.Events), eventRows(nil, topped.Events)...))
}

// send makes the requests: whole, streamed, aborted by the client, failed by the provider.
func (d *demo) send(ctx context.Context) error {
	d.headline("Four requests to "+demoModel, "")
	for _, r := range []struct {
		title, prompt string
		stream        bool
		abortAfter    int // chunks; 0: not
	}{
		{"whole", "Say hello.", false, 0},
		{"streamed", "Tell me more. sim:tokens=40", true, 0},
		{"aborted by the client", "A long story, please. sim:tokens=400 sim:pace=5ms", true, 12},
		{"failed by the provider", "sim:status=500", false, 0},
	} {
		id, saw, err := d.request(ctx, r.prompt, r.stream, r.abortAfter)
		if err != nil {
			return fmt.Errorf("the request that is %s: %w", r.title, err)
		}
		d.shown = append(d.shown, demoRequest{r.title, saw, id})
		fmt.Fprintf(d.stdout, "  %-23s %s\n", r.title, saw)
	}
	return nil
}

// request sends one completion and reads its answer, or the beginning of it.
func (d *demo) request(ctx context.Context, prompt string, stream bool, abortAfter int) (id uuid.UUID, saw string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body := fmt.Sprintf(`{"model":%q,"stream":%v,"messages":[{"role":"user","content":%q}]}`, demoModel, stream, prompt)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.base+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return id, "", err
	}
	resp, err := d.do(req)
	if err != nil {
		return id, "", err
	}
	defer resp.Body.Close()
	if id, err = uuid.Parse(resp.Header.Get("x-billing-request-id")); err != nil {
		return id, "", fmt.Errorf("an answer without an id: %w", err)
	}
	if !stream {
		_, err = io.Copy(io.Discard, resp.Body)
		return id, fmt.Sprintf("%s, x-billing-cost %s", resp.Status, orNone(resp.Header.Get("x-billing-cost"))), err
	}
	chunks, bill, err := readChunks(resp.Body, abortAfter)
	if abortAfter > 0 {
		return id, fmt.Sprintf("%s, gone after %d chunks", resp.Status, chunks), nil
	}
	return id, fmt.Sprintf("%s, %d chunks, %s", resp.Status, chunks, bill), err
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (d *demo) do(req *http.Request) (*http.Response, error) {
	req.Header.Set("Authorization", "Bearer "+d.token)
	req.Header.Set("Content-Type", "application/json")
	return http.DefaultClient.Do(req)
}

// readChunks counts the chunks of a stream, up to a number where that is not 0, and finds the comment
// that says what it cost.
func readChunks(body io.Reader, most int) (chunks int, bill string, err error) {
	lines := bufio.NewScanner(body)
	for lines.Scan() && (most == 0 || chunks < most) {
		if text, ok := bytes.CutPrefix(lines.Bytes(), []byte(": billing ")); ok {
			bill = ": billing " + string(text)
		}
		if bytes.HasPrefix(lines.Bytes(), []byte("data: {")) {
			chunks++
		}
	}
	return chunks, bill, lines.Err()
}

// events shows the life of each request's money, as the ledger has it.
func (d *demo) events(ctx context.Context) error {
	d.headline("Their events in the ledger", "each one movement, chained by its hash")
	rows := [][]string{{"  position", "event", "amount", "from", "to", "what it says", "hash"}}
	for _, r := range d.shown {
		rows = append(rows, []string{"  " + r.title, "", "", "", "", "", ""})
		events, err := d.settled(ctx, r.id)
		if err != nil {
			return err
		}
		rows = eventRows(rows, events)
	}
	return d.printTable(rows)
}

// settled waits for a request's settlement: that of an aborted one happens behind the client's back.
func (d *demo) settled(ctx context.Context, id uuid.UUID) ([]domain.Recorded, error) {
	for {
		events, err := d.parts.ledger.Request(ctx, demoAccount, id)
		if err != nil || len(events) > 1 {
			return events, err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// eventRows tells events as rows of a table.
func eventRows(rows [][]string, events []domain.Recorded) [][]string {
	for i := range events {
		e := &events[i].Event
		rows = append(rows, []string{"  " + e.Position().String(), string(e.Kind), e.Amount.String(), short(e.Debit), short(e.Credit),
			saying(e), hex.EncodeToString(events[i].Hash[:4])})
	}
	return rows
}

func short(end string) string { return strings.TrimPrefix(end, "user:"+demoAccount+":") }

// saying is what an event says beyond its movement, in few words.
func saying(e *domain.Event) string {
	switch data := e.Data.(type) {
	case *domain.AccountData:
		return "opened"
	case *domain.MovementData:
		return data.Reference
	case *domain.ReserveData:
		return fmt.Sprintf("at most %d tokens in, %d out", data.Bound.Input, data.Bound.Output)
	case *domain.CommitData:
		var parts []string
		for _, l := range data.Lines {
			parts = append(parts, fmt.Sprintf("%d %s x %s", l.Quantity, l.Meter, l.UnitPrice))
		}
		return strings.Join(parts, " + ") + " (" + string(data.UsageSource) + ")"
	case *domain.RefundData:
		return string(data.Reason)
	}
	return ""
}

// balance asks as a client would, once the projections are where the ledger is.
func (d *demo) balance(ctx context.Context) error {
	d.headline("What the account is told", "projections, made from the topic")
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	for _, path := range []string{"/billing/balance", "/billing/stats?group_by=model"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+path, nil)
		if err != nil {
			return err
		}
		resp, err := d.do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close() //nolint:errcheck // it was read
		if err != nil {
			return err
		}
		fmt.Fprintf(d.stdout, "  GET %s\n  %s\n", path, bytes.TrimSpace(text))
	}
	return nil
}

// caughtUp waits until every projection has all that the ledger has.
func (d *demo) caughtUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoCatchUp)
	defer cancel()
	reader := projections.NewReader(d.parts.ledger.Pool(), d.parts.ledger.Meta())
	for {
		rows, err := reader.Status(ctx)
		if err != nil {
			return fmt.Errorf("waiting for the projections: %w", err)
		}
		behind := int64(0)
		for _, row := range rows {
			behind += row.Behind
		}
		if behind == 0 {
			return nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("the projections are %d events behind: %w", behind, err)
		}
	}
}

// rebuild makes every projection twice more and shows the three beside each other.
func (d *demo) rebuild(ctx context.Context) error {
	d.headline("Rebuilt beside the live ones, at the same position", "rows and the hash of all of them")
	owner, err := ledger.ConnConfig(string(d.backend.OwnerURL), "", d.backend.ownerPooled())
	if err != nil {
		return err
	}
	config := projections.RebuildConfig{Owner: owner, Meta: d.parts.ledger.Meta(), Ledger: d.parts.ledger, Topic: d.parts.topic}
	rows := [][]string{{"  projection", "live", "from the topic", "from the ledger", ""}}
	var balance []projections.SampleRow
	for _, name := range projections.Names() {
		sides, err := projections.SideBySide(ctx, config, name)
		if err != nil {
			return err
		}
		row := []string{"  " + name}
		for _, digest := range sides.Digests {
			row = append(row, fmt.Sprintf("%d %.12s", digest.Rows, digest.SHA256))
		}
		rows = append(rows, append(row, map[bool]string{true: "EQUAL", false: "DIFFERENT"}[sides.Equal()]))
		if name == "balances" {
			balance = sides.Sample
		}
		if !sides.Equal() {
			err = errors.New("the projections differ")
		}
		if err != nil {
			return errors.Join(err, d.printTable(rows))
		}
	}
	if err := d.printTable(rows); err != nil {
		return err
	}
	for _, row := range balance {
		fmt.Fprintf(d.stdout, "  %s\n    live             %s\n    from the topic   %s\n    from the ledger  %s\n", row.Key, row.Live, row.Topic, row.Ledger)
	}
	return nil
}

// verify holds everything against everything.
func (d *demo) verify(ctx context.Context) error {
	d.headline("ledger verify", "")
	report, err := d.parts.ledger.Verify(ctx, ledger.VerifyOptions{Topic: d.parts.topic})
	if err != nil {
		return err
	}
	if err := report.WriteText(d.stdout); err != nil {
		return err
	}
	if !report.Clean {
		return errors.New("the ledger is not clean")
	}
	return nil
}
