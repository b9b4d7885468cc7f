package cache_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

const benchMessages = 100_000

// benchFile makes a file of 100 000 messages of 1.5 KB, and tells how long that took until all was on the disk.
func benchFile(b *testing.B) (path string, took time.Duration) {
	b.Helper()
	path = filepath.Join(b.TempDir(), "cache")
	value := make([]byte, 1500)
	for i := range value {
		value[i] = byte(i * 7)
	}
	begin := time.Now()
	c := open(b, path)
	for n := range benchMessages {
		for c.Put("INBOX", key(n), value); c.Get("INBOX", key(n)) == nil; c.Put("INBOX", key(n), value) {
			runtime.Gosched() // the writer is slower
		}
	}
	mustClose(b, c)
	return path, time.Since(begin)
}

// BenchmarkFill makes a file of 100 000 messages.
func BenchmarkFill(b *testing.B) {
	for b.Loop() {
		path, took := benchFile(b)
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(took.Nanoseconds())/benchMessages, "ns/message")
		b.ReportMetric(float64(info.Size())/1e6, "MB")
	}
}

// BenchmarkOpen opens a file of 100 000 messages.
func BenchmarkOpen(b *testing.B) {
	path, _ := benchFile(b)
	for b.Loop() {
		mustClose(b, open(b, path))
	}
}

// BenchmarkGet reads messages of 100 000.
func BenchmarkGet(b *testing.B) {
	path, _ := benchFile(b)
	c := open(b, path)
	keys := make([]string, benchMessages)
	for n := range keys {
		keys[n] = key(n)
		if c.Get("INBOX", keys[n]) == nil {
			b.Fatalf("%q is not known", keys[n])
		}
	}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		c.Get("INBOX", keys[n%benchMessages])
		n++
	}
}

// BenchmarkRetain looks at 100 000 messages that are all there still.
func BenchmarkRetain(b *testing.B) {
	path, _ := benchFile(b)
	for b.Loop() {
		c := open(b, path)
		c.Retain("INBOX", func(string) bool { return true })
		mustClose(b, c) // when it is done
	}
}
