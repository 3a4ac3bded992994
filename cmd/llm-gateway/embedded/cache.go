package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

const (
	cacheName       = "llm-gateway"
	systemCacheDir  = "/var/cache"
	cachePermission = 0o755 // the unprivileged user runs what is in it
)

// cacheDir returns the directory for fetched binaries, made if need be.
func cacheDir(explicit string) (string, error) {
	if explicit != "" {
		dir, err := filepath.Abs(explicit)
		if err != nil {
			return "", err
		}
		return dir, os.MkdirAll(dir, cachePermission)
	}
	var refusals []error
	for _, dir := range cacheCandidates() {
		err := useCache(dir)
		if err == nil {
			return dir, nil
		}
		refusals = append(refusals, err)
	}
	return "", fmt.Errorf("no directory for postgres binaries: %w", errors.Join(refusals...))
}

// cacheCandidates lists the default places, the best first.
func cacheCandidates() []string {
	var dirs []string
	if os.Geteuid() == 0 {
		dirs = append(dirs, filepath.Join(systemCacheDir, cacheName))
	} else if dir, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(dir, cacheName))
	}
	own := cacheName + "-" + strconv.Itoa(os.Geteuid())
	return append(dirs, filepath.Join(os.TempDir(), own))
}

// useCache makes dir unless it exists, and refuses it when we cannot write there or when others
// could: they would choose the program that we run.
func useCache(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(dir, cachePermission); err != nil {
			return err
		}
		if err := os.Chmod(dir, cachePermission); err != nil { // whatever the umask
			return err
		}
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	uid, _, err := owner(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || int(uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s: not a directory that only we can write", dir)
	}
	probe, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return err
	}
	return os.Remove(probe)
}
