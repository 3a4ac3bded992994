package embedded

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	initPrefix    = "postgres.init-"
	passwordFile  = "postgres.password"
	passwordBytes = 32

	initWait        = 5 * time.Minute  // for initdb, which syncs some 40 MB
	predecessorWait = 10 * time.Second // for a killed gateway's Postgres to end
	predecessorPoll = 25 * time.Millisecond
)

// ErrDataVersion is wrapped when the cluster is of a major version that no binaries at hand can
// run. The directory is left as it is.
var ErrDataVersion = errors.New("data directory of another Postgres version")

// ErrNotCluster is wrapped when the cluster's place holds something that is not a cluster.
var ErrNotCluster = errors.New("not a Postgres data directory")

// cluster is a data directory that is ours to start, with all that a start needs.
type cluster struct {
	opts     Options
	root     string // the DATA_DIR, absolute
	dir      string // the cluster's directory in it
	bin      binaries
	user     *account
	password string
	lock     *os.File // postgres.lock, held
}

// openCluster finds the cluster or makes it. Refusals come first, before any change.
func openCluster(ctx context.Context, o Options) (*cluster, error) {
	root, err := absolute(o.DataDir)
	if err != nil {
		return nil, err
	}
	c := &cluster{opts: o, root: root, dir: clusterDir(root)}
	major, err := clusterMajor(c.dir)
	if err != nil {
		return nil, err
	}
	if c.user, err = chooseAccount(c.dir); err != nil {
		return nil, err
	}
	if c.bin, err = chooseBinaries(ctx, o, major, c.user); err != nil {
		return nil, fmt.Errorf("%s: %w", c.dir, err)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	if err := c.acquire(ctx); err != nil {
		return nil, err
	}
	if err := c.prepare(ctx); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// close gives up our hold of the cluster; a running Postgres keeps its own.
func (c *cluster) close() { _ = c.lock.Close() }

// clusterDir is the cluster's place in a DATA_DIR, wherever a symbolic link there leads.
func clusterDir(root string) string {
	dir := filepath.Join(root, "postgres")
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	return dir
}

// clusterMajor is the major version of the cluster in dir, or 0 if there is none yet.
func clusterMajor(dir string) (int, error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && len(entries) == 0:
		return 0, nil
	case errors.Is(err, syscall.ENOTDIR):
		return 0, fmt.Errorf("%s: %w", dir, ErrNotCluster)
	case err != nil:
		return 0, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("%s: %w: it has no PG_VERSION; move it away", dir, ErrNotCluster)
	}
	if err != nil {
		return 0, err
	}
	version := strings.TrimSpace(string(text))
	major, err := strconv.Atoi(version)
	if err != nil || major < minMajor {
		return 0, fmt.Errorf("%s: %w: it is of %q, the oldest supported is %d; dump it with its own version",
			dir, ErrDataVersion, version, minMajor)
	}
	return major, nil
}

// acquire takes postgres.lock. Every Postgres process inherits the open file and with it the lock,
// so a predecessor whose death signal is still under way is waited for, to its last backend: a new
// Postgres beside an old one would destroy the data.
func (c *cluster) acquire(ctx context.Context) error {
	f, err := os.OpenFile(filepath.Join(c.root, "postgres.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = FlockWithin(ctx, f, predecessorWait, predecessorPoll)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = &LockedError{DataDir: c.dir, PID: postmasterPID(c.dir)}
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	c.lock = f
	return nil
}

// prepare makes a complete cluster of whatever a predecessor left.
func (c *cluster) prepare(ctx context.Context) error {
	if err := c.removeLeftovers(); err != nil {
		return err
	}
	major, err := clusterMajor(c.dir) // once more: it may have been made while we waited
	if err != nil {
		return err
	}
	if c.password, err = clusterPassword(c.root, major != 0); err != nil {
		return err
	}
	if major == 0 {
		return c.initialise(ctx)
	}
	if major != c.bin.major {
		return fmt.Errorf("%s: %w: it is of %d, found only just now", c.dir, ErrDataVersion, major)
	}
	if err := c.user.giveTree(c.dir); err != nil {
		return err
	}
	return c.clearReusedPID()
}

// removeLeftovers removes clusters that a killed predecessor did not finish.
func (c *cluster) removeLeftovers() error {
	entries, err := os.ReadDir(c.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), initPrefix) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(c.root, e.Name())); err != nil {
			return fmt.Errorf("remove a cluster left half made: %w", err)
		}
	}
	return nil
}

