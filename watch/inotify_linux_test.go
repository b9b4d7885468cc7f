package watch

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// told collects the hints of some directories in the order they come, "dir: name" each, and what
// comes twice in a row once: a file that is made and written to is two events.
type told chan string

func (c told) watch(w *Watcher, root, dir string) *Watch {
	return w.Watch(filepath.Join(root, dir), func(h Hint) { c <- dir + ": " + h.Name })
}

// until returns what was told before last.
func (c told) until(t *testing.T, last string) []string {
	t.Helper()
	var got []string
	for {
		select {
		case s := <-c:
			if s == last {
				return slices.Compact(got)
			}
			got = append(got, s)
		case <-time.After(10 * time.Second):
			t.Fatalf("no hint %q; before: %q", last, got)
		}
	}
}

// TestEvents has acts of other programs and the hints that they cause. "new" and "cur" are watched, and
// "root" if the name says so; "end" is a file whose hint ends the test.
func TestEvents(t *testing.T) {
	for _, tt := range []struct {
		name string
		acts []string
		want []string
	}{
		{"delivery", []string{"touch tmp/a", "mv tmp/a new/a"}, []string{"new: a"}},
		{"delivery by link", []string{"touch tmp/a", "ln tmp/a new/a", "rm tmp/a"}, []string{"new: a"}},
		{"seen", []string{"touch new/a", "mv new/a cur/a:2,S"}, []string{"new: a", "cur: a:2,S"}},
		{"flags", []string{"touch cur/a:2,", "mv cur/a:2, cur/a:2,RS"}, []string{"cur: a:2,", "cur: a:2,RS"}},
		{"unlink", []string{"touch cur/a", "rm cur/a"}, []string{"cur: a"}},
		{"odd names", []string{"touch cur/a\nb", "touch cur/\xff", "touch cur/..."},
			[]string{"cur: a\nb", "cur: \xff", "cur: ..."}},
		{"mode of a file", []string{"touch cur/a", "touch cur/b", "chmod cur/a"}, []string{"cur: a", "cur: b"}},
		{"not watched", []string{"touch tmp/a", "rm tmp/a"}, nil},
		{"mode of the directory", []string{"chmod cur"}, []string{"cur: "}},
		{"root: file", []string{"touch subscriptions"}, []string{".: subscriptions"}},
		{"root: mailbox", []string{"mkdir .Work", "mv .Work .Play", "rmdir .Play"},
			[]string{".: .Work", ".: .Play"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for _, dir := range []string{"new", "cur", "tmp"} {
				act(t, root, "mkdir "+dir)
			}
			w := newTestWatcher(t, Options{})
			c := make(told, 1000)
			c.watch(w, root, "new")
			c.watch(w, root, "cur")
			if strings.HasPrefix(tt.name, "root:") {
				c.watch(w, root, ".")
			}
			var got []string
			for _, command := range tt.acts {
				act(t, root, command)
			}
			act(t, root, "touch cur/end")
			got = c.until(t, "cur: end")
			// An event of the source of a rename and one of its target are two hints.
			if !slices.Equal(slices.Compact(got), tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got := w.Stats(); got.Polled != 0 || got.Overflows != 0 {
				t.Errorf("Stats() = %+v", got)
			}
		})
	}
}

// TestSeveral watches one directory several times, under several names.
func TestSeveral(t *testing.T) {
	root := t.TempDir()
	act(t, root, "mkdir d")
	if err := os.Symlink("d", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	w := newTestWatcher(t, Options{})
	a, b, c := newHints(), newHints(), newHints()
	stopA := w.Watch(filepath.Join(root, "d"), a.give).Stop
	stopB := w.Watch(filepath.Join(root, "link"), b.give).Stop
	stopC := w.Watch(filepath.Join(root, "d", "..", "d")+"/", c.give).Stop
	for i, stop := range []func(){nil, stopA, stopB} {
		if stop != nil {
			stop()
		}
		name := fmt.Sprint(i)
		act(t, root, "touch d/"+name)
		for j, h := range []hints{a, b, c} {
			if j < i {
				if len(h) > 0 {
					t.Errorf("hint for %d after stop", j)
				}
			} else if got := h.next(t); got.Name != name {
				t.Errorf("got %q, want %q", got.Name, name)
			}
		}
	}
	if got := w.Stats(); got.Watched != 1 || got.Polled != 0 {
		t.Errorf("Stats() = %+v", got)
	}
	stopC()
	in := w.events.(*inotify)
	if len(in.byID)+len(in.byPath) > 0 || len(in.fs.WatchList()) != len(in.sentinel.names) {
		t.Errorf("left: %v, %v, %v", in.byID, in.byPath, in.fs.WatchList())
	}
}

// waitStats waits until ok.
func waitStats(t *testing.T, w *Watcher, ok func(Stats) bool) {
	t.Helper()
	for begin := time.Now(); !ok(w.Stats()); runtime.Gosched() {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("Stats() = %+v", w.Stats())
		}
	}
}

// untilName drops hints until there is one with that name.
func (h hints) untilName(t *testing.T, name string) {
	t.Helper()
	for h.next(t).Name != name {
	}
}

// TestLost removes, moves and replaces watched directories. There is a hint without a name, and what
// comes to be in their place is watched by events again.
func TestLost(t *testing.T) {
	for _, tt := range []struct {
		name string
		acts []string
		lost uint64
	}{
		{"removed", []string{"rmdir d"}, 1},
		{"moved", []string{"mv d e"}, 1},
		{"replaced", []string{"mv d e", "mkdir d"}, 1},
		{"moved away and back", []string{"mv d e", "mv e d"}, 0},
	} {
		for _, above := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, directory above watched %v", tt.name, above), func(t *testing.T) {
				root := t.TempDir()
				act(t, root, "mkdir d")
				w := newTestWatcher(t, Options{Interval: time.Millisecond})
				unblock := blocking(t, w, t.TempDir()) // the acts come before their events
				watched := 1
				if above {
					w.Watch(root, func(Hint) {})
					watched++
				}
				h := newHints()
				x := w.Watch(filepath.Join(root, "d"), h.give)
				for _, command := range tt.acts {
					act(t, root, command)
				}
				unblock()
				if got := h.next(t); got != (Hint{}) {
					t.Errorf("hint %v", got)
				}
				if got := w.Stats().Lost; got != tt.lost {
					t.Errorf("%d lost, want %d", got, tt.lost)
				}
				os.Mkdir(filepath.Join(root, "d"), 0o700)
				waitStats(t, w, func(s Stats) bool { return s.Watched == watched+1 && s.Polled == 0 })
				for !x.Settle() { // until the hint that goes with the events was given
				}
				act(t, root, "touch d/a")
				h.untilName(t, "a")
				x.Stop()
				if got := w.Stats(); got.Watched != watched || got.Polled != 0 {
					t.Errorf("after Stop: Stats() = %+v", got)
				}
			})
		}
	}
}

