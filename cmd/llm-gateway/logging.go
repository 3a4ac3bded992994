package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
)

// The log of a process that serves is its own stream: LOG_FILE, or stdout. All other verbs have their
// results on stdout, and so their log on stderr.

// logs is where a log goes, kept so that it can be opened again and its failures be counted.
type logs struct {
	*slog.Logger
	file *logFile // nil: it goes to stdout or stderr
}

// failures is how many lines LOG_FILE did not take.
func (l *logs) failures() int64 {
	if l.file == nil {
		return 0
	}
	return l.file.failed.Load()
}

// reopen opens LOG_FILE again, by its name.
func (l *logs) reopen() error {
	if l.file == nil {
		return nil
	}
	return l.file.reopen()
}

// logger logs to stderr: for verbs whose result is on stdout.
func (a *app) logger(s *Settings) *slog.Logger {
	if a.log != nil {
		return a.log.Logger
	}
	return slog.New(newLogHandler(a.stderr, s))
}

// serveLog opens the log of a process that serves; from then on it is the logger of everything.
func (a *app) serveLog(s *Settings) (*logs, error) {
	a.log = &logs{}
	if s.LogFile == "" {
		a.log.Logger = slog.New(newLogHandler(a.stdout, s))
		return a.log, nil
	}
	a.log.file = &logFile{path: s.LogFile, instead: a.stderr}
	a.log.Logger = slog.New(newLogHandler(a.log.file, s))
	if err := a.log.file.reopen(); err != nil {
		return nil, &settingsError{[]string{"LOG_FILE: it cannot be written: " + reason(err)}}
	}
	return a.log, nil
}

// newLogHandler writes text where a person reads, and otherwise one line of JSON for each record.
func newLogHandler(out io.Writer, s *Settings) slog.Handler {
	if s.Debug || isTerminal(out) {
		return &readable{out: out, level: s.LogLevel, mu: &sync.Mutex{}}
	}
	return slog.NewJSONHandler(out, &slog.HandlerOptions{Level: s.LogLevel, ReplaceAttr: logNames})
}

// logNames are the names that others expect of the three fields that every line has.
func logNames(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.Time("timestamp", a.Value.Time().UTC())
	case slog.MessageKey:
		a.Key = "message"
	}
	return a
}

// retryLog is how long a file that took nothing is left alone.
const retryLog = 5 * time.Second

// logFile is LOG_FILE. What it does not take goes elsewhere and is counted: a full disk stops no request. It
// is safe for concurrent use.
type logFile struct {
	path    string
	instead io.Writer
	failed  atomic.Int64

	mu    sync.Mutex
	file  *os.File  // nil: it could not be opened
	again time.Time // not tried before, where it failed
}

// logMode lets the owner write it, and the group read it.
const logMode = 0o640

// reopen opens the file by its name; where that fails, the one that was open stays.
func (f *logFile) reopen() error {
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, logMode)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		f.file.Close() //nolint:errcheck // what it took it has
	}
	f.file, f.again = file, time.Time{}
	return nil
}

// Write writes one line. It never fails: slog would only drop the line.
func (f *logFile) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !time.Now().Before(f.again) {
		if f.file != nil {
			if _, err := f.file.Write(line); err == nil {
				return len(line), nil
			}
		}
		f.again = time.Now().Add(retryLog)
	}
	f.failed.Add(1)
	f.instead.Write(line) //nolint:errcheck // there is nowhere left to say it
	return len(line), nil
}

// readable writes records as text for people: no value can pass for a line of its own, or move the cursor.
type readable struct {
	out    io.Writer
	level  slog.Level
	mu     *sync.Mutex
	before string // the attributes of With, written
	group  string // the prefix of names
}

// keyStack is the attribute that is written on lines of its own.
const keyStack = "stack"

// Enabled is by LOG_LEVEL.
func (r *readable) Enabled(_ context.Context, level slog.Level) bool { return level >= r.level }

// Handle writes one record.
func (r *readable) Handle(_ context.Context, record slog.Record) error {
	var line, below strings.Builder
	line.WriteString(record.Time.Format("2006-01-02 15:04:05.000"))
	line.WriteString(" " + record.Level.String() + strings.Repeat(" ", max(1, 6-len(record.Level.String()))))
	line.WriteString(printable(record.Message, " =\""))
	line.WriteString(r.before)
	record.Attrs(func(a slog.Attr) bool {
		r.attr(&line, &below, r.group, a)
		return true
	})
	line.WriteByte('\n')
	line.WriteString(below.String())
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := io.WriteString(r.out, line.String())
	return err
}

// attr writes one attribute, and what needs lines of its own below.
func (r *readable) attr(line, below *strings.Builder, group string, a slog.Attr) {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, one := range value.Group() {
			r.attr(line, below, group, one)
		}
		return
	}
	if a.Equal(slog.Attr{}) {
		return
	}
	if a.Key == keyStack {
		for one := range strings.Lines(value.String()) {
			one = strings.ReplaceAll(strings.TrimRight(one, "\n"), "\t", "    ")
			below.WriteString("    " + printable(one, " =\"") + "\n")
		}
		return
	}
	line.WriteString(" " + printable(group+a.Key, "") + "=" + printable(value.String(), ""))
}

// printable quotes a text that is empty, or has anything but printable characters and those that are also
// allowed.
func printable(s, also string) string {
	plain := func(c rune) bool {
		return strings.ContainsRune(also, c) || c != ' ' && c != '"' && c != '=' && c != unicode.ReplacementChar && strconv.IsPrint(c)
	}
	if s == "" || strings.ContainsFunc(s, func(c rune) bool { return !plain(c) }) {
		return strconv.Quote(s)
	}
	return s
}

// WithAttrs is a logger whose lines all have these.
func (r *readable) WithAttrs(attrs []slog.Attr) slog.Handler {
	var line, below strings.Builder
	for _, a := range attrs {
		r.attr(&line, &below, r.group, a)
	}
	next := *r
	next.before += line.String()
	return &next
}

// WithGroup is a logger whose names all begin with this one.
func (r *readable) WithGroup(name string) slog.Handler {
	next := *r
	if name != "" {
		next.group += name + "."
	}
	return &next
}
