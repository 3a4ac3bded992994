package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
)

var (
	errInjected = errors.New("input/output error")
	errPower    = errors.New("the power is off")
)

// sector is what a disk writes whole.
const sector = 64

// disk is a directory in memory that can fail at any call and lose power at any moment. What a process
// sees of a file, and what the disk has of it, differ until it is synced; so do the names.
type disk struct {
	mu      sync.Mutex
	rng     *rand.Rand
	names   map[string]*inode // as they are seen
	durable map[string]*inode
	changes []change // from durable to names, in order
	calls   int
	failAt  int           // the number of the call that fails; 0: none
	failed  bool          // it has
	offAt   int           // the number of the call at which the power goes; 0: none
	off     chan struct{} // closed when the power has gone
}

// change is what was done to names in one step; nil: it was removed.
type change map[string]*inode

// inode is a file. A sector that is dirty may be on the disk as it is seen, or as it was.
type inode struct {
	seen, safe []byte
	dirty      map[int]bool
}

func newDisk(seed uint64) *disk {
	return &disk{rng: rand.New(rand.NewPCG(seed, 0)), names: map[string]*inode{}, durable: map[string]*inode{}, off: make(chan struct{})}
}

// call counts and, where it is its turn, fails.
func (d *disk) call() error {
	d.calls++
	if d.calls == d.offAt {
		d.turnOff()
	}
	switch {
	case d.isOff():
		return errPower
	case d.calls == d.failAt:
		d.failed = true
		return errInjected
	}
	return nil
}

// fail makes the n-th call from now on fail.
func (d *disk) fail(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failAt, d.failed = d.calls+n, false
}

// hasFailed says whether the call that was to fail, or at which the power was to go, has come.
func (d *disk) hasFailed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed || d.isOff()
}

// failOff makes the power go at the n-th call from now on.
func (d *disk) failOff(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.offAt = d.calls + n
}

func (d *disk) isOff() bool {
	select {
	case <-d.off:
		return true
	default:
		return false
	}
}

func (d *disk) turnOff() {
	if !d.isOff() {
		close(d.off)
	}
}

func (d *disk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.names)), d.call()
}

func (d *disk) do(c change) {
	c.to(d.names)
	d.changes = append(d.changes, c)
}

func (c change) to(names map[string]*inode) {
	for name, n := range c {
		if n == nil {
			delete(names, name)
		} else {
			names[name] = n
		}
	}
}

func (d *disk) Create(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[name] != nil {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrExist)
	}
	return d.open(name)
}

func (d *disk) Open(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open(name)
}

// open makes a file if need be; one that fails may have made it.
func (d *disk) open(name string) (file, error) {
	err := d.call()
	if errors.Is(err, errPower) {
		return nil, err
	}
	if d.names[name] == nil && (err == nil || d.coin()) {
		d.do(change{name: &inode{dirty: map[int]bool{}}})
	}
	if err != nil {
		return nil, err
	}
	return &handle{d, d.names[name]}, nil
}

func (d *disk) coin() bool { return d.rng.IntN(2) == 0 }

func (d *disk) Read(name string) ([]byte, error) { return d.ReadAt(name, 0, 1<<30) }

func (d *disk) ReadAt(name string, at int64, size int) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return nil, err
	}
	n := d.names[name]
	if n == nil {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	from := min(int(at), len(n.seen))
	return bytes.Clone(n.seen[from:min(from+size, len(n.seen))]), nil
}

func (d *disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return err
	}
	d.do(change{to: d.names[from], from: nil})
	return nil
}

// Remove may have removed what it fails to remove.
func (d *disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.call()
	if errors.Is(err, errPower) {
		return err
	}
	if err == nil && d.names[name] == nil {
		return fs.ErrNotExist
	}
	if err == nil || d.coin() {
		d.do(change{name: nil})
	}
	return err
}

func (d *disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return err
	}
	for _, c := range d.changes {
		c.to(d.durable)
	}
	d.changes = nil
	return nil
}

// crash is what the next process finds when this one was killed: all that was seen, synced or not.
func (d *disk) crash() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turnOff()
	next := newDisk(d.rng.Uint64())
	next.names, next.durable, next.changes = d.names, d.durable, d.changes
	return next
}

// powerLoss is what is there when the power is back: what was synced, and of the rest what chance left.
func (d *disk) powerLoss() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turnOff()
	for _, c := range d.changes {
		if d.coin() {
			c.to(d.durable)
		}
	}
	d.changes = nil
	next := newDisk(d.rng.Uint64())
	for name, n := range d.durable {
		size := len(n.safe)
		if len(n.seen) > size {
			size += d.rng.IntN(len(n.seen) - size + 1)
		} else if d.coin() {
			size = len(n.seen)
		}
		b := make([]byte, size)
		copy(b, n.safe)
		for s := range n.dirty {
			if d.coin() {
				n.copySector(b, s)
			}
		}
		node := &inode{seen: b, safe: bytes.Clone(b), dirty: map[int]bool{}}
		next.names[name], next.durable[name] = node, node
	}
	return next
}

// copySector copies a sector as it is seen, as far as there is room.
func (n *inode) copySector(to []byte, s int) {
	from := min(s*sector, len(n.seen))
	copy(to[min(from, len(to)):], n.seen[from:min(from+sector, len(n.seen))])
}

// handle is an open file.
type handle struct {
	disk *disk
	node *inode
}

// WriteAt may have written a part of what it fails to write.
func (h *handle) WriteAt(b []byte, at int64) (int, error) {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	err := h.disk.call()
	if errors.Is(err, errPower) {
		return 0, err
	}
	if err != nil {
		b = b[:h.disk.rng.IntN(len(b)+1)]
	}
	n := h.node
	if grow := int(at) + len(b) - len(n.seen); grow > 0 {
		n.seen = append(n.seen, make([]byte, grow)...)
	}
	copy(n.seen[at:], b)
	for s := int(at) / sector; s*sector < int(at)+len(b); s++ {
		n.dirty[s] = true
	}
	return len(b), err
}

func (h *handle) Truncate(size int64) error {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if err := h.disk.call(); err != nil {
		return err
	}
	h.node.seen = slices.Concat(h.node.seen, make([]byte, max(0, int(size)-len(h.node.seen))))[:size]
	return nil
}

// Sync that fails has written what chance wanted, and the rest counts as written from then on: the next
// one does not write it.
func (h *handle) Sync() error {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	err := h.disk.call()
	if errors.Is(err, errPower) {
		return err
	}
	n := h.node
	safe := make([]byte, len(n.seen))
	copy(safe, n.safe)
	for s := range n.dirty {
		if err == nil || h.disk.coin() {
			n.copySector(safe, s)
		}
	}
	n.safe, n.dirty = safe, map[int]bool{}
	return err
}

func (h *handle) Close() error {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	return h.disk.call()
}

var errNoSpace = errors.New("no space left on device")

// fullDisk is a disk that takes names but no bytes, while it is full.
type fullDisk struct {
	*disk

	full atomic.Bool
}

type fullFile struct {
	file

	disk *fullDisk
}

func (d *fullDisk) Create(name string) (file, error) {
	f, err := d.disk.Create(name)
	return &fullFile{f, d}, err
}

func (d *fullDisk) Open(name string) (file, error) {
	f, err := d.disk.Open(name)
	return &fullFile{f, d}, err
}

func (f *fullFile) WriteAt(b []byte, at int64) (int, error) {
	if f.disk.full.Load() {
		return 0, errNoSpace
	}
	return f.file.WriteAt(b, at)
}
