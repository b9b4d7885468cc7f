package watch

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Options says how to watch. The zero value is fine.
type Options struct {
	// Poll makes every directory be polled, as if the system could not tell of changes.
	Poll bool
	// Interval is how often a directory is polled; 0 is 5 s.
	Interval time.Duration
	// Logger hears of directories that have to be polled; nil is slog.Default().
	Logger *slog.Logger
}

// A Watcher watches directories, one instance for a process. Its methods may be called by several
// goroutines.
type Watcher struct {
	o    Options
	fsn  *fsnotify.Watcher // nil: everything is polled
	done chan struct{}
	wg   sync.WaitGroup

	mu   sync.Mutex // guards dirs; not held while a hint is given
	dirs map[string]*watched
}

// watched is a directory and who wants to hear of it.
type watched struct {
	hints map[*func()]struct{}
	poll  chan struct{} // closed to end the polling; nil: not polled
}

// Stats counts what is watched.
type Stats struct {
	Watched int // directories whose changes the system tells
	Polled  int // directories that are polled
}

// New makes a Watcher. Where the system's events can't be had, it polls, and says so in the log.
func New(o Options) *Watcher {
	if o.Interval == 0 {
		o.Interval = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	w := &Watcher{o: o, done: make(chan struct{}), dirs: map[string]*watched{}}
	if o.Poll {
		return w
	}
	fsn, err := fsnotify.NewBufferedWatcher(4096)
	if err != nil {
		o.Logger.Warn("every directory is polled", "err", err)
		return w
	}
	w.fsn = fsn
	w.wg.Go(w.events)
	return w
}

// Close ends all watching and waits until no hint is given any more.
func (w *Watcher) Close() error {
	close(w.done)
	var err error
	if w.fsn != nil {
		err = w.fsn.Close()
	}
	w.wg.Wait()
	return err
}

// Stats tells how much is watched.
func (w *Watcher) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	var s Stats
	for _, d := range w.dirs {
		if d.poll != nil {
			s.Polled++
		} else {
			s.Watched++
		}
	}
	return s
}

// Watch calls hint after changes in dir until stop is called. hint must not block; it may still be
// running, once, when stop returns.
func (w *Watcher) Watch(dir string, hint func()) (stop func()) {
	dir = filepath.Clean(dir)
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.dirs[dir]
	if d == nil {
		d = &watched{hints: map[*func()]struct{}{}}
		w.dirs[dir] = d
		err := errors.New("polling was asked for")
		if w.fsn != nil {
			if err = w.fsn.Add(dir); err != nil {
				w.o.Logger.Warn("directory is polled", "dir", dir, "err", err)
			}
		}
		if err != nil {
			d.poll = make(chan struct{})
			w.wg.Go(func() { w.poll(dir, d.poll) })
		}
	}
	d.hints[&hint] = struct{}{}
	return sync.OnceFunc(func() { w.stop(dir, &hint) })
}

func (w *Watcher) stop(dir string, hint *func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.dirs[dir]
	delete(d.hints, hint)
	if len(d.hints) > 0 {
		return
	}
	delete(w.dirs, dir)
	if d.poll != nil {
		close(d.poll)
	} else {
		w.fsn.Remove(dir) // fails when the directory is gone, and the watch with it
	}
}

// events turns the system's events into hints.
func (w *Watcher) events() {
	for {
		select {
		case e, ok := <-w.fsn.Events:
			if !ok {
				return
			}
			w.tell(filepath.Dir(e.Name))
			w.tell(e.Name) // the directory itself went away
		case err, ok := <-w.fsn.Errors:
			if !ok {
				return
			}
			w.o.Logger.Warn("events were lost", "err", err)
			w.mu.Lock()
			var all []string
			for dir := range w.dirs {
				all = append(all, dir)
			}
			w.mu.Unlock()
			for _, dir := range all {
				w.tell(dir)
			}
		}
	}
}

func (w *Watcher) tell(dir string) {
	w.mu.Lock()
	var hints []func()
	if d := w.dirs[dir]; d != nil {
		for hint := range d.hints {
			hints = append(hints, *hint)
		}
	}
	w.mu.Unlock()
	for _, hint := range hints {
		hint()
	}
}

// tick is how long a directory may go on changing under one modification time.
const tick = 20 * time.Millisecond

// poll looks at a directory's modification time now and then.
func (w *Watcher) poll(dir string, stop <-chan struct{}) {
	t := time.NewTicker(w.o.Interval)
	defer t.Stop()
	last := look(dir)
	for {
		select {
		case <-w.done:
			return
		case <-stop:
			return
		case <-t.C:
			// A change may leave the time as it is when it comes right after another one: a
			// directory that changed lately is told again.
			if now := look(dir); !now.Equal(last) || time.Since(now) < 2*w.o.Interval+tick {
				last = now
				w.tell(dir)
			}
		}
	}
}

func look(dir string) time.Time {
	fi, err := os.Stat(dir)
	if err != nil {
		return time.Time{}
	}
	return fi.ModTime()
}
