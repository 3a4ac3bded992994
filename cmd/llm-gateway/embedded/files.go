package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	maxLogSize   = 16 << 20 // bytes, above which the log is moved aside at a start
	tailBytes    = 8 << 10
	tailLines    = 20
	serverLogTag = "postgres.log"
)

// serverLog is the log file that initdb and postgres append to.
type serverLog struct {
	path  string
	file  *os.File
	begin int64 // where this run's part begins
}

// openServerLog opens the log of a DATA_DIR. A large one becomes postgres.log.1, replacing the one
// before, so that two files of bounded size at the last start are kept.
func openServerLog(root string) (*serverLog, error) {
	path := filepath.Join(root, serverLogTag)
	if info, err := os.Stat(path); err == nil && info.Size() > maxLogSize {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &serverLog{path: path, file: f, begin: info.Size()}, nil
}

// closeFile closes our handle; the child has its own.
func (l *serverLog) closeFile() { _ = l.file.Close() }

// tail is the end of what this run wrote: at most tailLines lines and tailBytes bytes.
func (l *serverLog) tail() string {
	f, err := os.Open(l.path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	from := max(l.begin, info.Size()-tailBytes)
	text, err := io.ReadAll(io.NewSectionReader(f, from, tailBytes))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// portTaken reports whether a log says that the port could not be had.
func portTaken(log string) bool {
	return strings.Contains(log, "could not create any TCP/IP sockets") ||
		strings.Contains(log, "Address already in use")
}

// writeFileSynced writes a 0600 file whole or not at all, also when power fails.
func writeFileSynced(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), initPrefix) // CreateTemp makes it 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes renames in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// FlockWithin takes an exclusive flock of f, trying for at most the given time. It returns
// syscall.EWOULDBLOCK, wrapped, if somebody else held it all the while.
func FlockWithin(ctx context.Context, f *os.File, limit, poll time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil || !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		case <-tick.C:
		}
	}
}
