package watch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// TestLost removes, moves and replaces watched directories. There is a hint without a name, and what
// comes to be in their place is told as well.
func TestLost(t *testing.T) {
	for _, tt := range []struct {
		name   string
		acts   []string
		polled bool // surely: what is back at once may be watched still
	}{
		{"removed", []string{"rmdir d"}, true},
		{"moved", []string{"mv d e"}, true},
		{"replaced", []string{"mv d e", "mkdir d"}, true},
		{"moved away and back", []string{"mv d e", "mv e d"}, false},
	} {
		for _, above := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, directory above watched %v", tt.name, above), func(t *testing.T) {
				root := t.TempDir()
				act(t, root, "mkdir d")
				w := newTestWatcher(t, Options{Interval: time.Millisecond})
				if above {
					w.Watch(root, func(Hint) {})
				}
				h := newHints()
				stop := w.Watch(filepath.Join(root, "d"), h.give).Stop
				for _, command := range tt.acts {
					act(t, root, command)
				}
				if got := h.next(t); got != (Hint{}) {
					t.Errorf("hint %v", got)
				}
				if got := w.Stats().Polled; tt.polled && got != 1 {
					t.Errorf("%d polled", got)
				}
				os.Mkdir(filepath.Join(root, "d"), 0o700)
				// Hints without a name go on for as long as the directory is young, and then there is
				// quiet until it changes.
				for quiet := false; !quiet; {
					select {
					case <-h:
					case <-time.After(100 * time.Millisecond):
						quiet = true
					}
				}
				act(t, root, "touch d/a")
				h.next(t)
				stop()
				if got := w.Stats().Polled; got != 0 {
					t.Errorf("%d polled after stop", got)
				}
			})
		}
	}
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
	if got := w.Stats(); got.Watched != 2 || got.Polled != 1 {
		t.Errorf("Stats() = %+v", got)
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