// clearReusedPID removes a postmaster.pid whose number a stranger now has. Postgres sees that by
// itself unless the stranger has the same user, which is likely in a container, where numbers are
// few: it would refuse to start for ever. A live Postgres on this directory, started by hand and so
// not holding our lock, is left alone and refused.
func (c *cluster) clearReusedPID() error {
	pid := postmasterPID(c.dir)
	if alive := pid > 0 && syscall.Kill(pid, 0) == nil; !alive {
		return nil
	}
	yes, known := worksIn(pid, c.dir)
	if yes {
		return fmt.Errorf("another Postgres, not started by us, runs on %s: process %d", c.dir, pid)
	}
	if !known {
		return nil
	}
	return os.Remove(filepath.Join(c.dir, "postmaster.pid"))
}

// postmasterPID is the process id in postmaster.pid, 0 if there is none.
func postmasterPID(dir string) int {
	text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0
	}
	return pid
}

// initialise makes the cluster beside its place and renames it there when it is complete and on
// disk, so that a death at any moment leaves nothing that could be taken for data.
func (c *cluster) initialise(ctx context.Context) error {
	c.opts.Log.Info("embedded postgres: making a new cluster", "dir", c.dir, "version", c.bin.version)
	tmp, err := os.MkdirTemp(c.root, initPrefix)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // nothing is there after the rename
	if err := c.user.giveTree(tmp); err != nil {
		return err
	}
	if err := c.runInitdb(ctx, tmp); err != nil {
		return err
	}
	// An empty directory in the place would make Go refuse the rename. Rmdir removes nothing else.
	if err := syscall.Rmdir(c.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the empty directory %s cannot be replaced (a mount point? mount the directory above): %w", c.dir, err)
	}
	if err := os.Rename(tmp, c.dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(c.dir))
}

// runInitdb fills dir; initdb syncs all it has written before it ends.
func (c *cluster) runInitdb(ctx context.Context, dir string) error {
	log, err := openServerLog(c.root)
	if err != nil {
		return err
	}
	defer log.closeFile()
	handle, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer handle.Close()
	cmd := c.command(log, "initdb", handle)
	secret, err := c.passwordHandle()
	if err != nil {
		return err
	}
	defer secret.Close()
	cmd.Args = append(cmd.Args, "-D", c.dirArgument(dir), "-U", superuser,
		"--pwfile="+inheritedFiles+strconv.Itoa(inherit(cmd, secret)), "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions")
	run, err := startChild(cmd, c.user, syscall.SIGKILL, nil)
	if err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	if !run.wait(ctx, initWait) {
		_ = run.stop(context.WithoutCancel(ctx), []stage{{syscall.SIGKILL, killWait}})
		return fmt.Errorf("initdb stopped: it took longer than %s or was cancelled", initWait)
	}
	if run.err != nil {
		return fmt.Errorf("initdb: %w; its log %s ends:\n%s", run.err, log.path, log.tail())
	}
	return nil
}

// command is a call of one of the binaries. Its first inherited file is the directory it works on
// (see dirArgument), the second the lock. The working directory is one that everybody can be in:
// up to version 15, Postgres programs change directories to find themselves and want to return.
func (c *cluster) command(log *serverLog, name string, dir *os.File) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin.dir, name))
	cmd.Env = childEnvironment()
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log.file, log.file
	inherit(cmd, dir)
	inherit(cmd, c.lock)
	return cmd
}

// dirArgument names the first inherited file, the open directory, rather than its path, when the
// child is another user than we are: that user may not be let through the directories above, for
// instance /root, and opening an inherited directory asks them nothing.
func (c *cluster) dirArgument(path string) string {
	if c.user != nil && directoriesByNumber {
		return inheritedFiles + "3"
	}
	return path
}

// passwordHandle is an open file with the password, readable by the child through its number only:
// it has no name any more, so nothing can be left lying about.
func (c *cluster) passwordHandle() (*os.File, error) {
	f, err := os.CreateTemp(c.root, initPrefix)
	if err != nil {
		return nil, err
	}
	err = errors.Join(os.Remove(f.Name()), c.user.giveFile(f))
	if err == nil {
		_, err = f.WriteString(c.password + "\n")
	}
	if err == nil {
		_, err = f.Seek(0, 0) // where /dev/fd shares the position
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// clusterPassword reads the password of a cluster, or makes it before the first cluster is made, so
// that there never is a cluster whose password is lost.
func clusterPassword(root string, exists bool) (string, error) {
	path := filepath.Join(root, passwordFile)
	text, err := os.ReadFile(path)
	if err == nil {
		if password := strings.TrimSpace(string(text)); password != "" {
			return password, nil
		}
		return "", fmt.Errorf("%s is empty", path)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if exists {
		return "", fmt.Errorf("there is a cluster but not its password: restore %s", path)
	}
	random := make([]byte, passwordBytes)
	_, _ = rand.Read(random) // never fails
	password := hex.EncodeToString(random)
	return password, writeFileSynced(path, []byte(password+"\n"))
}
