package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"
)

func TestLock(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	first, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Lock(dir)
	var locked *LockedError
	if !errors.Is(err, ErrLocked) || !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Fatalf("second: %v", err)
	}
	if err := first.Unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Unlock(); err != nil {
		t.Error(err)
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := Endpoints{PostgresURL: "postgres://u:p@127.0.0.1:1/d", KafkaBrokers: []string{"127.0.0.1:2"}, RedisURL: "redis://:p@127.0.0.1:3/0", PID: 7}
	absent := func(when string) {
		t.Helper()
		e, err := ReadEndpoints(dir)
		// A process that another test is just forking holds what is locked here, until it executes.
		for deadline := time.Now().Add(deathLimit); err == nil && time.Now().Before(deadline); {
			e, err = ReadEndpoints(dir)
		}
		if !errors.Is(err, ErrNoEndpoints) {
			t.Errorf("%s: %+v, %v", when, e, err)
		}
	}
	absent("nobody ever ran")
	lock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	absent("not yet written")
	if err := WriteEndpoints(dir, want); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadEndpoints(dir); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	path := filepath.Join(dir, endpointsFile)
	if err := os.WriteFile(path, []byte(`{"postgres_url":"postgres://old","pid":8}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadEndpoints(dir); err != nil || !reflect.DeepEqual(got, Endpoints{PostgresURL: "postgres://old", PID: 8}) {
		t.Errorf("of a release before: %+v, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := WriteEndpoints(dir, want); err != nil { // as a killed holder leaves it
		t.Fatal(err)
	}
	absent("the holder is dead")
	if lock, err = Lock(dir); err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	absent("a new holder has not written yet")
}

// TestReadersDoNotDisturbLock: a reader tests the lock by taking it for an instant.
func TestReadersDoNotDisturbLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				_, _ = ReadEndpoints(dir)
			}
		})
	}
	for range 50 {
		lock, err := Lock(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := lock.Unlock(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}
