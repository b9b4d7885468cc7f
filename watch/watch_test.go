package watch

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// hints collects what one call of Watch is told.
type hints chan Hint

func newHints() hints { return make(hints, 1000) }

func (h hints) give(hint Hint) { h <- hint }

// next waits for a hint.
func (h hints) next(t *testing.T) Hint {
	t.Helper()
	select {
	case hint := <-h:
		return hint
	case <-time.After(10 * time.Second):
		t.Fatal("no hint")
		return Hint{}
	}
}

// act does what other programs do in dir: touch, mv, rm, rmdir, mkdir, ln, symlink, chmod.
func act(t *testing.T, dir, command string) {
	t.Helper()
	args := strings.Split(command, " ")
	for i, name := range args[1:] {
		args[i+1] = filepath.Join(dir, name)
	}
	var err error
	switch args[0] {
	case "touch":
		var f *os.File
		if f, err = os.Create(args[1]); err == nil {
			err = f.Close()
		}
	case "mv":
		err = os.Rename(args[1], args[2])
	case "ln":
		err = os.Link(args[1], args[2])
	case "symlink":
		err = os.Symlink(args[1], args[2])
	case "rm", "rmdir":
		err = os.Remove(args[1])
	case "mkdir":
		err = os.Mkdir(args[1], 0o700)
	case "chmod":
		err = os.Chmod(args[1], 0o750)
	default:
		t.Fatalf("unknown act %q", command)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func newTestWatcher(t *testing.T, o Options) *Watcher {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	w := New(o)
	t.Cleanup(func() { w.Close() })
	return w
}

// TestSources has both sources tell of every change, and of none after stop.
func TestSources(t *testing.T) {
	for _, o := range []Options{{}, {Poll: true, Interval: time.Millisecond}} {
		t.Run(fmt.Sprintf("poll %v", o.Poll), func(t *testing.T) {
			dir := t.TempDir()
			w := newTestWatcher(t, o)
			h := newHints()
			stop := w.Watch(dir, h.give).Stop
			want := Stats{Watched: 1}
			if o.Poll || runtime.GOOS != "linux" {
				want = Stats{Polled: 1}
			}
			if got := w.Stats(); got.Watched != want.Watched || got.Polled != want.Polled {
				t.Errorf("Stats() = %+v, want %+v", got, want)
			}
			for _, command := range []string{"touch a", "mv a b:2,S", "rm b:2,S"} {
				act(t, dir, command)
				h.next(t)
			}
			stop()
			stop()
			if got := w.Stats(); got.Watched+got.Polled != 0 || got.Hints < 3 {
				t.Errorf("after stop: Stats() = %+v", got)
			}
			act(t, dir, "touch c")
			if err := w.Close(); err != nil { // after which nothing runs any more
				t.Error(err)
			}
			close(h)
			for hint := range h {
				if hint.Name == "c" {
					t.Error("hint after stop")
				}
			}
		})
	}
}

// TestPoll changes a directory in one bubble of time, and counts hints at each look.
func TestPoll(t *testing.T) {
	const interval = 5 * time.Second // the default
	old := time.Unix(1, 0)
	type step struct {
		acts  []string
		mtime time.Time // of dir, after the acts; zero: as the kernel set it
		want  int64     // hints until the next look
	}
	for _, tt := range []struct {
		name  string
		steps []step // the first one is before Watch, and looks at nothing
	}{
		{"quiet", []step{{mtime: old}, {}, {}, {}}},
		{"each change twice", []step{{mtime: old}, {acts: []string{"touch d/a"}, want: 1}, {want: 1}, {}, {}}},
		{"two changes under one time", []step{{mtime: old},
			{acts: []string{"touch d/a"}, mtime: old.Add(1), want: 1}, {acts: []string{"touch d/b"}, mtime: old.Add(1), want: 1}, {}}},
		{"removed", []step{{mtime: old}, {acts: []string{"rmdir d"}, want: 1}, {want: 1}, {}}},
		{"appears", []step{{acts: []string{"rmdir d"}}, {}, {acts: []string{"mkdir d"}, want: 1}, {want: 1}, {}}},
		{"replaced, same time", []step{{mtime: old},
			{acts: []string{"mkdir e", "rmdir d", "mv e d"}, mtime: old, want: 1}, {want: 1}, {}}},
		{"not below", []step{{acts: []string{"mkdir d/sub"}, mtime: old}, {acts: []string{"touch d/sub/a"}}, {}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			act(t, root, "mkdir d")
			dir := filepath.Join(root, "d")
			synctest.Test(t, func(t *testing.T) {
				w := New(Options{Poll: true})
				defer w.Close()
				var n atomic.Int64
				for i, step := range tt.steps {
					for _, command := range step.acts {
						act(t, root, command)
					}
					if !step.mtime.IsZero() {
						if err := os.Chtimes(dir, step.mtime, step.mtime); err != nil {
							t.Fatal(err)
						}
					}
					if i == 0 {
						w.Watch(dir, func(h Hint) {
							if h != (Hint{}) {
								t.Errorf("hint %v", h)
							}
							n.Add(1)
						})
						time.Sleep(interval / 2)
						continue
					}
					time.Sleep(interval)
					synctest.Wait()
					if n := n.Swap(0); n != step.want {
						t.Errorf("step %d: %d hints, want %d", i, n, step.want)
					}
				}
			})
		})
	}
}

// TestPollYoung watches a directory that was changed just now: it may change again without its
// time telling.
func TestPollYoung(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		if err := os.Chtimes(dir, now, now); err != nil {
			t.Fatal(err)
		}
		w := New(Options{Poll: true, Interval: time.Second})
		defer w.Close()
		n := 0
		w.Watch(dir, func(Hint) { n++ })
		time.Sleep(time.Hour)
		synctest.Wait()
		if n != 1 {
			t.Errorf("%d hints, want 1", n)
		}
	})
}

