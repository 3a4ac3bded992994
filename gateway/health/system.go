package health

import (
	"runtime"
	"runtime/metrics"
	"time"
)

// System is what the process takes of its machine. What the platform does not tell is null ("unknown" in
// Unknown's list of names).
type System struct {
	At             time.Time `json:"checked_at"`
	Started        time.Time `json:"started_at"`
	Cores          int       `json:"cores"`        // that Go uses
	CPUSeconds     *float64  `json:"cpu_seconds"`  // since the start
	CPUShare       *float64  `json:"cpu_share"`    // of one core, since the check before
	Load           *float64  `json:"load_1m"`      // of the machine
	RSS            *int64    `json:"memory_rss"`   // bytes
	Heap           int64     `json:"memory_heap"`  // bytes of Go's heap that are in use
	MemoryTotal    *int64    `json:"memory_total"` // bytes of the machine
	Goroutines     int       `json:"goroutines"`   //
	Descriptors    *int      `json:"descriptors"`  // open files and sockets
	MaxDescriptors *int64    `json:"descriptors_limit"`
	DiskFree       *int64    `json:"data_dir_free"`  // bytes that this process may still use of DATA_DIR's disk
	DiskTotal      *int64    `json:"data_dir_total"` // bytes
	Unknown        []string  `json:"unknown"`        // the names of what is null
}

// Sampler samples the system. It belongs to one goroutine.
type Sampler struct {
	dataDir string
	started time.Time
	at      time.Time
	cpu     float64
}

// NewSampler watches this process, and the disk that dataDir is on.
func NewSampler(dataDir string) *Sampler { return &Sampler{dataDir: dataDir, started: time.Now()} }

// Sample looks now.
func (s *Sampler) Sample() *System {
	now := time.Now()
	out := &System{At: now, Started: s.started, Cores: runtime.GOMAXPROCS(0), Goroutines: runtime.NumGoroutine(), Heap: heap(), Unknown: []string{}}
	platform(out, s.dataDir)
	if out.CPUSeconds != nil {
		since, before := s.at, s.cpu
		if since.IsZero() {
			since, before = s.started, 0
		}
		if passed := now.Sub(since).Seconds(); passed > 0 {
			out.CPUShare = new(max(0, *out.CPUSeconds-before) / passed)
		}
		s.at, s.cpu = now, *out.CPUSeconds
	}
	out.name()
	return out
}

// name lists what is not known.
func (s *System) name() {
	for _, one := range []struct {
		name    string
		missing bool
	}{
		{"cpu_seconds", s.CPUSeconds == nil}, {"cpu_share", s.CPUShare == nil}, {"load_1m", s.Load == nil},
		{"memory_rss", s.RSS == nil}, {"memory_total", s.MemoryTotal == nil}, {"descriptors", s.Descriptors == nil},
		{"descriptors_limit", s.MaxDescriptors == nil}, {"data_dir_free", s.DiskFree == nil}, {"data_dir_total", s.DiskTotal == nil},
	} {
		if one.missing {
			s.Unknown = append(s.Unknown, one.name)
		}
	}
}

// heap is what Go's live and not yet collected objects take.
func heap() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return int64(min(sample[0].Value.Uint64(), 1<<62))
}
