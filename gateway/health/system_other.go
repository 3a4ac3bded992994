//go:build !linux

package health

// platform fills in nothing: only Linux is asked.
func platform(*System, string) {}

// Disk says nothing of the disk: only Linux is asked.
func Disk(string) (free, total *int64) { return nil, nil }
