package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	dirMode     = 0o700
	fileMode    = 0o600
	lockName    = "lock"
	maxLockText = 32 // bytes of a process id, with room
)

// files are what a journal needs of its directory. Tests hand in some that fail.
type files interface {
	List() (names []string, err error)
	Create(name string) (file, error) // one that is not there yet
	Open(name string) (file, error)   // made if need be
	Read(name string) ([]byte, error)
	ReadAt(name string, at int64, size int) ([]byte, error) // fewer bytes where the file ends
	Rename(from, to string) error
	Remove(name string) error
	Sync() error // of the directory
}

// file is one that is written.
type file interface {
	WriteAt(b []byte, at int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// directory is files as they are.
type directory string

func (d directory) path(name string) string { return filepath.Join(string(d), name) }

func (d directory) List() (names []string, err error) {
	entries, err := os.ReadDir(string(d))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (d directory) Create(name string) (file, error) {
	return os.OpenFile(d.path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
}

func (d directory) Open(name string) (file, error) {
	return os.OpenFile(d.path(name), os.O_CREATE|os.O_WRONLY, fileMode)
}

func (d directory) Read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

func (d directory) ReadAt(name string, at int64, size int) ([]byte, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, size)
	n, err := f.ReadAt(b, at)
	if err == io.EOF {
		err = nil
	}
	return b[:n], err
}

func (d directory) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }
func (d directory) Remove(name string) error     { return os.Remove(d.path(name)) }

func (d directory) Sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// makeDir makes a directory, and what is missing above it, durably. Its name is synced also where it is
// there: whoever made it may have died before.
func makeDir(dir string) error {
	err := os.Mkdir(dir, dirMode)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
		if err = makeDir(filepath.Dir(dir)); err == nil {
			err = os.Mkdir(dir, dirMode)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) { // if it is no directory, whatever is done in it says so
		return err
	}
	return directory(filepath.Dir(dir)).Sync()
}

// writeSynced is what makes bytes durable. After an error nothing is known of what it should have
// written, and asking again does not tell: the kernel may have dropped it and forgotten.
func writeSynced(f file, b []byte, at int64) error {
	if _, err := f.WriteAt(b, at); err != nil {
		return err
	}
	return f.Sync()
}

// rewrite makes what was read of a file durable, and cuts off what is behind it. What was read may never
// have reached the disk, and an fsync alone may not bring it there, after one that failed: so it is
// written once more, the same bytes to the same place.
func rewrite(dir files, name string, b []byte) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	err = f.Truncate(int64(len(b)))
	if err == nil {
		err = writeSynced(f, b, 0)
	}
	return errors.Join(err, f.Close())
}

// ErrLocked says that another process, or another Journal of this one, has the directory.
var ErrLocked = errors.New("the journal is in use")

// lock takes a directory for one Journal. The kernel gives the lock up when the process dies. The file
// stays: removing it would let two processes lock two files of one name.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	err = flock(f)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%s: %w by process %s", dir, ErrLocked, holder(f))
	} else if err == nil {
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// holder is the process that has written itself into a lock, as text.
func holder(f *os.File) string {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxLockText))
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || convErr != nil {
		return "(not known yet)"
	}
	return strconv.Itoa(pid)
}
