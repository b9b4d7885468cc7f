package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// reloadAtOnce makes reloaded values look at their files each time.
func reloadAtOnce(t *testing.T) {
	old := reloadInterval
	reloadInterval = 0
	t.Cleanup(func() { reloadInterval = old })
}

func TestReloaded(t *testing.T) {
	reloadAtOnce(t)
	file := filepath.Join(t.TempDir(), "file")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".tmp", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".tmp", file); err != nil {
			t.Fatal(err)
		}
	}
	var log strings.Builder
	loads := 0
	load := func() (string, error) {
		loads++
		b, err := os.ReadFile(file)
		if string(b) == "broken" {
			err = errors.New("is broken")
		}
		return string(b), err
	}
	logger := slog.New(slog.NewTextHandler(&log, nil))
	if _, err := newReloaded(logger, load, file); err == nil {
		t.Error("a file that is missing at the start is no error")
	}
	write("one")
	r, err := newReloaded(logger, load, file)
	if err != nil {
		t.Fatal(err)
	}
	loads = 0
	want := func(value string, n int) {
		t.Helper()
		for range 3 {
			if got := r.get(); got != value {
				t.Errorf("got %q, want %q", got, value)
			}
		}
		if loads != n {
			t.Errorf("loaded %d times, want %d", loads, n)
		}
	}
	want("one", 0)
	write("two")
	want("two", 1)
	write("broken")
	want("two", 2)
	os.Remove(file)
	want("two", 3)
	write("three")
	want("three", 4)
	r.reload()
	want("three", 5)
	if n := strings.Count(log.String(), "stays in use"); n != 2 {
		t.Errorf("logged %d times that the old one stays, want 2:\n%s", n, log.String())
	}

	r.next = time.Now().Add(time.Hour)
	write("four")
	want("three", 5)
}
