package maildir

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// stuckAfter is how long the lock of another program is waited for before other sessions of this process
	// go on without what is behind it.
	stuckAfter = 500 * time.Millisecond
	// waitTick is how often who waits is told from then on.
	waitTick = 100 * time.Millisecond
	// turnTime is how long this process takes the lock again and again before it leaves it alone for turnPause. Who
	// waits for the lock hears that it is free and needs some time to come; without a pause it is taken again by then.
	turnTime  = 25 * time.Millisecond
	turnPause = time.Millisecond
	// logAfter is how long a lock is waited for before the log says so.
	logAfter = 3 * time.Second
)

// A LockHolder is what a lock file says of who holds it: "pid:host", or anything at all.
type LockHolder string

// process is the holder's number on its host, if that is what the file says.
func (h LockHolder) process() (pid int, host string, ok bool) {
	number, host, ok := strings.Cut(string(h), ":")
	pid, err := strconv.Atoi(number)
	return pid, host, ok && err == nil && pid > 0
}

// String names the holder in words that may be shown to anybody, whatever the file says.
func (h LockHolder) String() string {
	pid, host, ok := h.process()
	if !ok || host == "" || len(host) > 64 || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "another program"
	}
	return fmt.Sprintf("process %d on %s", pid, host)
}

// A LockWait is a lock file that is waited for.
type LockWait struct {
	Path   string // of the lock file
	Holder LockHolder
	Waited time.Duration // so far
	Limit  time.Duration // when the wait ends without the lock
}

// GiveUp is the error of who waits no longer.
func (w LockWait) GiveUp() error { return &LockError{Path: w.Path, Holder: w.Holder, Waited: w.Waited} }

type lockWaitKey struct{}

// WithLockWait is a context for commands that want to hear of the locks that they have to wait for: f is called
// after half a second and then ten times a second, on the command's own goroutine. The wait ends with the error
// that f returns.
func WithLockWait(ctx context.Context, f func(LockWait) error) context.Context {
	return context.WithValue(ctx, lockWaitKey{}, f)
}

func tellWait(ctx context.Context, w LockWait) error {
	if f, ok := ctx.Value(lockWaitKey{}).(func(LockWait) error); ok {
		return f(w)
	}
	return nil
}

// tellLong is tellWait for a wait that holds up nobody else.
func tellLong(ctx context.Context) func(LockWait) error {
	return func(w LockWait) error {
		if w.Waited < stuckAfter {
			return nil
		}
		return tellWait(ctx, w)
	}
}

// A diskMutex makes this process one party to a mailbox's lock file. Who holds it may have to wait long
// for another program's lock; the others can see that.
type diskMutex struct {
	turn chan struct{} // holds a token while it is locked

	mu    sync.Mutex // guards what follows
	wait  *LockWait  // what its holder waits for, if that takes long
	stuck chan struct{}

	// behind is since when its holder has waited for those before him, who waited for another
	// program's lock in vain. Guarded by the diskMutex itself.
	behind time.Time
}

func newDiskMutex() diskMutex {
	return diskMutex{turn: make(chan struct{}, 1), stuck: make(chan struct{})}
}

func (d *diskMutex) Lock()   { d.turn <- struct{}{} }
func (d *diskMutex) Unlock() { d.behind = time.Time{}; <-d.turn }