// TestAppears watches what is not there yet: the directory, or one above it, or where a link leads to.
func TestAppears(t *testing.T) {
	for _, acts := range [][]string{{"mkdir d"}, {"mkdir up", "mkdir up/d"}, {"mkdir far", "symlink far d"}} {
		t.Run(strings.Join(acts, ", "), func(t *testing.T) {
			root := t.TempDir()
			dir := "d"
			if len(acts) > 1 && acts[0] == "mkdir up" {
				dir = "up/d"
			}
			w := newTestWatcher(t, Options{Interval: time.Millisecond})
			h := newHints()
			x := w.Watch(filepath.Join(root, dir), h.give)
			if got := w.Stats(); got.Polled != 1 || x.Settle() {
				t.Errorf("Stats() = %+v", got)
			}
			for _, command := range acts {
				act(t, root, command)
			}
			if got := h.next(t); got != (Hint{}) {
				t.Errorf("hint %v", got)
			}
			waitStats(t, w, func(s Stats) bool { return s.Watched == 1 && s.Polled == 0 })
			for !x.Settle() {
			}
			act(t, root, "touch "+dir+"/a")
			h.untilName(t, "a")
		})
	}
}

// TestSettleComesAndGoes has a directory come and go while others make files in it. Each file is told by
// name before it is settled, or there was a hint without a name.
func TestSettleComesAndGoes(t *testing.T) {
	root := t.TempDir()
	w := newTestWatcher(t, Options{Interval: time.Millisecond})
	var told names
	dir := filepath.Join(root, "d")
	x := w.Watch(dir, told.give)
	done := make(chan struct{})
	var wg sync.WaitGroup
	var made, settled atomic.Int64
	for i := range 2 {
		wg.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-done:
					return
				default:
				}
				name := fmt.Sprintf("%d-%d", i, j)
				_, before := told.told("")
				if os.WriteFile(filepath.Join(dir, name), nil, 0o600) != nil {
					continue
				}
				made.Add(1)
				if !x.Settle() {
					continue
				}
				settled.Add(1)
				if times, nameless := told.told(name); times == 0 && nameless == before {
					t.Errorf("settled, and neither %s was told nor that something was", name)
				}
			}
		})
	}
	for i := range 40 {
		act(t, root, "mkdir d")
		for n := settled.Load(); settled.Load() < n+3; runtime.Gosched() {
		}
		act(t, root, fmt.Sprintf("mv d gone%d", i))
		if i%2 == 0 { // let it be polled for a while
			for waited := w.Stats().Lost; w.Stats().Lost == waited && w.Stats().Polled == 0; runtime.Gosched() {
			}
		}
	}
	close(done)
	wg.Wait()
	t.Logf("%d made, %d settled", made.Load(), settled.Load())
}

