package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	lockFile      = "lock"
	endpointsFile = "endpoints.json"

	// ReadEndpoints holds the lock for an instant to see whether it is free, so Lock tries again
	// for a moment before it believes that somebody has it.
	lockWait = 250 * time.Millisecond
	lockPoll = 10 * time.Millisecond

	maxLockText      = 32       // bytes of a process id, with room
	maxEndpointsText = 64 << 10 // bytes
)

// ErrLocked is what a LockedError is: errors.Is(err, ErrLocked).
var ErrLocked = errors.New("data directory in use")

// ErrNoEndpoints says that no process runs embedded parts on a DATA_DIR, or none that has them
// running yet.
var ErrNoEndpoints = errors.New("no embedded parts are running")

// LockedError says which process holds a DATA_DIR.
type LockedError struct {
	DataDir string
	PID     int // 0 if the holder has not written it yet
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("%s: %v by process %d", e.DataDir, ErrLocked, e.PID)
}

func (e *LockedError) Unwrap() error { return ErrLocked }

// DirLock is this process's hold of a DATA_DIR. The kernel gives it up when the process dies.
type DirLock struct {
	dir  string
	file *os.File
}

// Lock makes the DATA_DIR if need be (0700) and takes it for this process. If another holder has
// it the error is a *LockedError. Endpoints that a dead holder left are removed.
func Lock(dataDir string) (*DirLock, error) {
	dir, err := absolute(dataDir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	l := &DirLock{dir: dir, file: f}
	if err := l.take(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

func (l *DirLock) take() error {
	err := FlockWithin(context.Background(), l.file, lockWait, lockPoll)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return &LockedError{DataDir: l.dir, PID: readPID(l.file)}
	}
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(l.dir, endpointsFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err = l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Unlock gives the DATA_DIR up. The lock file stays: removing it would let two processes lock two
// files of one name.
func (l *DirLock) Unlock() error {
	err := os.Remove(filepath.Join(l.dir, endpointsFile))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.file.Truncate(0), l.file.Close())
}

func readPID(f *os.File) int {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxLockText))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

// Endpoints says where the embedded parts of a running process are. It holds passwords.
type Endpoints struct {
	PostgresURL  string   `json:"postgres_url,omitempty"` // "" = that one is not embedded, and so below
	KafkaBrokers []string `json:"kafka_brokers,omitempty"`
	RedisURL     string   `json:"redis_url,omitempty"`
	PID          int      `json:"pid"` // of the process that runs them
}

// WriteEndpoints lets other processes of the same user find the embedded parts. Only the holder of
// the DATA_DIR's lock may call it.
func WriteEndpoints(dataDir string, e Endpoints) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return writeFileSynced(filepath.Join(dataDir, endpointsFile), append(text, '\n'))
}

// ReadEndpoints finds the embedded parts that run on a DATA_DIR. The error is ErrNoEndpoints if
// there are none, also when a holder that died left its endpoints behind.
func ReadEndpoints(dataDir string) (Endpoints, error) {
	var e Endpoints
	held, err := lockHeld(dataDir)
	if err != nil {
		return e, err
	}
	if !held {
		return e, fmt.Errorf("%s: %w", dataDir, ErrNoEndpoints)
	}
	f, err := os.Open(filepath.Join(dataDir, endpointsFile))
	if errors.Is(err, os.ErrNotExist) {
		return e, fmt.Errorf("%s: %w yet", dataDir, ErrNoEndpoints)
	}
	if err != nil {
		return e, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxEndpointsText)).Decode(&e); err != nil {
		return Endpoints{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return e, nil
}

// lockHeld reports whether some process holds the DATA_DIR. It takes the lock shared, for as long
// as it takes to give it back.
func lockHeld(dataDir string) (bool, error) {
	f, err := os.Open(filepath.Join(dataDir, lockFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}
