package journal

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// countedDir is a directory that counts the fsyncs of its files.
type countedDir struct {
	directory

	syncs *atomic.Int64
}

type countedFile struct {
	file

	syncs *atomic.Int64
}

func (d countedDir) Create(name string) (file, error) {
	f, err := d.directory.Create(name)
	return countedFile{f, d.syncs}, err
}

func (f countedFile) Sync() error {
	f.syncs.Add(1)
	return f.file.Sync()
}

// BenchmarkPut is the rate of durable Puts, alone and with 64 at once.
func BenchmarkPut(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			o := quiet()
			o.MaxBytes = 1 << 40
			dir := countedDir{directory(b.TempDir()), new(atomic.Int64)}
			j := mustOpen(b, dir, o)
			work := make(chan struct{})
			done := make(chan struct{})
			for i := range callers {
				go func() {
					defer func() { done <- struct{}{} }()
					for range work {
						if err := j.Put(b.Context(), settle(fmt.Sprint("account-", i), uuid.New(), "0.0125")); err != nil {
							b.Error(err)
						}
					}
				}()
			}
			b.ResetTimer()
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			for range callers {
				<-done
			}
			b.StopTimer()
			_, bytes, _ := j.Waiting()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
			b.ReportMetric(float64(b.N)/float64(dir.syncs.Load()), "puts/fsync")
			b.ReportMetric(float64(bytes)/float64(b.N), "bytes/put")
			mustClose(b, j)
		})
	}
}

// BenchmarkDrain is how fast what waits is handed to a ledger that costs nothing.
func BenchmarkDrain(b *testing.B) {
	o := quiet()
	o.MaxBytes = 1 << 40
	g := watch(&o)
	j := mustOpen(b, directory(b.TempDir()), o)
	var wait sync.WaitGroup
	for i := range 64 {
		wait.Go(func() {
			for range b.N/64 + 1 {
				mustPut(b, j, settle(fmt.Sprint("account-", i), uuid.New(), "0.0125"))
			}
		})
	}
	wait.Wait()
	b.ResetTimer()
	drainAll(b, j, g, func(context.Context, domain.Command) (domain.Outcome, error) { return domain.Outcome{}, nil })
	b.StopTimer()
	mustClose(b, j)
}

// BenchmarkOpen is how fast what waits is read.
func BenchmarkOpen(b *testing.B) {
	d := directory(b.TempDir())
	j := mustOpen(b, d, quiet())
	const n = 20_000
	for i := range n {
		mustPut(b, j, settle(fmt.Sprint("account-", i%100), uuid.New(), "0.0125"))
	}
	_, bytes, _ := j.Waiting()
	mustClose(b, j)
	b.SetBytes(bytes)
	for b.Loop() {
		mustClose(b, mustOpen(b, d, quiet()))
	}
}
