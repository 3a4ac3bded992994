package relay

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"llm-gateway/ledger/topic"
)

// childWorld makes this test binary a process with a relay: it is a world, as JSON.
const childWorld = "RELAY_TEST_CHILD"

// child is such a process. It reads a number a line, stops itself at that step of publishing, and
// says what happened: "armed", then "stop" or "clean".
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
}

// TestStoppedAtEveryStep stops a process for good, by SIGSTOP, at the n-th step of publishing, lets
// another take over, and lets it go on: as TestFrozenAtEveryStep, but with all its clocks.
func TestStoppedAtEveryStep(t *testing.T) {
	t.Parallel()
	if text := os.Getenv(childWorld); text != "" {
		beChild(t, text)
		return
	}
	w := newWorld(t)
	w.append(20)
	c := w.startChild(t)
	n := 1
	for ; n <= maxSteps; n++ {
		w.settle()
		fmt.Fprintln(c.in, n)
		c.want("armed")
		w.must(w.one(w.onShard(2)))
		if c.want("stop", "clean") == "clean" {
			break
		}
		b := w.start(quiet)
		b.holdsAll(t)
		w.append(5)
		w.settle()
		w.append(5)
		w.must(c.cmd.Process.Signal(syscall.SIGCONT))
		w.append(5)
		w.settle()
		b.end()
		w.append(5)
		c.want("again")
	}
	w.settle()
	if n < 4 || n > maxSteps {
		t.Errorf("publishing took %d steps", n)
	}
	t.Logf("%d steps", n-1)
	c.in.Close()
	w.must(c.cmd.Wait())
}

func (w *world) startChild(t *testing.T) *child {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"url": w.url, "brokers": w.config.Brokers, "topic": w.config.Name, "ledger": w.config.Ledger,
	})
	w.must(err)
	c := &child{t: t, cmd: exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStoppedAtEveryStep$"), lines: make(chan string, 1000)}
	c.cmd.Env = append(os.Environ(), childWorld+"="+string(text))
	c.cmd.Stderr = os.Stderr
	c.in, err = c.cmd.StdinPipe()
	w.must(err)
	out, err := c.cmd.StdoutPipe()
	w.must(err)
	w.must(c.cmd.Start())
	go func() { // ends with the child's output
		defer close(c.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			c.lines <- in.Text()
		}
	}()
	return c
}

// want reads what the child says until it is one of these.
func (c *child) want(words ...string) string {
	c.t.Helper()
	late := time.After(patiently)
	for {
		select {
		case line, more := <-c.lines:
			for _, word := range words {
				if line == word {
					return word
				}
			}
			if !more {
				c.t.Fatalf("the child ended, and did not say %q", words)
			}
		case <-late:
			c.t.Fatalf("the child did not say %q", words)
		}
	}
}

// beChild publishes until its input ends.
func beChild(t *testing.T, text string) {
	var config struct {
		URL     string
		Brokers []string
		Topic   string
	}
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, url: config.URL}
	w.ledger = w.open(w.url)
	w.config = topic.Config{Brokers: config.Brokers, Name: config.Topic, Ledger: w.ledger.Meta().ID, Shards: testShards}
	p := w.start(quiet)
	p.wire.stop = func() {
		fmt.Println("stop")
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
	for n := 0; ; {
		if _, err := fmt.Scanln(&n); err != nil {
			return
		}
		p.holdsAll(t)
		w.wantKnown(p)
		p.wire.arm(n, halt)
		head := w.total() // before anybody is told to append
		fmt.Println("armed")
		eventually(t, "it stops or publishes", func() bool { return p.wire.happened() || w.total() > head && w.knows(p) })
		if !p.wire.disarm() {
			fmt.Println("clean")
			continue
		}
		p.holdsAll(t)
		fmt.Println("again")
	}
}
