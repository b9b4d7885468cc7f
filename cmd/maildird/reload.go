package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// reloadInterval is how often a file is looked at, at most. Tests shorten it.
var reloadInterval = time.Second

// A reloaded is a value made from files that is made anew when one of them changed. If that
// fails, the old one stays and the reason is logged, once for each state of the files. Its methods
// may be called by several goroutines at once.
type reloaded[T any] struct {
	load  func() (T, error) // immutable, as are paths and log
	paths []string
	log   *slog.Logger

	mu    sync.Mutex // guards the fields below; held while files are read
	value T
	stamp string    // of the files when they were read last
	next  time.Time // when to look at them again
}

// newReloaded loads the value for the first time.
func newReloaded[T any](log *slog.Logger, load func() (T, error), paths ...string) (*reloaded[T], error) {
	r := &reloaded[T]{load: load, paths: paths, log: log}
	r.stamp, r.next = stampOf(paths), time.Now().Add(reloadInterval)
	var err error
	r.value, err = load()
	return r, err
}

// get is the value, made from the files as they were at most a reloadInterval ago.
func (r *reloaded[T]) get() T {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); !now.Before(r.next) {
		r.next = now.Add(reloadInterval)
		if stamp := stampOf(r.paths); stamp != r.stamp {
			r.loadLocked(stamp)
		}
	}
	return r.value
}

// reload makes the value anew, even if nothing seems to have changed.
func (r *reloaded[T]) reload() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loadLocked(stampOf(r.paths))
}

// loadLocked takes the stamp from before the files are read: what changes meanwhile is seen next
// time.
func (r *reloaded[T]) loadLocked(stamp string) {
	r.stamp = stamp
	value, err := r.load()
	if err != nil {
		r.log.Error("not reloaded, the old one stays in use", "files", strings.Join(r.paths, " "), "err", err)
		return
	}
	r.value = value
	r.log.Info("reloaded", "files", strings.Join(r.paths, " "))
}

// stampOf tells apart the states of files without reading them.
func stampOf(paths []string) string {
	var b strings.Builder
	for _, p := range paths {
		fi, err := os.Stat(p)
		if err != nil {
			fmt.Fprintf(&b, "%v;", err)
			continue
		}
		var inode uint64
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			inode = st.Ino
		}
		fmt.Fprintf(&b, "%d %d %d;", inode, fi.Size(), fi.ModTime().UnixNano())
	}
	return b.String()
}