func (d *diskMutex) TryLock() bool {
	select {
	case d.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

// lockUnlessStuck is Lock for who can do without; it reports whether it is locked.
func (d *diskMutex) lockUnlessStuck(ctx context.Context) bool {
	if d.TryLock() {
		return true
	}
	d.mu.Lock()
	stuck := d.stuck
	d.mu.Unlock()
	select {
	case d.turn <- struct{}{}:
		return true
	case <-stuck:
	case <-ctx.Done():
	}
	return false
}

// lock is Lock for a command: where the holder waits for another program's lock, the command waits for it
// as well, as long as it would by itself.
func (d *diskMutex) lock(ctx context.Context, limit time.Duration) error {
	if d.TryLock() {
		return nil
	}
	tick := time.NewTicker(waitTick)
	defer tick.Stop()
	var behind time.Time
	for {
		select {
		case d.turn <- struct{}{}:
			d.behind = behind
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		d.mu.Lock()
		wait := d.wait
		d.mu.Unlock()
		switch {
		case wait == nil:
			behind = time.Time{}
			continue
		case behind.IsZero():
			behind = time.Now()
		}
		w := *wait
		w.Waited, w.Limit = time.Since(behind), limit
		if w.Waited >= limit {
			return w.GiveUp()
		}
		if err := tellWait(ctx, w); err != nil {
			return err
		}
	}
}

// setWait says what the holder waits for, nil: for nothing any more.
func (d *diskMutex) setWait(w *LockWait) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case w != nil && d.wait == nil:
		close(d.stuck)
	case w == nil && d.wait != nil:
		d.stuck = make(chan struct{})
	}
	d.wait = w
}

// giveWay lets other programs have the lock, if that is due. It is called between two slices. The caller holds disk.
func (m *Mailbox) giveWay() {
	if time.Since(m.gaveWay) < turnTime {
		return
	}
	time.Sleep(turnPause)
	m.gaveWay = time.Now()
}

// lockBoth locks two, and holds neither while it waits for the other.
func lockBoth(ctx context.Context, a, b *diskMutex) error {
	for {
		if err := a.lock(ctx, lockWait); err != nil {
			return err
		}
		if b.TryLock() {
			return nil
		}
		a.Unlock()
		a, b = b, a
	}
}

// A lockWaiting tells of a lock file that is waited for by who holds m.disk.
type lockWaiting struct {
	m      *Mailbox
	ctx    context.Context
	last   time.Duration
	logged bool
}

func (l *lockWaiting) tell(w LockWait) error {
	if w.Waited < stuckAfter || w.Waited < l.last+waitTick {
		return nil
	}
	l.last = w.Waited
	l.m.disk.setWait(&w)
	if w.Waited >= logAfter && !l.logged {
		l.logged = true
		l.m.acct.log().Warn("waiting for a lock", "mailbox", l.m.Name(), "file", w.Path, "holder", w.Holder, "limit", w.Limit)
	}
	return tellWait(l.ctx, w)
}

// end is called when the lock was had, or given up.
func (l *lockWaiting) end(err error) {
	l.m.disk.setWait(nil)
	if !l.logged {
		return
	}
	if err != nil {
		l.m.acct.log().Warn("lock was not had", "mailbox", l.m.Name(), "waited", l.last, "err", err)
	} else {
		l.m.acct.log().Info("lock was had", "mailbox", l.m.Name(), "waited", l.last)
	}
}

// waitTogether is a context for who holds the disks of two mailboxes: where it waits for the lock of one of them, both show
// that, until waited is called.
func waitTogether(ctx context.Context, first, second *Mailbox) (waiting context.Context, waited func()) {
	show := func(w *LockWait) {
		first.disk.setWait(w)
		second.disk.setWait(w)
	}
	waiting = WithLockWait(ctx, func(w LockWait) error {
		show(&w)
		return tellWait(ctx, w)
	})
	return waiting, func() { show(nil) }
}

// holdBoth runs f under the locks of two mailboxes. The one is not held while the other is waited for: that may take
// long. The caller holds both disks.
func holdBoth(ctx context.Context, first, second *Mailbox, f func() error) error {
	waiting, waited := waitTogether(ctx, first, second)
	defer waited()
	for until := time.Now().Add(lockWait); ; {
		var had, free bool // the first one was; the second one was
		err := first.locked(waiting, time.Until(until), func() error {
			had = true
			return second.locked(ctx, shortWait, func() error {
				free = true
				return f()
			})
		})
		if !had || free || !errors.Is(err, ErrLocked) || time.Now().After(until) {
			return err
		}
		err = second.locked(waiting, time.Until(until), func() error { return nil })
		waited()
		if err != nil {
			return err
		}
	}
}