// TestSettleSwitching has events for a directory while the hint that covers what was before them is
// running.
func TestSettleSwitching(t *testing.T) {
	root := t.TempDir()
	w := newTestWatcher(t, Options{Interval: time.Millisecond})
	block := make(chan struct{})
	x := w.Watch(filepath.Join(root, "d"), func(Hint) { <-block })
	act(t, root, "mkdir d")
	waitStats(t, w, func(s Stats) bool { return s.Watched == 1 })
	if x.Settle() {
		t.Error("settled before the hint")
	}
	close(block)
	for begin := time.Now(); !x.Settle(); {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("not settled after it")
		}
	}
}

// TestLimit watches more directories than may be. Several Watches of one are one.
func TestLimit(t *testing.T) {
	root := t.TempDir()
	var log bytes.Buffer
	w := newTestWatcher(t, Options{Limit: 2, Interval: time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for _, command := range []string{"mkdir a", "mkdir b", "mkdir c", "mkdir d", "symlink a link"} {
		act(t, root, command)
	}
	watch := func(dir string, h hints) *Watch { return w.Watch(filepath.Join(root, dir), h.give) }
	a, b, c, d := newHints(), newHints(), newHints(), newHints()
	watch("a", a)
	watch("link", a)
	inB := watch("b", b)
	watch("b", b)
	inC := watch("c", c)
	watch("d", d)
	if got := w.Stats(); got.Watched != 4 || got.Polled != 2 {
		t.Errorf("Stats() = %+v", got)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "as many as may be") || !strings.Contains(got, "2") {
		t.Errorf("log %q", got)
	}
	if inC.Settle() {
		t.Error("settled: beyond the limit")
	}
	act(t, root, "touch b/x")
	b.untilName(t, "x")
	act(t, root, "touch d/x")
	if got := d.next(t); got != (Hint{}) {
		t.Errorf("hint %v", got)
	}

	// One of two Watches of b ends, and then the other: its place is free.
	inB.Stop()
	act(t, root, "touch c/x")
	c.next(t)
	if got := w.Stats(); got.Watched != 3 || got.Polled != 2 {
		t.Errorf("Stats() = %+v", got)
	}
	act(t, root, "rm b/x")
	act(t, root, "rmdir b")
	waitStats(t, w, func(s Stats) bool { return s.Lost == 1 })
	act(t, root, "touch c/y")
	waitStats(t, w, func(s Stats) bool { return s.Watched == 3 && s.Polled == 2 })
}

// TestReplacedBeforeEvent watches what has taken a directory's name before its end was heard of.
func TestReplacedBeforeEvent(t *testing.T) {
	root := t.TempDir()
	act(t, root, "mkdir d")
	act(t, root, "mkdir busy")
	w := newTestWatcher(t, Options{Interval: time.Hour})
	block, blocked := make(chan struct{}), make(chan struct{}, 10)
	w.Watch(filepath.Join(root, "busy"), func(Hint) {
		blocked <- struct{}{}
		<-block
	})
	old, young := newHints(), newHints()
	w.Watch(filepath.Join(root, "d"), old.give)
	act(t, root, "touch busy/a")
	<-blocked // now no event comes through
	act(t, root, "mv d e")
	act(t, root, "mkdir d")
	w.Watch(filepath.Join(root, "d"), young.give)
	close(block)
	if got := old.next(t); got != (Hint{}) {
		t.Errorf("hint %v", got)
	}
	for _, name := range []string{"a", "b"} {
		act(t, root, "touch d/"+name)
		got := young.next(t)
		for got == (Hint{}) { // late news of the old one
			got = young.next(t)
		}
		if got.Name != name {
			t.Errorf("hint %v, want %q", got, name)
		}
	}
	if got := w.Stats(); got.Watched != 3 || got.Polled != 0 || got.Lost != 1 {
		t.Errorf("Stats() = %+v", got)
	}
}

// hasError reports whether fsnotify has sent an error that waits to be handled.
func (q *queue) hasError() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.items, func(n notice) bool { return n.err != nil })
}

