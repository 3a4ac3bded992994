package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

const (
	// fetchWait bounds the download of some 15 MB and its extraction.
	fetchWait = 10 * time.Minute

	// fetchPrefix begins the names of fetches under way.
	fetchPrefix = "fetching-"

	defaultMajor = 18

	// notAnEncoding makes the library's Start end where we want it to: after the extraction.
	notAnEncoding = "fetch-only"
	// afterExtraction begins the library's error when initdb fails, which comes after it.
	afterExtraction = "unable to init database"
)

// prebuilt are the versions that the library can fetch, by major version.
var prebuilt = map[int]embeddedpostgres.PostgresVersion{
	14: embeddedpostgres.V14,
	15: embeddedpostgres.V15,
	16: embeddedpostgres.V16,
	17: embeddedpostgres.V17,
	18: embeddedpostgres.V18,
}

// fetchedBinaries returns the prebuilt binaries for a major version (0: the default one), fetching
// them unless the cache has them.
func fetchedBinaries(ctx context.Context, o Options, want int, user *account) (binaries, error) {
	if want == 0 {
		want = defaultMajor
	}
	version, known := prebuilt[want]
	if !known {
		return binaries{}, fmt.Errorf("%w: it is of %d, and there are no binaries of that version, neither local nor prebuilt",
			ErrDataVersion, want)
	}
	cache, err := cacheDir(o.CacheDir)
	if err != nil {
		return binaries{}, err
	}
	dir := filepath.Join(cache, fmt.Sprintf("postgres-%s-%s-%s", version, runtime.GOOS, runtime.GOARCH))
	bin := filepath.Join(dir, "bin")
	if _, err := os.Stat(dir); err == nil {
		return probe(ctx, bin, user)
	}
	o.Log.Info("embedded postgres: fetching prebuilt binaries", "version", version, "to", dir)
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	if err := fetch(ctx, embeddedpostgres.DefaultConfig().Version(version), dir); err != nil {
		return binaries{}, fmt.Errorf("fetch prebuilt postgres %s: %w", version, err)
	}
	return probe(ctx, bin, user)
}

// fetch downloads and extracts into dir, which appears whole or not at all. The library's download
// cannot be cancelled: when ctx ends before it, its goroutine goes on alone, removes what it wrote
// and ends with the download, or with this process, for which a failed fetch is the end anyway.
func fetch(ctx context.Context, config embeddedpostgres.Config, dir string) error {
	removeAbandoned(filepath.Dir(dir))
	tmp, err := os.MkdirTemp(filepath.Dir(dir), fetchPrefix)
	if err != nil {
		return err
	}
	fetched := make(chan error, 1)
	go func() {
		err := extract(config, tmp)
		if err == nil {
			err = publish(ctx, filepath.Join(tmp, "postgres"), dir)
		}
		fetched <- errors.Join(err, os.RemoveAll(tmp)) // the rename left nothing of worth there
	}()
	select {
	case err := <-fetched:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// removeAbandoned removes what killed processes left of their fetches: whatever is older than a
// fetch may take. A failure costs disk space only.
func removeAbandoned(cache string) {
	left, _ := filepath.Glob(filepath.Join(cache, fetchPrefix+"*"))
	for _, path := range left {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > 2*fetchWait {
			_ = os.RemoveAll(path)
		}
	}
}

// extract has the library download the archive, check its sum and unpack it into tmp/postgres. The
// library offers no call for that alone. Its Start does that first and then runs initdb, which we
// let fail: by an encoding that does not exist, or, earlier, by our being root. All it touches is
// below tmp, but for an empty log file that it leaves in the temporary directory.
func extract(config embeddedpostgres.Config, tmp string) error {
	server := embeddedpostgres.NewDatabase(config.
		Port(0).
		CachePath(filepath.Join(tmp, "archive")).
		BinariesPath(filepath.Join(tmp, "postgres")).
		RuntimePath(filepath.Join(tmp, "runtime")).
		DataPath(filepath.Join(tmp, "data")).
		Encoding(notAnEncoding).
		Logger(io.Discard))
	err := server.Start()
	if err == nil {
		return errors.Join(errors.New("the library started a server"), server.Stop())
	}
	if !strings.HasPrefix(err.Error(), afterExtraction) {
		return err
	}
	return nil
}

// publish makes a tree readable for every user, durable, and visible under its name. If another
// process was faster, its tree is as good as ours.
func publish(ctx context.Context, tree, dir string) error {
	if err := filepath.WalkDir(tree, openUp); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.Rename(tree, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// openUp gives everybody the rights that matter for running a program: our umask may be strict,
// and root's binaries are run by the unprivileged user. Then it syncs, because a name that is
// there after a power failure is taken for a whole tree.
func openUp(path string, entry fs.DirEntry, err error) error {
	if err != nil || entry.Type()&fs.ModeSymlink != 0 {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mode := info.Mode().Perm() | 0o444
	if entry.IsDir() || mode&0o100 != 0 {
		mode |= 0o111
	}
	return errors.Join(f.Chmod(mode&^0o022), f.Sync())
}
