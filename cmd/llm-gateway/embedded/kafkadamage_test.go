package embedded

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestKafkaTorn cuts the file that was written last at every byte of what was written last, as a
// write does that a kill or a power failure cuts short.
func TestKafkaTorn(t *testing.T) {
	t.Parallel()
	k, dir := withTopic(t)
	p := openProducer(t, k, 0)
	p.commit(t, "a")
	p.begin(t, "half")
	before := crashed(t, dir)
	if err := p.client.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	after := crashed(t, dir)
	for _, file := range []func(string) string{segmentFile, indexFile, producersFile} {
		from, to := fileSize(t, file(before)), fileSize(t, file(after))
		if to-from < 15 {
			t.Fatalf("%s has grown by %d bytes", file(after), to-from)
		}
		for size := from; size <= to; size++ {
			whole := size == to || !strings.HasSuffix(file(after), segmentSuffix) // the commit's batch is there
			dir := crashed(t, after)
			if err := os.Truncate(file(dir), size); err != nil {
				t.Fatal(err)
			}
			if size == from { // as a block that was never filled
				if err := os.Truncate(file(dir), to); err != nil {
					t.Fatal(err)
				}
			}
			mendCut(t, dir, whole)
			if (size-from)%40 == 0 || size == to {
				runCut(t, dir, map[bool]string{true: "a half b", false: "a b"}[whole])
			}
		}
	}
}

// mendCut mends twice: the second time there is nothing to do.
func mendCut(t *testing.T, dataDir string, whole bool) {
	t.Helper()
	dir := filepath.Join(dataDir, kafkaDir)
	var once string
	for range 2 {
		if err := mendKafka(t.Context(), dir, silent); err != nil {
			t.Fatal(err)
		}
		p, err := readPartition(filepath.Dir(segmentFile(dataDir)), false)
		if err != nil || len(p.open) > 0 || len(p.aborted) != map[bool]int{false: 1}[whole] || p.end != 4 {
			t.Fatalf("mended to %+v, %v", p, err)
		}
		now := everything(t, dir)
		if once != "" && now != once {
			t.Fatalf("mended again:\n%q\n%q", once, now)
		}
		once = now
	}
}

// runCut publishes "b" after what is there, and reads it all after another kill.
func runCut(t *testing.T, dataDir, want string) {
	t.Helper()
	k := startBroker(t, dataDir)
	openProducer(t, k, 0).commit(t, "b")
	expectRecords(t, startBroker(t, crashed(t, dataDir)), "after a cut", want)
}

func producersFile(dataDir string) string { return filepath.Join(dataDir, kafkaDir, kafkaProducers) }

