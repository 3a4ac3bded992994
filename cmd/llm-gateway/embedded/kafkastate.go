package embedded

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// kfake's own files beside the partitions. Those in JSON are written whole, and renamed.
const (
	kafkaMeta       = "meta.json"
	kafkaTopics     = "topics.json"
	kafkaPartitions = "partitions"
	kafkaProducers  = "pids.log"
	kafkaGroups     = "groups.log"
	kafkaSession    = "session_state.json"
	kafkaSnapshot   = "snapshot.json"
	unfinished      = ".tmp" // the end of a name: a file that was being written

	stateVersion = 1
	frameHead    = 8        // bytes: length of the rest, checksum of the rest
	minFrame     = 2        // bytes of the rest: a version
	maxTornFrame = 64 << 10 // bytes that one write can have left
)

// readKafkaLayout returns the names of the partitions' directories, and whether a partition may have
// gaps, or reports files that do not belong together. kfake would take a directory without its
// meta.json for a new one, and write an empty list of topics over the old one.
func readKafkaLayout(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	made := false
	for _, e := range entries {
		made = made || !strings.HasSuffix(e.Name(), unfinished)
	}
	if !made {
		return nil, nil
	}
	if _, err := os.Stat(filepath.Join(dir, kafkaMeta)); err != nil {
		return nil, fmt.Errorf("%w: it is not empty, and has no %s", ErrDamaged, kafkaMeta)
	}
	known, err := knownPartitions(dir)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	entries, err = os.ReadDir(filepath.Join(dir, kafkaPartitions))
	for _, e := range entries {
		gaps, is := known[e.Name()]
		if !is {
			return nil, fmt.Errorf("%w: %s holds records of %s, which %s does not list", ErrDamaged, kafkaPartitions, e.Name(), kafkaTopics)
		}
		found[e.Name()] = gaps
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return found, err
}

// knownPartitions are the directories that the topics may have. The records of a compacted topic have
// gaps.
func knownPartitions(dir string) (map[string]bool, error) {
	var list struct {
		Topics []struct {
			Name       string            `json:"name"`
			Partitions int               `json:"partitions"`
			Configs    map[string]string `json:"configs"`
		} `json:"topics"`
	}
	text, err := os.ReadFile(filepath.Join(dir, kafkaTopics))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err == nil && json.Unmarshal(text, &list) != nil {
		return nil, fmt.Errorf("%w: %s is not JSON", ErrDamaged, kafkaTopics)
	}
	known := map[string]bool{}
	for _, t := range list.Topics {
		for p := range t.Partitions {
			known[url.PathEscape(t.Name)+"-"+strconv.Itoa(p)] = strings.Contains(t.Configs["cleanup.policy"], "compact")
		}
	}
	return known, nil
}

// stateLog is one of kfake's logs of its state: framed entries of JSON. kfake skips a torn end of it
// when it reads, and appends behind it, where it will never read again.
type stateLog struct {
	path    string
	entries [][]byte
	size    int64 // bytes of whole entries
	torn    bool
}

func readStateLog(path string) (*stateLog, error) {
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l := &stateLog{path: path}
	for rest := raw; len(rest) > 0; {
		entry, size := readFrame(rest)
		if entry == nil {
			cut := size > len(rest) && len(rest) <= maxTornFrame || len(bytes.Trim(rest, "\x00")) == 0
			if !cut {
				return nil, fmt.Errorf("%w: %s at byte %d", ErrDamaged, path, l.size)
			}
			l.torn = true
			break
		}
		l.entries = append(l.entries, entry)
		l.size += int64(size)
		rest = rest[size:]
	}
	return l, nil
}

// readFrame reads the entry that raw begins with; nil if it is not whole or not right. size is what
// the entry has or would have with its frame.
func readFrame(raw []byte) (entry []byte, size int) {
	if len(raw) < frameHead+minFrame {
		return nil, frameHead + minFrame
	}
	size = frameHead + int(binary.LittleEndian.Uint32(raw))
	if size < frameHead+minFrame || size > len(raw) ||
		crc32.Checksum(raw[frameHead:size], castagnoli) != binary.LittleEndian.Uint32(raw[4:]) {
		return nil, size
	}
	return raw[frameHead+minFrame : size], size
}

// appendFrame adds an entry in its frame.
func appendFrame(raw, entry []byte) []byte {
	rest := binary.LittleEndian.AppendUint16(nil, stateVersion)
	rest = append(rest, entry...)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(len(rest)))
	raw = binary.LittleEndian.AppendUint32(raw, crc32.Checksum(rest, castagnoli))
	return append(raw, rest...)
}

// mend cuts the torn end off and appends entries.
func (l *stateLog) mend(more [][]byte) error {
	if !l.torn && len(more) == 0 {
		return nil
	}
	var raw []byte
	for _, entry := range more {
		raw = appendFrame(raw, entry)
	}
	return rewriteEnd(l.path, l.size, raw)
}

// producerEntry is an entry of pids.log, as far as it is needed here.
type producerEntry struct {
	Type     string `json:"type"`
	Producer int64  `json:"pid"`
	Epoch    int16  `json:"epoch"`
	Commit   *bool  `json:"commit,omitempty"`
}

// fences are entries after which the producers of open transactions are unknown under the epoch that
// they have: whichever of them lives on, in a process that outlived the broker, gets an error, and
// does not take the rest of its transaction for the whole.
func (l *stateLog) fences(open map[int64]int16) ([][]byte, error) {
	for _, text := range l.entries {
		var e producerEntry
		if err := json.Unmarshal(text, &e); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, l.path, err)
		}
		if epoch, is := open[e.Producer]; is {
			open[e.Producer] = max(epoch, e.Epoch)
		}
	}
	var fences [][]byte
	for producer, epoch := range open {
		text, err := json.Marshal(producerEntry{"endtx", producer, min(epoch, math.MaxInt16-1) + 1, new(bool)})
		if err != nil {
			return nil, err
		}
		fences = append(fences, text)
	}
	return fences, nil
}

// rewriteEnd makes a file end, durably, with the given bytes after size bytes that it keeps.
func rewriteEnd(path string, size int64, end []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if err == nil {
		_, err = f.WriteAt(end, size)
	}
	return errors.Join(err, f.Sync(), f.Close())
}
