package watch

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// names are those that one Watch was told.
type names struct {
	mu       sync.Mutex
	n        map[string]int // how often
	nameless int
}

func (n *names) give(h Hint) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.Name == "" {
		n.nameless++
		return
	}
	if n.n == nil {
		n.n = make(map[string]int)
	}
	n.n[h.Name]++
}

func (n *names) told(name string) (times, nameless int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.n[name], n.nameless
}

// TestSettle has many goroutines change several directories, and know that they are told of each
// change once Settle has returned true. Some hints take longer than Settle waits, and sometimes events
// are taken for lost.
func TestSettle(t *testing.T) {
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprintf("slow hints %v", slow), func(t *testing.T) {
			if slow {
				defer func(d time.Duration) { settleLimit = d }(settleLimit)
			}
			w := newTestWatcher(t, Options{})
			if slow {
				settleLimit = 2 * time.Millisecond
			}
			var wg sync.WaitGroup
			var settled atomic.Int64
			for range 3 {
				dir := t.TempDir()
				var told names
				x := w.Watch(dir, func(h Hint) {
					if slow && rand.N(20) == 0 {
						for begin, d := time.Now(), rand.N(5*time.Millisecond); time.Since(begin) < d; {
						}
					}
					told.give(h)
				})
				for i := range 4 {
					wg.Go(func() {
						for j := range 100 {
							a, b := fmt.Sprintf("a%d-%d", i, j), fmt.Sprintf("b%d-%d", i, j)
							for _, step := range []struct {
								command string
								name    string
								times   int // at least
							}{
								{"touch " + a, a, 1},
								{"mv " + a + " " + b, b, 1},
								{"rm " + b, b, 2},
							} {
								act(t, dir, step.command)
								if slow && rand.N(20) == 0 {
									w.events.(*inotify).sentinel.lost()
								}
								if !x.Settle() {
									if !slow {
										t.Errorf("not settled after %s", step.command)
									}
									continue
								}
								settled.Add(1)
								if times, nameless := told.told(step.name); times < step.times || nameless > 0 {
									t.Errorf("settled after %s: told %d times, %d times without a name", step.command, times, nameless)
								}
							}
						}
					})
				}
			}
			wg.Wait()
			if settled.Load() == 0 {
				t.Error("never settled")
			}
		})
	}
}

// overflowKernel makes the kernel drop events until the returned func is called: more are made in dir than
// it keeps, and nobody takes them.
func overflowKernel(t *testing.T, q *queue, dir string) (end func()) {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Skip(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n > 200_000 {
		t.Skipf("max_queued_events is %s", text)
	}
	q.mu.Lock()                  // receive waits, then fsnotify
	rename(t, dir, (n+10_000)/2) // some are in the buffer of fsnotify
	return q.mu.Unlock
}

// overflowQueue makes q drop events until those that it has are handled.
func overflowQueue(t *testing.T, q *queue, dir string) (end func()) {
	t.Helper()
	q.mu.Lock()
	q.limit = 1000
	q.mu.Unlock()
	rename(t, dir, 1000)
	for full := false; !full; runtime.Gosched() {
		q.mu.Lock()
		full = q.full
		q.mu.Unlock()
	}
	return func() {}
}

// TestSettleOverflow waits for events of which some were dropped, maybe the sentinel's as well.
func TestSettleOverflow(t *testing.T) {
	for name, overflow := range map[string]func(*testing.T, *queue, string) func(){
		"kernel": overflowKernel,
		"queue":  overflowQueue,
	} {
		t.Run(name, func(t *testing.T) { testSettleOverflow(t, overflow) })
	}
}

func testSettleOverflow(t *testing.T, overflow func(*testing.T, *queue, string) (end func())) {
	dir, quiet := t.TempDir(), t.TempDir()
	w := newTestWatcher(t, Options{})
	var told, toldQuiet names
	var block atomic.Pointer[chan struct{}]
	blocked := make(chan struct{}, 1)
	x := w.Watch(dir, func(h Hint) {
		told.give(h)
		if ch := block.Load(); ch != nil {
			select {
			case blocked <- struct{}{}:
			default:
			}
			<-*ch
		}
	})
	y := w.Watch(quiet, toldQuiet.give)
	for round := range 3 {
		ch := make(chan struct{})
		block.Store(&ch)
		act(t, dir, fmt.Sprintf("touch block%d", round))
		<-blocked
		if round == 0 { // one whose event is before those that were dropped
			go x.Settle()
		}
		end := overflow(t, w.events.(*inotify).queue, dir)
		act(t, dir, fmt.Sprintf("touch x%d", round))
		act(t, quiet, fmt.Sprintf("touch y%d", round))
		_, before := told.told("")
		_, beforeQuiet := toldQuiet.told("")
		results := make(chan bool)
		for range 4 {
			go func() { results <- x.Settle() }()
			go func() { results <- y.Settle() }()
		}
		end()
		block.Store(nil)
		close(ch)
		for range 8 {
			// Whoever comes after all was read is told true, and was given a hint before.
			if ok := <-results; ok {
				_, after := told.told("")
				_, afterQuiet := toldQuiet.told("")
				if after == before || afterQuiet == beforeQuiet {
					t.Error("settled, and neither told what was dropped nor that something was")
				}
			}
		}
		if got := w.Stats().Overflows; got < uint64(round+1) {
			t.Errorf("%d overflows", got)
		}
		name := fmt.Sprintf("z%d", round)
		act(t, dir, "touch "+name)
		for !x.Settle() { // false for as long as overflows are told
		}
		if times, _ := told.told(name); times == 0 {
			t.Error("settled, and not told")
		}
	}
}

// waitRounds waits until n rounds are waited for: the one at hand and the next.
func (s *sentinel) waitRounds(n int) {
	for rounds := 0; rounds < n; runtime.Gosched() {
		rounds = 0
		s.mu.Lock()
		for _, r := range []*round{s.now, s.next} {
			if r != nil {
				rounds++
			}
		}
		s.mu.Unlock()
	}
}

// TestSettleLost has events lost while one round is under way and the next is waited for.
func TestSettleLost(t *testing.T) {
	dir := t.TempDir()
	w := newTestWatcher(t, Options{})
	x := w.Watch(dir, func(Hint) {})
	unblock := blocking(t, w, t.TempDir())
	s := w.events.(*inotify).sentinel
	results := make(chan bool, 2)
	for n := range 2 {
		go func() { results <- x.Settle() }()
		s.waitRounds(n + 1)
	}
	s.lost()
	unblock()
	for range 2 {
		if <-results {
			t.Error("settled, though events were lost meanwhile")
		}
	}
	for range 4 { // in which late events of the round come out
		if !x.Settle() {
			t.Error("not settled")
		}
	}
}

// TestUnsettled has the cases in which Settle is false, and at once.
func TestUnsettled(t *testing.T) {
	root := t.TempDir()
	act(t, root, "mkdir d")
	w := newTestWatcher(t, Options{Interval: time.Hour})
	begin := time.Now()
	x := w.Watch(root, func(Hint) {})
	if !x.Settle() {
		t.Error("not settled")
	}
	x.Stop()
	if x.Settle() {
		t.Error("settled: stopped")
	}
	if w.Watch(filepath.Join(root, "nothing"), func(Hint) {}).Settle() {
		t.Error("settled: a directory that is not there")
	}
	if newTestWatcher(t, Options{Poll: true}).Watch(root, func(Hint) {}).Settle() {
		t.Error("settled: polled")
	}
	x = w.Watch(root, func(Hint) {})
	w.Close()
	if x.Settle() {
		t.Error("settled: closed")
	}
	if took := time.Since(begin); took >= settleLimit {
		t.Errorf("took %v", took)
	}
}

// blocking watches dir and makes its Watcher stand still until the returned func is called.
func blocking(t *testing.T, w *Watcher, dir string) (unblock func()) {
	t.Helper()
	block, blocked := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(blocked) })
	w.Watch(dir, func(Hint) {
		once()
		<-block
	})
	act(t, dir, "touch block")
	<-blocked
	return sync.OnceFunc(func() { close(block) })
}

