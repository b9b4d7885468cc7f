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

// A Source hears of changes in directories.
type Source interface {
	// Watch calls hint for changes in dir from now on until stop is called, as Watcher.Watch tells,
	// or lost, which it calls once, without a hint before it, when dir is not watched any longer:
	// it was removed or another directory took its name. Neither is called with a lock held. stop may be called
	// after lost, and several times.
	//
	// Watch fails if dir cannot be watched.
	Watch(dir string, hint func(Hint), lost func()) (stop func(), err error)
	// Close ends all watching. When it returns hint and lost are not running, and won't be called.
	Close() error
}

// Options are the options of a Watcher. The zero value is ready to use.
type Options struct {
	// Poll makes the Watcher poll every directory.
	Poll bool
	// Interval is the time between two looks at a polled directory; 0 is 5 seconds.
	Interval time.Duration
	// Logger hears why directories are polled, each reason once; nil is slog.Default().
	Logger *slog.Logger
}

// Stats is what a Watcher did and does.
type Stats struct {
	Watched   int    // calls of Watch in force that are served by events
	Polled    int    // calls of Watch in force that are served by polling
	Overflows uint64 // times that events came faster than they were read, so that some were lost
	Hints     uint64 // hints given
}

// A Watcher watches directories. Its methods may be called by several goroutines at once.
type Watcher struct {
	events Source // nil: there are none
	poll   Source
	log    *slog.Logger

	watched, polled  atomic.Int64
	overflows, hints atomic.Uint64
	told             sync.Map // reasons that were logged
}

// New returns a Watcher. If there is no inotify instance to be had, it polls everything.
func New(o Options) *Watcher {
	w := newWatcher(o)
	if o.Poll {
		return w
	}
	events, err := newInotify(func() { w.overflows.Add(1) })
	if err != nil {
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

// Watch calls hint for each change in dir until stop is called. Not what changes below
// its subdirectories.
//
// It does not fail: a directory for which no events can be had is polled. One that is removed or
// moved gets a hint without a name, and what takes its place is polled.
//
// hint is called on a goroutine that others wait for: it must not block. Calls for one Watch do not
// overlap; the first may come before Watch returns. hint may call stop, and Watch.
//
// stop may be called several times. No call of hint begins after it has returned, but as with
// [time.AfterFunc] one that has begun may still be running.
func (w *Watcher) Watch(dir string, hint func(Hint)) (stop func()) {
	s := &subscription{w: w, dir: dir, hint: hint}
	s.start()
	return s.stop
}

// Stats returns what the Watcher did and does.
func (w *Watcher) Stats() Stats {
	return Stats{
		Watched:   int(w.watched.Load()),
		Polled:    int(w.polled.Load()),
		Overflows: w.overflows.Load(),
		Hints:     w.hints.Load(),
	}
}

// Close ends all watching. When it returns no hint is running or will be. A hint must not call it,
// and Watch must not be called after it.
func (w *Watcher) Close() error {
	var err error
	if w.events != nil {
		err = w.events.Close()
	}
	return errors.Join(err, w.poll.Close())
}

// logOnce tells why directories are polled, unless it has done so for that reason.
func (w *Watcher) logOnce(msg string, err error) {
	if _, told := w.told.LoadOrStore(msg, true); !told {
		w.log.Warn(msg, "err", err)
	}
}

// A subscription is one call of Watch.
type subscription struct {
	w    *Watcher
	dir  string
	hint func(Hint)

	stopped atomic.Bool

	mu    sync.Mutex    // guards the fields below; held while a source is asked to watch
	end   func()        // ends what the source does; nil when stopped
	count *atomic.Int64 // where the subscription is counted
}

func (s *subscription) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w.events == nil {
		s.pollLocked()
		return
	}
	end, err := s.w.events.Watch(s.dir, s.give, s.lost)
	switch {
	case err == nil:
		s.end, s.count = end, &s.w.watched
		s.count.Add(1)
		return
	case errors.Is(err, fs.ErrNotExist): // not worth a line: it may appear later
	case errors.Is(err, syscall.ENOSPC):
		s.w.logOnce("directories are polled: the limit fs.inotify.max_user_watches is reached", err)
	case errors.Is(err, errNoEvents):
		s.w.logOnce("directories are polled: their file system does not tell of changes made elsewhere", err)
	default:
		s.w.logOnce("directories are polled: inotify fails", err)
	}
	s.pollLocked()
}

// errNoEvents is why a directory on a network file system is not watched.
var errNoEvents = errors.New("file system without events")

func (s *subscription) pollLocked() {
	end, err := s.w.poll.Watch(s.dir, s.give, nil)
	if err != nil {
		return // the Watcher is closed
	}
	s.end, s.count = end, &s.w.polled
	s.count.Add(1)
}

func (s *subscription) give(h Hint) {
	if !s.stopped.Load() {
		s.w.hints.Add(1)
		s.hint(h)
	}
}

// lost polls the directory in place of the source that has lost it.
func (s *subscription) lost() {
	s.mu.Lock()
	if s.stopped.Load() {
		s.mu.Unlock()
		return
	}
	s.w.log.Info("directory was removed or moved, and is polled", "dir", s.dir)
	s.endLocked()
	s.pollLocked()
	s.mu.Unlock()
	s.give(Hint{})
}

func (s *subscription) stop() {
	s.stopped.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked()
}

func (s *subscription) endLocked() {
	if s.end != nil {
		s.end()
		s.end = nil
		s.count.Add(-1)
	}
}