// TestStop stops a Watch from its own hint, and others beside it.
func TestStop(t *testing.T) {
	for _, poll := range []bool{false, true} {
		t.Run(fmt.Sprintf("poll %v", poll), func(t *testing.T) {
			dir := t.TempDir()
			w := newTestWatcher(t, Options{Poll: poll, Interval: time.Millisecond})
			other := newHints()
			w.Watch(dir, other.give)
			var stop func()
			called := make(chan struct{}, 10)
			ready := make(chan struct{})
			stop = w.Watch(dir, func(Hint) {
				<-ready
				stop()
				stop()
				called <- struct{}{}
			}).Stop
			close(ready)
			act(t, dir, "touch a")
			<-called
			other.next(t)
			act(t, dir, "touch b")
			for range 3 { // the other one goes on
				act(t, dir, "touch c")
				act(t, dir, "rm c")
				other.next(t)
			}
			w.Close()
			if len(called) > 0 {
				t.Error("hint after stop")
			}
			if got := w.Stats(); got.Watched+got.Polled != 1 {
				t.Errorf("Stats() = %+v", got)
			}
		})
	}
}

// TestStopOther has the first of two hints of an event end the second.
func TestStopOther(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("polling gives each Watch its own looks")
	}
	dir := t.TempDir()
	w := newTestWatcher(t, Options{})
	var stop func()
	ready, called := make(chan struct{}), newHints()
	w.Watch(dir, func(h Hint) {
		<-ready
		stop()
		called <- h
	})
	stop = w.Watch(dir, func(Hint) { t.Error("hint after stop") }).Stop
	close(ready)
	act(t, dir, "touch a")
	called.next(t)
	act(t, dir, "touch b")
	called.next(t)
}

// TestStopForgets stops polling in the middle of a look.
func TestStopForgets(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := New(Options{Poll: true})
		defer w.Close()
		stop := make(chan func(), 1)
		stop <- w.Watch(dir, func(Hint) { (<-stop)() }).Stop
		if err := os.Chtimes(dir, time.Time{}, time.Unix(2, 0)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if p := w.poll.(*poller); len(p.dirs) > 0 {
			t.Errorf("left: %v", p.dirs)
		}
	})
}

