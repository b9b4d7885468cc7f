package watch

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// Every change of a directory is told, by either source, and none after stop.
func TestWatch(t *testing.T) {
	for name, o := range map[string]Options{"events": {}, "polling": {Poll: true, Interval: time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			w := New(o)
			dir := t.TempDir()
			hints := make(chan struct{}, 1)
			stop := w.Watch(dir, func() {
				select {
				case hints <- struct{}{}:
				default:
				}
			})
			file := filepath.Join(dir, "a")
			for _, act := range []func() error{
				func() error { return os.WriteFile(file, nil, 0o600) },
				func() error { return os.Rename(file, file+":2,S") },
				func() error { return os.Remove(file + ":2,S") },
			} {
				if err := act(); err != nil {
					t.Fatal(err)
				}
				select {
				case <-hints:
				case <-time.After(10 * time.Second):
					t.Fatal("no hint")
				}
			}
			if s := w.Stats(); s.Watched+s.Polled != 1 || (s.Polled == 1) != o.Poll {
				t.Errorf("stats %+v", s)
			}
			stop()
			stop()
			if s := w.Stats(); s != (Stats{}) {
				t.Errorf("stats %+v after stop", s)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A quiet directory costs a look now and then, and no hint.
func TestQuiet(t *testing.T) {
	dir := t.TempDir()
	os.Chtimes(dir, time.Unix(1, 0), time.Unix(1, 0))
	synctest.Test(t, func(t *testing.T) {
		w := New(Options{Poll: true})
		n := 0
		w.Watch(dir, func() { n++ })
		time.Sleep(time.Hour) // of the bubble's clock
		w.Close()
		if n != 0 {
			t.Errorf("%d hints for nothing", n)
		}
	})
}
