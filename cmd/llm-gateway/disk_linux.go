package main

import "syscall"

// volatile are the kinds of disk that go with the machine or the container.
var volatile = map[int64]string{
	0x01021994: "tmpfs, which is memory",
	0x858458f6: "ramfs, which is memory",
	0x794c7630: "the container's own layer (overlayfs)",
}

// volatileDisk says on what a directory is, where that does not last; "" where it may.
func volatileDisk(dir string) string {
	var disk syscall.Statfs_t
	if syscall.Statfs(dir, &disk) != nil {
		return ""
	}
	return volatile[int64(disk.Type)] //nolint:unconvert // it is an int32 on some
}
