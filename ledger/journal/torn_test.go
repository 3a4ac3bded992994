package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// smallSegments are options under which a few commands make several segments.
func smallSegments() Options {
	o := quiet()
	o.SegmentBytes = 700
	return o
}

// written is what a journal left in its directory: whole files, by name, and what was acknowledged.
type written struct {
	files map[string][]byte
	last  string // the last segment
	ids   []uuid.UUID
	ends  []int64 // of the records in the last segment
}

// writeEight puts eight commands into segments, and closes the journal or lets its process die.
func writeEight(t *testing.T, closed bool) (w written) {
	d := newDisk(1)
	j := mustOpen(t, d, smallSegments())
	for range 8 {
		c := release("alice")
		w.ids = append(w.ids, c.ID)
		mustPut(t, j, c)
	}
	if closed {
		mustClose(t, j)
	} else {
		defer j.Close()
	}
	w.files = map[string][]byte{}
	for name, n := range d.crash().names {
		w.files[name] = n.seen
		w.last = max(w.last, name)
	}
	if len(w.files) < 3 {
		t.Fatalf("only %d segments", len(w.files))
	}
	number, _ := segmentNumber(w.last)
	records, _, _ := scan(w.files[w.last], number)
	if len(records) < 2 {
		t.Fatalf("only %d records in the last segment", len(records))
	}
	for _, r := range records {
		w.ends = append(w.ends, r.at+r.size())
	}
	return w
}

// with is a disk with these files, but one.
func (w *written) with(name string, b []byte) *disk {
	d := newDisk(2)
	for n, content := range w.files {
		if n == name {
			content = b
		}
		node := &inode{seen: bytes.Clone(content), safe: bytes.Clone(content), dirty: map[int]bool{}}
		d.names[n], d.durable[n] = node, node
	}
	return d
}

// before is how many of the commands end before a byte of the last segment.
func (w *written) before(size int) int {
	n := len(w.ids) - len(w.ends)
	for _, end := range w.ends {
		if end <= int64(size) {
			n++
		}
	}
	return n
}

// TestTornTail cuts the last segment at every byte and wants what ends before the cut to be there, with
// what is put behind it.
func TestTornTail(t *testing.T) {
	t.Parallel()
	for _, closed := range []bool{true, false} {
		w := writeEight(t, closed)
		for size := range w.files[w.last] {
			d := w.with(w.last, w.files[w.last][:size])
			want := w.ids[:w.before(size)]
			wantIDs(t, "beside the process", waits(t, d), want)
			j := mustOpen(t, d, smallSegments())
			more := release("bob")
			mustPut(t, j, more)
			if n, _, _ := j.Waiting(); n != len(want)+1 {
				t.Fatalf("cut at %d: %d wait instead of %d", size, n, len(want)+1)
			}
			j.Close()
			wantIDs(t, "cut and continued", waits(t, d), append(slices.Clone(want), more.ID))
			torn := size > headerSize && !slices.Contains(append(w.ends, int64(len(w.files[w.last]))), int64(size))
			if torn != (j.TornBytes > 0) {
				t.Fatalf("cut at %d: %d bytes were torn", size, j.TornBytes)
			}
		}
	}
}

// TestTornTailOnDisk does so with real files, within the last record.
func TestTornTailOnDisk(t *testing.T) {
	t.Parallel()
	dir, ids := fill(t, quiet(), "alice", "bob", "alice")
	path := filepath.Join(dir, segmentName(1))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	records, _, _ := scan(whole, 1)
	for size := int(records[2].at); size < len(whole); size += 7 {
		if err := os.WriteFile(path, whole[:size], fileMode); err != nil {
			t.Fatal(err)
		}
		j, err := Open(dir, quiet())
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, j)
		want := ids[:2]
		if int64(size) >= records[2].at+records[2].size() {
			want = ids
		}
		wantIDs(t, "cut", waits(t, directory(dir)), want)
	}
}

// TestBitFlips flips every bit of what holds segments together, and one of every byte of what is in them. Where it was known that the bit had been synced, Open
// refuses, and names the file; else the last write is taken for torn.
func TestBitFlips(t *testing.T) {
	t.Parallel()
	for _, closed := range []bool{true, false} {
		w := writeEight(t, closed)
		lastWrite := w.ends[len(w.ends)-1] // the mark that Close left
		if !closed {
			lastWrite = w.ends[len(w.ends)-2]
		}
		for name, content := range w.files {
			for bit := range 8 * len(content) {
				if bit/8 < headerSize+frameSize || bit%8 == bit/8%8 {
					w.flip(t, name, bit, name == w.last && int64(bit/8) >= lastWrite, int(lastWrite))
				}
			}
		}
	}
}

