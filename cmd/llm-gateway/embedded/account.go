package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the unprivileged user that runs Postgres when we are root, since Postgres refuses to
// run as root. nil means that children run as we do.
type account struct{ uid, gid uint32 }

// chooseAccount returns the owner of an existing cluster, so that an old cluster stays readable;
// else the user postgres, else nobody.
func chooseAccount(clusterDir string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if uid, gid, err := owner(clusterDir); err == nil && uid != 0 {
		if u, err := user.LookupId(strconv.Itoa(int(uid))); err == nil {
			return newAccount(u)
		}
		return &account{uid: uid, gid: gid}, nil // a number without a name serves as well
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			return newAccount(u)
		}
	}
	return nil, errors.New("running as root, and there is neither a user postgres nor nobody to run Postgres as")
}

func newAccount(u *user.User) (*account, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("group of user %s: %w", u.Username, err)
	}
	return &account{uid: uint32(uid), gid: uint32(gid)}, nil
}

// credential also drops our supplementary groups.
func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// giveFile makes the account the owner of an open file of ours.
func (a *account) giveFile(f *os.File) error {
	if a == nil {
		return nil
	}
	return f.Chown(int(a.uid), int(a.gid))
}

// giveTree makes the account the owner of a directory and all below, if root owns the directory:
// it was copied or restored by root.
func (a *account) giveTree(dir string) error {
	if a == nil {
		return nil
	}
	if uid, _, err := owner(dir); err != nil || uid != 0 {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(a.uid), int(a.gid))
	})
}

func owner(path string) (uid, gid uint32, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("%s: no owner known", path)
	}
	return st.Uid, st.Gid, nil
}
