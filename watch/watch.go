package watch

import (
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A Hint says that something in a watched directory may have changed.
type Hint struct {
	// Name is the name of a file in the directory that was made, renamed (the old name and the new
	// one get a hint each), written to or removed. Empty: look at all of it.
	Name string
}

// A source hears of changes in directories.
type source interface {
	// watch calls hint for changes in dir from now on until the entry is stopped, as Watcher.Watch tells,
	// or lost, which it calls once, without a hint before it, when dir is not watched any longer: it was
	// removed or another directory took its name. Neither is called with a lock of the source held.
	//
	// It fails if dir cannot be watched.
	watch(dir string, hint func(Hint), lost func()) (entry, error)
	// close ends all watching. When it returns hint and lost are not running, and won't be called.
	close() error
}

// An entry is a directory that a source watches for somebody.
type entry interface {
	stop()        // also after lost, and several times
	settle() bool // as Watch.Settle tells
}

// Options are the options of a Watcher. The zero value is ready to use.
type Options struct {
	// Poll makes the Watcher poll every directory.
	Poll bool
	// Limit is the most directories that are watched by events at one time, whatever number of Watches
	// each has; those beyond it are polled. 0 is no limit but the kernel's.
	Limit int
	// Interval is the time between two looks at a polled directory; 0 is 5 seconds.
	Interval time.Duration
	// Logger hears why directories are polled, each reason once; nil is slog.Default().
	Logger *slog.Logger
}

// Stats is what a Watcher did and does.
type Stats struct {
	Watched   int    // calls of Watch in force that are served by events
	Polled    int    // calls of Watch in force that are served by polling
	Overflows uint64 // times that events came faster than they were handled, so that some were lost
	Lost      uint64 // directories that were removed, moved or replaced while they were watched by events
	Hints     uint64 // hints given
}

// counts are the numbers behind Stats.
type counts struct {
	watched, polled        atomic.Int64
	overflows, lost, hints atomic.Uint64
}

// A Watcher watches directories. Its methods may be called by several goroutines at once.
type Watcher struct {
	events source // nil: there are none
	poll   source
	log    *slog.Logger

	counts counts
	told   sync.Map // reasons that were logged
}

// New returns a Watcher. If there is no inotify instance to be had, it polls everything.
func New(o Options) *Watcher {
	w := newWatcher(o)
	if o.Poll {
		return w
	}
	events, err := newInotify(o.Limit, w.log, &w.counts)
	switch {
	case errors.Is(err, syscall.EMFILE):
		w.logOnce("all directories are polled: the limit fs.inotify.max_user_instances, or that of open files, is reached", err)
		return w
	case err != nil:
		w.logOnce("all directories are polled: no inotify", err)
		return w
	}
	w.events = events
	return w
}

// newWatcher returns a Watcher that polls.
func newWatcher(o Options) *Watcher {
	if o.Interval == 0 {
		o.Interval = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Watcher{poll: newPoller(o.Interval), log: o.Logger}
}

// Watch calls hint for each change in dir until the Watch is stopped. Not what changes below
// its subdirectories.
//
// It does not fail: a directory for which no events can be had is polled. That may change: when polling
// sees a change, events are tried again. When a directory is removed or moved there is a hint without a
// name, and what takes its place is watched.
//
// hint is called on a goroutine that others wait for: it must not block. Calls for one Watch do not
// overlap; the first may come before Watch returns. hint may call Stop, and Watcher.Watch.
func (w *Watcher) Watch(dir string, hint func(Hint)) *Watch {
	x := &Watch{w: w, dir: dir, hint: hint}
	x.start()
	return x
}

// Stats returns what the Watcher did and does.
func (w *Watcher) Stats() Stats {
	return Stats{
		Watched:   int(w.counts.watched.Load()),
		Polled:    int(w.counts.polled.Load()),
		Overflows: w.counts.overflows.Load(),
		Lost:      w.counts.lost.Load(),
		Hints:     w.counts.hints.Load(),
	}
}

// Close ends all watching. When it returns no hint is running or will be. A hint must not call it,
// and Watch must not be called after it.
func (w *Watcher) Close() error {
	err := w.poll.close() // first: it asks for events
	if w.events != nil {
		err = errors.Join(err, w.events.close())
	}
	return err
}

// logOnce tells why directories are polled, unless it has done so for that reason.
func (w *Watcher) logOnce(msg string, err error) {
	if _, told := w.told.LoadOrStore(msg, true); !told {
		w.log.Warn(msg, "err", err)
	}
}

// A Watch is one directory that is watched. Its methods may be called by several goroutines at once.
type Watch struct {
	w    *Watcher
	dir  string
	hint func(Hint)

	stopped atomic.Bool

	giving sync.Mutex // held while hint runs: when the source changes there are two for a moment

	mu     sync.Mutex    // guards the fields below; held while a source is asked to watch
	entry  entry         // what the source does; nil when stopped
	count  *atomic.Int64 // where the Watch is counted
	untold int           // changes from polling to events whose hint has not returned
}

// Stop ends the Watch. It may be called several times. No call of hint begins after it has returned,
// but as with [time.AfterFunc] one that has begun may still be running.
func (x *Watch) Stop() {
	x.stopped.Store(true)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.endLocked()
}

// Settle waits until a hint with a name was given for each change that was made in the directory
// before the call, and reports whether that is so: hint has returned by then. It is false, at once,
// where the directory is polled, and where events were lost: then a hint without a name was or will be
// given. It is false as well when hints take longer than two seconds, after Stop, and after Close.
//
// A hint must not call it: it would wait for itself.
func (x *Watch) Settle() bool {
	x.mu.Lock()
	e := x.entry
	if x.untold > 0 {
		e = nil
	}
	x.mu.Unlock()
	return e != nil && e.settle()
}

func (x *Watch) start() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.startLocked()
}

func (x *Watch) startLocked() {
	e, err := x.events()
	if err == nil {
		x.setLocked(e, &x.w.counts.watched)
		return
	}
	if e, err = x.w.poll.watch(x.dir, x.looked, nil); err == nil { // else the Watcher is closed
		x.setLocked(e, &x.w.counts.polled)
	}
}

// events watches the directory by events, or says in the log why it can't.
func (x *Watch) events() (entry, error) {
	if x.w.events == nil {
		return nil, errNoEvents
	}
	e, err := x.w.events.watch(x.dir, x.give, x.lost)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist): // not worth a line: it may appear later
	case errors.Is(err, syscall.ENOSPC):
		x.w.logOnce("directories are polled: the limit fs.inotify.max_user_watches is reached", err)
	case errors.Is(err, errLimit):
		x.w.logOnce("directories are polled: as many as may be are watched by events", err)
	case errors.Is(err, errNoEvents):
		x.w.logOnce("directories are polled: their file system does not tell of changes made elsewhere", err)
	default:
		x.w.logOnce("directories are polled: inotify fails", err)
	}
	return e, err
}