// flip flips one bit and opens.
func (w *written) flip(t *testing.T, name string, bit int, torn bool, lastWrite int) {
	t.Helper()
	flipped := bytes.Clone(w.files[name])
	flipped[bit/8] ^= 1 << (bit % 8)
	d := w.with(name, flipped)
	j, err := open(d, smallSegments())
	if torn {
		if err != nil {
			t.Fatalf("bit %d of the last write: %v", bit, err)
		}
		j.Close()
		wantIDs(t, "without the last write", waits(t, d), w.ids[:w.before(lastWrite)])
		return
	}
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) {
		t.Fatalf("bit %d of %s, %d bytes: %v", bit, name, len(flipped), err)
	}
	if !bytes.Equal(d.names[name].seen, flipped) {
		t.Fatal("what is damaged was changed")
	}
}

// TestHole wants a write of several records that reached the disk with a hole in it to be taken for torn, since
// it was never acknowledged, unless a later write shows that it was.
func TestHole(t *testing.T) {
	t.Parallel()
	c := release("alice")
	c.SpooledAt = time.Now()
	payload, err := encode(c)
	if err != nil {
		t.Fatal(err)
	}
	b := header{number: 1}.bytes()
	b = appendFrame(b, 1, headerSize, payload)
	acked := len(b)
	for range 3 {
		b = appendFrame(b, 1, int64(acked), payload)
	}
	later := appendFrame(bytes.Clone(b), 1, int64(len(b)), payload)
	for at := acked; at < len(b); at += 10 {
		for _, whole := range [][]byte{b, later} {
			d := newDisk(1)
			holed := bytes.Clone(whole)
			clear(holed[at:min(at+sector, len(b))])
			d.names[segmentName(1)] = &inode{seen: holed, dirty: map[int]bool{}}
			j, err := open(d, quiet())
			if known := len(whole) == len(later); known != errors.Is(err, ErrDamaged) {
				t.Fatalf("a hole at %d of %d: %v", at, len(whole), err)
			}
			if err == nil {
				if n, _, _ := j.Waiting(); n != 1+(at-acked)/(len(payload)+frameSize) {
					t.Fatalf("a hole at %d: %d wait", at, n)
				}
				j.Close()
			}
		}
	}
}

// TestReadGoesOnBehindDamage wants the list of a damaged journal to have what can be read, and the error.
func TestReadGoesOnBehindDamage(t *testing.T) {
	t.Parallel()
	w := writeEight(t, true)
	first := segmentName(1)
	records, _, _ := scan(w.files[first], 1)
	flipped := bytes.Clone(w.files[first])
	flipped[records[1].at+frameSize]++
	var ids []uuid.UUID
	var errs []error
	for e, err := range read(w.with(first, flipped)) {
		if err != nil {
			errs = append(errs, err)
		} else {
			ids = append(ids, e.Command.ID)
		}
	}
	want := append([]uuid.UUID{w.ids[0]}, w.ids[len(records):]...)
	wantIDs(t, "around the damage", ids, want)
	if len(errs) != 1 || !errors.Is(errs[0], ErrDamaged) {
		t.Errorf("%v", errs)
	}
}

// TestRepair does what the package's description says of a damaged journal: all but what stands in the damaged
// segment from the damage on is booked.
func TestRepair(t *testing.T) {
	t.Parallel()
	w := writeEight(t, true)
	name := segmentName(2)
	records, _, _ := scan(w.files[name], 2)
	cut := records[1].at
	w.files[name][cut+frameSize]++
	if _, err := open(w.with("", nil), quiet()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%s at byte %d:", name, cut)) {
		t.Fatal(err)
	}
	upTo, behind := w.with(name, w.files[name][:cut]), w.with("", nil)
	for n := range w.files {
		if n > name {
			delete(upTo.names, n)
		} else {
			delete(behind.names, n)
		}
	}
	b := &booker{}
	for _, d := range []*disk{upTo, behind} {
		o := quiet()
		g := watch(&o)
		j := mustOpen(t, d, o)
		drainAll(t, j, g, b.append)
		mustClose(t, j)
	}
	first, _, _ := scan(w.files[segmentName(1)], 1)
	lost := len(first) + 1
	wantIDs(t, "all but the damaged one", b.ids(""), slices.Delete(slices.Clone(w.ids), lost, lost+1))
}

// TestSegmentMissing wants a segment that somebody deleted between others to be missed.
func TestSegmentMissing(t *testing.T) {
	t.Parallel()
	w := writeEight(t, true)
	d := w.with("", nil)
	delete(d.names, segmentName(2))
	if _, err := open(d, quiet()); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	d = w.with("", nil)
	d.names[segmentName(2)] = d.names[segmentName(1)]
	if _, err := open(d, quiet()); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a segment under another's name: %v", err)
	}
	d = w.with(w.last, append(header{number: 9}.bytes(), 0))
	if _, err := open(d, quiet()); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a header of another segment: %v", err)
	}
}

// TestStaleBlocks wants a record to be read only from where it was written: a disk may show old blocks of
// deleted segments.
func TestStaleBlocks(t *testing.T) {
	t.Parallel()
	b := appendFrame(nil, 7, headerSize, []byte("{}"))
	if _, ok := readFrame(b, 7, headerSize); !ok {
		t.Error("a record is not read")
	}
	if _, ok := readFrame(b, 8, headerSize); ok {
		t.Error("a record of another segment is read")
	}
	if _, ok := readFrame(b, 7, headerSize-1); ok {
		t.Error("a record is read before the place where all was synced")
	}
}