// TestSettleRemoved removes the directory before it is settled, and has it heard of meanwhile.
func TestSettleRemoved(t *testing.T) {
	root := t.TempDir()
	act(t, root, "mkdir d")
	w := newTestWatcher(t, Options{Interval: time.Hour})
	h := newHints()
	x := w.Watch(filepath.Join(root, "d"), h.give)
	unblock := blocking(t, w, t.TempDir())
	act(t, root, "rmdir d")
	settled := make(chan bool)
	go func() { settled <- x.Settle() }()
	w.events.(*inotify).sentinel.waitRounds(1)
	unblock()
	if <-settled {
		t.Error("settled: a directory that was removed")
	}
	if got := h.next(t); got != (Hint{}) {
		t.Errorf("hint %v", got)
	}
}

// TestSettleClose closes while somebody waits.
func TestSettleClose(t *testing.T) {
	dir := t.TempDir()
	w := newTestWatcher(t, Options{})
	defer func(d time.Duration) { settleLimit = d }(settleLimit)
	settleLimit = time.Hour
	x := w.Watch(dir, func(Hint) {})
	unblock := blocking(t, w, t.TempDir())
	settled := make(chan bool)
	go func() { settled <- x.Settle() }()
	in := w.events.(*inotify)
	in.sentinel.waitRounds(1)
	closed := make(chan error)
	go func() { closed <- w.Close() }()
	for in.fs.WatchList() != nil { // not closed yet
		runtime.Gosched()
	}
	unblock()
	<-settled // true if its event was on the way already
	<-closed
}

// TestNoSentinel has no files for the sentinel, and then some that are of no use.
func TestNoSentinel(t *testing.T) {
	defer func(f func() (*os.File, error), d time.Duration) { memoryFile, settleLimit = f, d }(memoryFile, settleLimit)
	settleLimit = 10 * time.Millisecond
	for _, tt := range []struct {
		file func() (*os.File, error)
		want string
	}{
		{func() (*os.File, error) { return nil, unix.ENOSYS }, unix.ENOSYS.Error()},
		{func() (*os.File, error) { return os.Open("/proc/self/status") }, "no event"}, // its mode can't be changed
	} {
		memoryFile = tt.file
		var log bytes.Buffer
		dir, h := t.TempDir(), newHints()
		w := newTestWatcher(t, Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		x := w.Watch(dir, h.give)
		act(t, dir, "touch a")
		if got := h.next(t); got.Name != "a" {
			t.Errorf("hint %v", got)
		}
		if x.Settle() {
			t.Error("settled")
		}
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, tt.want) {
			t.Errorf("log %q, want a line with %q", got, tt.want)
		}
	}
}