func fileSize(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// change rewrites a file.
func change(t testing.TB, path string, with func([]byte) []byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, with(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte {
		b[(at+len(b))%len(b)] ^= 0x40
		return b
	}
}

// TestKafkaDamage: what is neither an orderly end nor a kill is refused by a message that names the
// directory, and nothing there is changed.
func TestKafkaDamage(t *testing.T) {
	t.Parallel()
	k, dir := withTopic(t)
	p := openProducer(t, k, 0)
	p.commit(t, "a")
	p.commit(t, "b")
	p.commit(t, "c")
	stopBroker(t, k)
	kafka := func(dataDir string, names ...string) string {
		return filepath.Join(append([]string{dataDir, kafkaDir}, names...)...)
	}
	write := func(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }
	for name, damage := range map[string]func(dir string) error{
		"a bit of the first batch": func(d string) error { change(t, segmentFile(d), flip(70)); return nil },
		"a bit of the last batch":  func(d string) error { change(t, segmentFile(d), flip(-1)); return nil },
		"a length that is too large, as of a torn batch": func(d string) error {
			change(t, segmentFile(d), func(b []byte) []byte { binary.BigEndian.PutUint32(b[8:], 5000); return b })
			return nil
		},
		"a length that is too small": func(d string) error { change(t, segmentFile(d), flip(11)); return nil },
		"a batch twice": func(d string) error {
			change(t, segmentFile(d), func(b []byte) []byte { return append(b, b...) })
			return nil
		},
		"another format": func(d string) error {
			change(t, segmentFile(d), func(b []byte) []byte { b[batchFormat] = 1; return b })
			return nil
		},
		"a torn batch that is not the next": func(d string) error {
			change(t, segmentFile(d), func(b []byte) []byte { return append(b, b[:40]...) })
			return nil
		},
		"a segment under another name": func(d string) error {
			return os.Rename(segmentFile(d), strings.Replace(segmentFile(d), "0"+segmentSuffix, "7"+segmentSuffix, 1))
		},
		"a segment without a number": func(d string) error { return write(filepath.Join(filepath.Dir(segmentFile(d)), "x.dat"), "") },
		"an early segment that is cut": func(d string) error {
			return errors.Join(os.Truncate(segmentFile(d), fileSize(t, segmentFile(d))-1), write(strings.Replace(segmentFile(d), "/0.dat", "/6.dat", 1), ""))
		},
		"no meta.json":            func(d string) error { return os.Remove(kafka(d, kafkaMeta)) },
		"no topics.json":          func(d string) error { return os.Remove(kafka(d, kafkaTopics)) },
		"a list of other topics":  func(d string) error { return write(kafka(d, kafkaTopics), `{"version":1,"topics":[]}`) },
		"topics.json cut":         func(d string) error { return os.Truncate(kafka(d, kafkaTopics), 20) },
		"meta.json cut":           func(d string) error { return os.Truncate(kafka(d, kafkaMeta), 5) },
		"meta.json of the future": func(d string) error { return write(kafka(d, kafkaMeta), `{"version":99}`) },
		"a bit of the producers":  func(d string) error { change(t, producersFile(d), flip(12)); return nil },
		"somebody else's directory": func(d string) error {
			return errors.Join(os.RemoveAll(kafka(d)), os.Mkdir(kafka(d), 0o700), write(kafka(d, "x"), "x"))
		},
		"a file in its place": func(d string) error { return errors.Join(os.RemoveAll(kafka(d)), write(kafka(d), "x")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := crashed(t, dir)
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			before := everything(t, dir)
			k, err := StartKafka(t.Context(), Options{DataDir: dir})
			if err == nil {
				stopBroker(t, k)
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), kafka(dir)) || strings.Contains(err.Error(), "\n") {
				t.Errorf("not in one line with the directory: %v", err)
			}
			t.Log(err)
			if after := everything(t, dir); after != before {
				t.Errorf("it was changed:\n%s\n%s", before, after)
			}
		})
	}
}

// everything is what a directory holds, apart from what is derived from the rest.
func everything(t testing.TB, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all.WriteString(path + ": " + string(text) + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestKafkaSegments: a partition of several segments is read again as it was, and all that belongs
// together is found over their borders.
func TestKafkaSegments(t *testing.T) {
	t.Parallel()
	k, dir := withTopic(t)
	p := openProducer(t, k, 0)
	noise := make([]byte, 400<<10)
	rand.Read(noise) //nolint:errcheck // it never returns an error
	large := hex.EncodeToString(noise)
	var want []string
	p.begin(t, "half")
	for range 4 * segmentBytes / len(large) { // compressed, it is half as long
		if err := p.produce(t.Context(), large); err != nil {
			t.Fatal(err)
		}
	}
	dir = crashed(t, dir)
	k = startBroker(t, dir)
	p = openProducer(t, k, 0)
	for range 4 * segmentBytes / len(large) { // compressed, it is half as long
		p.commit(t, large)
		want = append(want, large)
	}
	if files, err := filepath.Glob(filepath.Join(filepath.Dir(segmentFile(dir)), "*"+segmentSuffix)); err != nil || len(files) < 3 {
		t.Fatalf("segments %v, %v", files, err)
	}
	for range 2 {
		dir = crashed(t, dir)
		k = startBroker(t, dir)
		got, err := committed(t.Context(), k.Brokers(), 0)
		if err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
			t.Fatalf("%d records, want %d (%v)", len(got), len(want), err)
		}
	}
}

// TestKafkaCannotWrite: a broker that cannot keep what it acknowledges says so, and ends.
func TestKafkaCannotWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k, err := StartKafka(t.Context(), Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := makeTopic(t.Context(), k.Brokers(), 1); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, kafkaDir, kafkaPartitions), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := newProducer(k.Brokers(), 0)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.transaction(t.Context(), kgo.TryCommit, "a") }()
	<-k.Done()
	if err := k.Stop(t.Context()); err == nil || !strings.Contains(err.Error(), "persist batch") {
		t.Errorf("it stopped by %v", err)
	}
	p.client.Close()
	if err := <-ended; err == nil {
		t.Error("the record was acknowledged")
	}
}

// TestKfakeNeedsMending shows on kfake alone what mending is for. Where it fails, kfake has learned
// something, and a part of mending has become needless.
func TestKfakeNeedsMending(t *testing.T) {
	t.Parallel()
	bare := func(dataDir string) *Kafka {
		k, err := launchKafka(filepath.Join(dataDir, kafkaDir), silent)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stopBroker(t, k) })
		return k
	}
	k, dir := withTopic(t)
	p := openProducer(t, k, 0)
	p.commit(t, "a")
	p.begin(t, "half")

	killed := crashed(t, dir)
	again := bare(killed)
	openProducer(t, again, 0).commit(t, "b")
	expectRecords(t, again, "after a kill, with a commit that clients do not see", "a")
	expectRecords(t, bare(crashed(t, killed)), "after two kills", "a half b")

	expectRecords(t, bare(crashes[2].end(t, dir, nil)), "without the last entry of the index", "a half")

	stopBroker(t, k)
	bare(dir)
	again = bare(crashed(t, dir))
	openProducer(t, again, 0).commit(t, "b")
	expectRecords(t, again, "after a stop and a kill", "a half b")
}
