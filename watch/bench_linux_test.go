package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
)

// rename gives a file another name n times: two events each.
func rename(t testing.TB, dir string, n int) {
	t.Helper()
	names := [2]string{filepath.Join(dir, "1700000000.M1P1.example:2,"), filepath.Join(dir, "1700000000.M1P1.example:2,S")}
	if err := os.WriteFile(names[0], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := os.Rename(names[i%2], names[(i+1)%2]); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkEvents has an event for each iteration, 8000 at a time, which the kernel keeps. Its time is
// that of making them as well.
func BenchmarkEvents(b *testing.B) {
	dir := b.TempDir()
	w := New(Options{})
	defer w.Close()
	var told atomic.Int64
	x := w.Watch(dir, func(Hint) { told.Add(1) })
	rename(b, dir, 2)
	x.Settle()
	begin := told.Load()
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= 8000 {
		rename(b, dir, min(left, 8000)/2)
		for !x.Settle() {
		}
	}
	b.StopTimer()
	if n := w.Stats().Overflows; n > 0 {
		b.Fatalf("%d overflows", n)
	}
	b.ReportMetric(float64(told.Load()-begin)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkBacklog handles 16 000 events that wait in the kernel's queue.
func BenchmarkBacklog(b *testing.B) {
	dir := b.TempDir()
	w := New(Options{})
	defer w.Close()
	x := w.Watch(dir, func(Hint) {})
	q := w.events.(*inotify).queue
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		b.StopTimer()
		q.mu.Lock() // fsnotify waits when its buffer is full
		rename(b, dir, 8000)
		n += 16000
		b.StartTimer()
		q.mu.Unlock()
		for !x.Settle() {
		}
	}
	if n := w.Stats().Overflows; n > 0 {
		b.Fatalf("%d overflows", n)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
}

// BenchmarkSettle waits when nothing has changed: what it costs to know that.
func BenchmarkSettle(b *testing.B) {
	w := New(Options{})
	defer w.Close()
	x := w.Watch(b.TempDir(), func(Hint) {})
	b.ReportAllocs()
	for b.Loop() {
		if !x.Settle() {
			b.Fatal("not settled")
		}
	}
}

// BenchmarkWatch5000 watches 5000 directories.
func BenchmarkWatch5000(b *testing.B) {
	root := b.TempDir()
	dirs := make([]string, 5000)
	for i := range dirs {
		dirs[i] = filepath.Join(root, fmt.Sprintf(".Folder.%04d", i))
		if err := os.Mkdir(dirs[i], 0o700); err != nil {
			b.Fatal(err)
		}
	}
	hint := func(Hint) {}
	watches := make([]*Watch, len(dirs))
	var heap int64
	var fds int
	for b.Loop() {
		b.StopTimer()
		clear(watches)
		heapBefore, fdsBefore := heapInUse(), openFiles(b)
		w := New(Options{})
		b.StartTimer()
		for i, dir := range dirs {
			watches[i] = w.Watch(dir, hint)
		}
		b.StopTimer()
		heap, fds = heapInUse()-heapBefore, openFiles(b)-fdsBefore
		if got := w.Stats(); got.Watched != len(dirs) {
			b.Fatalf("Stats() = %+v", got)
		}
		w.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(heap)/float64(len(dirs)), "B/watch")
	b.ReportMetric(float64(fds), "fds")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(dirs)), "ns/watch")
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func openFiles(b *testing.B) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		b.Fatal(err)
	}
	return len(entries)
}