// TestCloseWaits closes while a hint is running.
func TestCloseWaits(t *testing.T) {
	for _, poll := range []bool{false, true} {
		dir := t.TempDir()
		w := newTestWatcher(t, Options{Poll: poll, Interval: time.Millisecond})
		running := make(chan struct{})
		var ended atomic.Bool
		first := sync.OnceFunc(func() {
			close(running)
			for begin := time.Now(); time.Since(begin) < 200*time.Millisecond; {
				runtime.Gosched() // longer than Close takes if it does not wait
			}
			ended.Store(true)
		})
		w.Watch(dir, func(Hint) { first() })
		act(t, dir, "touch a")
		<-running
		w.Close()
		if !ended.Load() {
			t.Errorf("poll %v: Close returned during a hint", poll)
		}
	}
}

// A failing source stands for limits that a test cannot lower for itself alone.
type failing struct {
	source
	err error
}

func (s failing) watch(string, func(Hint), func()) (entry, error) { return nil, s.err }

// TestFallback polls what the events cannot have, and says so once.
func TestFallback(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("watch: %w", syscall.ENOSPC), "fs.inotify.max_user_watches"},
		{fmt.Errorf("watch: %w", errNoEvents), "file system"},
		{fmt.Errorf("watch: %w", syscall.EIO), "inotify fails"},
		{fmt.Errorf("watch: %w", syscall.ENOENT), ""},
	} {
		var log bytes.Buffer
		w := newWatcher(Options{Interval: time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		w.events = failing{w.poll, tt.err}
		for range 3 {
			dir, h := t.TempDir(), newHints()
			stop := w.Watch(dir, h.give).Stop
			defer stop()
			act(t, dir, "touch a")
			h.next(t)
		}
		if got := w.Stats(); got.Watched != 0 || got.Polled != 3 {
			t.Errorf("%v: Stats() = %+v", tt.err, got)
		}
		w.Close()
		lines := strings.Count(log.String(), "\n")
		if tt.want == "" && lines != 0 || tt.want != "" && (lines != 1 || !strings.Contains(log.String(), tt.want)) {
			t.Errorf("%v: log %q, want a line with %q", tt.err, log.String(), tt.want)
		}
	}
}

// A slow source takes its time to watch.
type slow struct {
	source
	asked, answer chan struct{}
}

func (s slow) watch(dir string, hint func(Hint), lost func()) (entry, error) {
	s.asked <- struct{}{}
	<-s.answer
	return s.source.watch(dir, hint, lost)
}

// TestStopSwitching stops while events are tried again, and before.
func TestStopSwitching(t *testing.T) {
	dir := t.TempDir()
	w := newTestWatcher(t, Options{Poll: true, Interval: time.Hour})
	x := w.Watch(dir, func(Hint) {})
	events := slow{newPoller(time.Hour), make(chan struct{}), make(chan struct{})}
	w.events = events
	go x.looked(Hint{})
	<-events.asked
	stopped := make(chan struct{})
	go func() {
		x.Stop()
		close(stopped)
	}()
	for !x.stopped.Load() {
		runtime.Gosched()
	}
	events.answer <- struct{}{}
	<-stopped
	x.looked(Hint{}) // would wait for an answer
	if got := w.Stats(); got.Watched+got.Polled != 0 || got.Hints != 0 {
		t.Errorf("Stats() = %+v", got)
	}
	for _, p := range []source{w.poll, events.source} {
		if left := p.(*poller).dirs; len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// TestOneAtATime has two sources for a moment, and hints that take longer than that.
func TestOneAtATime(t *testing.T) {
	root := t.TempDir()
	w := newTestWatcher(t, Options{Interval: time.Millisecond})
	var running, overlaps, n atomic.Int64
	w.Watch(filepath.Join(root, "d"), func(Hint) {
		if running.Add(1) > 1 {
			overlaps.Add(1)
		}
		for begin := time.Now(); time.Since(begin) < 5*time.Millisecond; {
			runtime.Gosched()
		}
		running.Add(-1)
		n.Add(1)
	})
	for i := range 10 {
		act(t, root, "mkdir d")
		for w.Stats().Watched == 0 && runtime.GOOS == "linux" { // then the hint of polling is running
			runtime.Gosched()
		}
		act(t, root, "touch d/a")
		act(t, root, fmt.Sprintf("mv d gone%d", i))
		for w.Stats().Watched == 1 {
			runtime.Gosched()
		}
	}
	if got := overlaps.Load(); got > 0 {
		t.Errorf("%d of %d hints overlap", got, n.Load())
	}
}

// TestConcurrent starts and stops Watches from many goroutines while directories come and go.
func TestConcurrent(t *testing.T) {
	for _, poll := range []bool{false, true} {
		root := t.TempDir()
		w := newTestWatcher(t, Options{Poll: poll, Interval: time.Millisecond})
		var wg sync.WaitGroup
		for i := range 4 {
			dir := filepath.Join(root, fmt.Sprint(i/2)) // two for each
			wg.Go(func() {
				for range 100 {
					stop := w.Watch(dir, func(Hint) {}).Stop
					os.Mkdir(dir, 0o700)
					stop2 := w.Watch(dir, func(Hint) {}).Stop
					os.Remove(dir)
					stop()
					stop2()
				}
			})
		}
		wg.Wait()
		if got := w.Stats(); got.Watched != 0 || got.Polled != 0 {
			t.Errorf("poll %v: Stats() = %+v", poll, got)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestConcurrentMoved has many goroutines watch directories that are moved and removed at once, as Dovecot
// deletes a mailbox. Nobody may wait for ever: for a second all of them go on.
func TestConcurrentMoved(t *testing.T) {
	for _, poll := range []bool{false, true} {
		root := t.TempDir()
		// If they do wait, Close does.
		w := New(Options{Poll: poll, Interval: time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
		var wg sync.WaitGroup
		for i := range 4 {
			dir, away := filepath.Join(root, fmt.Sprint(i)), filepath.Join(root, fmt.Sprint("away", i))
			wg.Go(func() {
				for begin := time.Now(); time.Since(begin) < time.Second; {
					os.Mkdir(dir, 0o700)
					x := w.Watch(dir, func(Hint) {})
					os.Rename(dir, away)
					os.Remove(away)
					x.Stop()
				}
			})
		}
		done := make(chan struct{})
		go func() {
			wg.Wait()
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("poll %v: they wait for each other", poll)
		}
		if got := w.Stats(); got.Watched != 0 || got.Polled != 0 {
			t.Errorf("poll %v: Stats() = %+v", poll, got)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

// ownGoroutines returns the stacks of goroutines that run code of this package or of fsnotify.
func ownGoroutines() []string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var own []string
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(stack, "fsnotify") || strings.Contains(stack, "watch.(*") {
			own = append(own, stack)
		}
	}
	return own
}

// TestClose leaves no goroutine behind, and the Watcher does nothing any more.
func TestClose(t *testing.T) {
	for _, poll := range []bool{false, true} {
		dir := t.TempDir()
		w := newTestWatcher(t, Options{Poll: poll, Interval: time.Millisecond})
		h := newHints()
		stop := w.Watch(dir, h.give).Stop
		act(t, dir, "touch a")
		h.next(t)
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		// A goroutine that has said that it is done may take a moment to end.
		for begin := time.Now(); ; runtime.Gosched() {
			left := ownGoroutines()
			if len(left) == 0 {
				break
			} else if time.Since(begin) > 10*time.Second {
				t.Fatalf("poll %v: left behind:\n%s", poll, strings.Join(left, "\n\n"))
			}
		}
		stop()
		w.Watch(dir, h.give)
		if got := w.Stats(); got.Watched+got.Polled != 0 {
			t.Errorf("poll %v: Stats() = %+v", poll, got)
		}
	}
}