// TestNewer wants a journal of a newer release to be refused, not to be damaged.
func TestNewer(t *testing.T) {
	t.Parallel()
	b := header{number: 1}.bytes()
	record := appendFrame(bytes.Clone(b), 1, headerSize, []byte(`{"v":2}`))
	b[11]++ // the version
	segment := newerHeader(b)
	for _, content := range [][]byte{record, segment, append(bytes.Clone(record), "torn"...)} {
		d := newDisk(1)
		d.names[segmentName(1)] = &inode{seen: content, safe: content, dirty: map[int]bool{}}
		if _, err := open(d, quiet()); !errors.Is(err, ErrTooNew) || errors.Is(err, ErrDamaged) {
			t.Errorf("%v", err)
		}
		if !bytes.Equal(d.names[segmentName(1)].seen, content) {
			t.Error("it was changed")
		}
	}
}

// TestForeign wants an intact record that is no command to be damage, and other files to be left alone.
func TestForeign(t *testing.T) {
	t.Parallel()
	d := newDisk(1)
	content := appendFrame(header{number: 1}.bytes(), 1, headerSize, []byte(`{"v":1,"op":"credit"}`))
	d.names[segmentName(1)] = &inode{seen: content, safe: content, dirty: map[int]bool{}}
	if _, err := open(d, quiet()); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"1.journal", "x.journal", segmentName(0), "lock", segmentName(1) + "~"} {
		if n, ok := segmentNumber(name); ok {
			t.Errorf("%s is segment %d", name, n)
		}
	}
}

// TestOneProcess wants the second Journal of a directory to be told who has it, and to get it afterwards.
func TestOneProcess(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	j, err := Open(dir, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, quiet()); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	mustPut(t, j, release("alice"))
	mustClose(t, j)
	if err := j.Put(context.Background(), release("alice")); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if j, err = Open(dir, quiet()); err != nil {
		t.Fatal(err)
	}
	if n, bytes, oldest := j.Waiting(); n != 1 || bytes <= headerSize || time.Since(oldest) > time.Hour || oldest.IsZero() {
		t.Errorf("%d wait, %d bytes, since %s", n, bytes, oldest)
	}
	mustClose(t, j)
	for _, path := range []string{dir, filepath.Join(dir, segmentName(1)), filepath.Join(dir, lockName)} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
}

// FuzzRead wants hostile bytes to be read as a prefix of them that is what this package writes, and
// nothing else.
func FuzzRead(f *testing.F) {
	c := settle("alice", uuid.New(), "0.25")
	c.SpooledAt = time.Now()
	payload, err := encode(c)
	if err != nil {
		f.Fatal(err)
	}
	b := header{number: 1}.bytes()
	f.Add(b, false)
	f.Add(payload, true)
	b = appendFrame(b, 1, headerSize, payload)
	f.Add(b, false)
	b = appendFrame(b, 1, int64(len(b)), payload)
	f.Add(b, false)
	f.Add(appendFrame(b, 1, int64(len(b)), nil), false)
	f.Fuzz(func(t *testing.T, b []byte, framed bool) {
		if framed { // else hardly anything would get behind the CRC
			b = appendFrame(header{number: 1}.bytes(), 1, headerSize, b)
		}
		readHeader(b)
		records, intact, synced := scan(b, 1)
		if intact > int64(len(b)) || synced && intact == int64(len(b)) {
			t.Fatalf("%d of %d bytes are intact, %v", intact, len(b), synced)
		}
		for _, r := range records {
			again := appendFrame(nil, 1, r.synced, r.payload)
			if !bytes.Equal(again, b[r.at:r.at+r.size()]) {
				t.Fatalf("the record at %d is not one that is written", r.at)
			}
			understood("fuzz", &r)
		}
		d := newDisk(1)
		d.names[segmentName(1)] = &inode{seen: b, safe: b, dirty: map[int]bool{}}
		j, err := open(d, quiet())
		if err != nil {
			return
		}
		defer j.Close()
		if n, _, _ := j.Waiting(); n != len(records) && n != 0 {
			t.Fatalf("%d wait of %d records", n, len(records))
		}
	})
}

// FuzzDecode wants whatever is read as a command to be written as the same command again.
func FuzzDecode(f *testing.F) {
	for _, op := range []domain.Op{
		domain.Settle{RequestID: uuid.New(), Data: explained("1"), Response: &domain.Response{Body: []byte("{}")}},
		domain.Release{RequestID: uuid.New(), Reason: domain.RefundShutdown},
		domain.Spooled{RequestID: uuid.New(), Commit: explained("1")},
	} {
		b, err := encode(domain.Command{ID: newID(), Account: "alice", SpooledAt: time.Now(), Op: op})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decode(b)
		if err != nil {
			return
		}
		first, err := encode(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(first)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := encode(again); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%s became %s: %v", first, second, err)
		}
	})
}