// TestRemovedBeforeMoveEvent moves a directory and removes it before the move was heard of, as Dovecot
// deletes a mailbox, while a hint is running. fsnotify sends an error for it with its lock held; others
// can watch all the same.
func TestRemovedBeforeMoveEvent(t *testing.T) {
	root := t.TempDir()
	w := newTestWatcher(t, Options{Interval: time.Hour})
	quiet := newHints()
	w.Watch(t.TempDir(), quiet.give)
	unblock := blocking(t, w, t.TempDir())
	defer unblock() // before Close, in any case
	stop := make(chan struct{})
	defer close(stop)
	watched := make(chan *Watch, 1)
	go func() {
		for q := w.events.(*inotify).queue; !q.hasError(); { // fsnotify may be faster
			select {
			case <-stop:
				return
			default:
			}
			os.Mkdir(filepath.Join(root, "d"), 0o700)
			w.Watch(filepath.Join(root, "d"), func(Hint) {})
			os.Rename(filepath.Join(root, "d"), filepath.Join(root, "e"))
			os.Remove(filepath.Join(root, "e"))
		}
		watched <- w.Watch(root, func(Hint) {})
	}()
	select {
	case x := <-watched:
		unblock()
		for !x.Settle() { // false for as long as errors are told
		}
		if len(quiet) > 0 {
			t.Errorf("%d hints for a directory in which nothing happened", len(quiet))
		}
	case <-time.After(10 * time.Second):
		t.Error("Watch waits for the hint of another directory")
	}
}

// TestOverflow has the kernel drop events. Its queue's limit holds for the whole system, so the
// error is the test's own.
func TestOverflow(t *testing.T) {
	root := t.TempDir()
	act(t, root, "mkdir a")
	act(t, root, "mkdir b")
	w := newTestWatcher(t, Options{Interval: time.Hour})
	a, b := newHints(), newHints()
	w.Watch(filepath.Join(root, "a"), a.give)
	w.Watch(filepath.Join(root, "b"), b.give)
	in := w.events.(*inotify)

	// The watch of b is gone, and the event that tells so is among those dropped.
	in.mu.Lock()
	if err := in.fs.Remove(filepath.Join(root, "b")); err != nil {
		t.Fatal(err)
	}
	act(t, root, "mv b c")
	in.mu.Unlock()

	in.fs.Errors <- fsnotify.ErrEventOverflow
	for _, h := range []hints{a, b} {
		if got := h.next(t); got != (Hint{}) {
			t.Errorf("hint %v", got)
		}
	}
	if got := w.Stats(); got.Overflows != 1 || got.Watched != 1 || got.Polled != 1 {
		t.Errorf("Stats() = %+v", got)
	}
	act(t, root, "touch a/x")
	if got := a.next(t); got.Name != "x" {
		t.Errorf("hint %v", got)
	}
}

func TestIdentify(t *testing.T) {
	dir := t.TempDir()
	id, err := identify(dir)
	if err != nil || id.ino == 0 {
		t.Errorf("identify = %v, %v", id, err)
	}
	act(t, dir, "touch file")
	if _, err := identify(filepath.Join(dir, "file")); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
	if _, err := identify(filepath.Join(dir, "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	var fsys unix.Statfs_t
	if err := unix.Statfs(dir, &fsys); err != nil {
		t.Fatal(err)
	}
	defer delete(remote, uint32(fsys.Type))
	remote[uint32(fsys.Type)] = true
	if _, err := identify(dir); !errors.Is(err, errNoEvents) {
		t.Errorf("remote file system: %v", err)
	}
}