var (
	errNoEvents = errors.New("file system without events") // a network file system
	errLimit    = errors.New("limit of watches reached")   // Options.Limit
)

func (x *Watch) give(h Hint) {
	x.giving.Lock()
	defer x.giving.Unlock()
	if !x.stopped.Load() {
		x.w.counts.hints.Add(1)
		x.hint(h)
	}
}

// looked is the hint of polling. Where something changed there may be events by now; they begin before
// the hint is given, so that nothing is between the two.
func (x *Watch) looked(h Hint) {
	x.mu.Lock()
	var err error = fs.ErrClosed
	if x.entry != nil {
		var e entry
		if e, err = x.events(); err == nil {
			x.endLocked()
			x.setLocked(e, &x.w.counts.watched)
			x.untold++
		}
	}
	x.mu.Unlock()
	x.give(h)
	if err == nil {
		x.mu.Lock()
		x.untold--
		x.mu.Unlock()
	}
}

// lost begins anew with what is in the directory's place. No round of Settle ends before it returns.
func (x *Watch) lost() {
	x.mu.Lock()
	if x.stopped.Load() {
		x.mu.Unlock()
		return
	}
	x.w.log.Debug("a watched directory was removed or moved", "dir", x.dir)
	x.endLocked()
	x.startLocked()
	x.mu.Unlock()
	x.give(Hint{})
}

func (x *Watch) setLocked(e entry, count *atomic.Int64) {
	x.entry, x.count = e, count
	count.Add(1)
}

func (x *Watch) endLocked() {
	if x.entry != nil {
		x.entry.stop()
		x.entry = nil
		x.count.Add(-1)
	}
}
