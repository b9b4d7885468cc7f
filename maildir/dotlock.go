package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// dotlockOptions says how a lock file is taken.
type dotlockOptions struct {
	guarded string               // the file behind the lock: a lock is not stale while this one changes
	wait    time.Duration        // how long to wait
	since   time.Time            // when the wait began; zero: now
	stale   time.Duration        // after which a lock of unknown owner counts as left behind; 0: 120 s
	noOwner bool                 // write no pid, as for subscriptions.lock
	waiting func(LockWait) error // called while it is waited for; an error ends that; nil: nothing
	access  access
}

const (
	// lookPause is how often the holder of a lock is looked at, while it is waited for.
	lookPause = 10 * time.Millisecond
	// touchPause is how often a lock is touched while it is held. In a container whose processes have other
	// numbers, Dovecot takes us for dead, and a lock of the dead for left behind when it is 2 s old.
	touchPause = time.Second
)

// settlePause is how long a lock that was taken over may still fall to another program, which saw that it was
// left behind just before and removes it by its name. Tests change it.
var settlePause = 100 * time.Millisecond

// A dotlock is a lock file of ours, in the way of Dovecot's file-dotlock.c: whoever makes the file
// has the lock. It holds "pid:host", so that others can tell whether its maker lives.
type dotlock struct {
	d     *dir
	name  string
	f     *file
	id    fileID
	touch *time.Timer
}

// locks are the lock files that this process made and that are still there. One with this process's
// number that is not among them is of an earlier process: in a container each may get the same number.
var locks = struct {
	sync.Mutex
	held map[fileID]bool
	left map[fileID]unix.Timespec // could not be removed; when they were last changed
}{held: map[fileID]bool{}, left: map[fileID]unix.Timespec{}}

// lockDotfile takes a lock, waiting for others as Dovecot waits. A lock is taken over
// from a process of this host that is dead, and from an unknown owner when neither the lock nor
// what it guards changed for o.stale; never from a living process of this host. After o.wait it
// returns a *LockError.
//
// Dovecot hears of it at once when a lock file is removed. So as not to come late each time, a lock is tried
// for each millisecond at first; how long the pauses become is in proportion to the wait.
func lockDotfile(ctx context.Context, d *dir, name string, o dotlockOptions) (*dotlock, error) {
	if o.stale == 0 {
		o.stale = 120 * time.Second
	}
	if o.since.IsZero() {
		o.since = time.Now()
	}
	var seen stamp
	var looked time.Time
	for {
		f, err := d.create(name, o.access)
		if err == nil {
			return newDotlock(d, name, f, o)
		} else if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		waited := time.Since(o.since)
		if waited >= o.wait || time.Since(looked) >= lookPause {
			looked = time.Now()
			now, err := lookAtLock(d, name, o.guarded)
			switch {
			case notExist(err):
				continue // just released
			case err != nil:
				return nil, err
			}
			if !now.same(seen) {
				seen = now
				seen.since = looked
			}
			now.since = seen.since
			var l *dotlock
			if now.leftBehind(o) {
				l = now.takeOver(d, name, o)
			}
			now.close()
			if l != nil {
				return l, nil
			}
		}
		w := LockWait{Path: d.path(name), Holder: seen.holder, Waited: waited, Limit: o.wait}
		if waited >= o.wait {
			return nil, w.GiveUp()
		}
		if o.waiting != nil {
			if err := o.waiting(w); err != nil {
				return nil, err
			}
		}
		t := time.NewTimer(min(max(waited/200, time.Millisecond), 100*time.Millisecond, o.wait-waited))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		case <-t.C:
		}
	}
}

// A stamp is how a lock and what it guards looked at one moment.
type stamp struct {
	f             *os.File // the lock, so that no other file gets its inode number; nil: it may not be read
	holder        LockHolder
	lock, guarded fileStat
	since         time.Time // when it first looked so
}

func (s stamp) close() {
	if s.f != nil {
		s.f.Close()
	}
}

func (s stamp) same(o stamp) bool {
	return s.lock.id == o.lock.id && s.lock.mtime == o.lock.mtime && s.lock.ctime == o.lock.ctime && s.lock.size == o.lock.size &&
		sameFile(s.guarded, o.guarded)
}

// lookAtLock looks at a lock file, which the caller closes.
func lookAtLock(d *dir, name, guarded string) (s stamp, err error) {
	if s.f, err = d.open(name); errors.Is(err, fs.ErrPermission) {
		s.lock, err = d.stat(name)
	} else if err == nil {
		s.lock, err = statFile(s.f)
	}
	if err == nil && s.f != nil && s.lock.mode.IsRegular() { // a directory locks as well
		b, _ := io.ReadAll(io.LimitReader(s.f, 512))
		s.holder = LockHolder(strings.TrimSuffix(string(b), "\n"))
	}
	if err == nil {
		if s.guarded, err = d.stat(guarded); notExist(err) {
			return s, nil
		}
	}
	if err != nil {
		s.close()
	}
	return s, err
}

// leftBehind reports whether a lock was left behind.
func (s stamp) leftBehind(o dotlockOptions) bool {
	locks.Lock()
	held := locks.held[s.lock.id]
	changed, left := locks.left[s.lock.id]
	locks.Unlock()
	if left && changed == s.lock.ctime {
		return true
	}
	unchanged := time.Since(s.since)
	pid, host, ok := s.holder.process()
	if !ok || host != hostName {
		return unchanged >= o.stale
	}
	if pid == os.Getpid() {
		if held {
			return false // elsewhere in this process
		}
	} else if err := unix.Kill(pid, 0); err != unix.ESRCH {
		return false // alive, even if it may not be signalled
	}
	return time.Since(time.Unix(s.lock.mtime.Unix())) >= 2*time.Second || unchanged >= 2*time.Second
}

// takeOver puts a lock of ours in the place of one that was left behind; nil where somebody was faster, or it
// can't be done.
//
// Others may be about to do the same. Processes of ours come one after the other, by a lock on the file that
// was left behind. Dovecot knows nothing of that: it may have removed the file and made its own since it was
// looked at. So the two files change their places, at one moment; if it is another file that comes out, it is
// put back in the same way.
func (s stamp) takeOver(d *dir, name string, o dotlockOptions) *dotlock {
	if s.f != nil && unix.Flock(int(s.f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil
	}
	is := func(name string) bool {
		st, err := d.stat(name)
		return err == nil && st.id == s.lock.id
	}
	if !is(name) {
		return nil
	}
	own := name + "." + newBase(time.Now())
	f, err := d.create(own, o.access)
	if err != nil {
		return nil
	}
	l, err := newDotlock(d, own, f, o)
	if err != nil {
		return nil
	}
	switch err := d.exchange(name, own); {
	case cannotExchange(err):
		if err = d.remove(name); err == nil {
			err = d.linkTo(own, d, name) // fails where somebody was faster
		}
		if err != nil {
			l.unlock()
			return nil
		}
	case err != nil:
		l.unlock()
		return nil
	case !is(own):
		d.exchange(name, own)
		l.unlock()
		return nil
	}
	d.remove(own)
	l.name = name
	time.Sleep(settlePause)
	if !l.held() {
		l.unlock()
		return nil
	}
	return l
}

func newDotlock(d *dir, name string, f *file, o dotlockOptions) (*dotlock, error) {
	l := &dotlock{d: d, name: name, f: f}
	st, err := statFile(f.File)
	l.id = st.id
	locks.Lock()
	locks.held[l.id] = true
	delete(locks.left, l.id)
	l.touch = time.AfterFunc(touchPause, l.keepFresh)
	locks.Unlock()
	if err == nil && !o.noOwner {
		_, err = fmt.Fprintf(f, "%d:%s", os.Getpid(), hostName)
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = nil // a lock of an unknown owner is one as well, and room is made by expunging
	}
	if err != nil {
		f.Close()
		l.remove()
		return nil, err
	}
	return l, nil
}

// keepFresh touches the lock file for as long as it is held.
func (l *dotlock) keepFresh() {
	if l.f.touch() != nil {
		return // it is closed, or what is wrong shows elsewhere
	}
	locks.Lock()
	defer locks.Unlock()
	if locks.held[l.id] {
		l.touch.Reset(touchPause)
	}
}

// remove removes the lock file. One that can't be removed would stop everybody for as long as this
// process lives: this process takes it over when it needs the lock again.
func (l *dotlock) remove() error {
	l.forget()
	err := l.d.remove(l.name)
	if err != nil {
		if st, serr := l.d.stat(l.name); serr == nil && st.id == l.id {
			locks.Lock()
			locks.left[l.id] = st.ctime
			locks.Unlock()
		}
	}
	return err
}

// forget is for a lock file that is no longer one.
func (l *dotlock) forget() {
	locks.Lock()
	defer locks.Unlock()
	delete(locks.held, l.id)
	l.touch.Stop()
}

// held reports whether the lock is still ours.
func (l *dotlock) held() bool {
	st, err := l.d.stat(l.name)
	return err == nil && st.id == l.id
}

// unlock releases the lock. It returns an error where somebody took the lock away meanwhile.
func (l *dotlock) unlock() error {
	l.f.Close()
	if !l.held() {
		l.forget()
		return fmt.Errorf("%s/%s was taken away while it was held", l.d.f.Name(), l.name)
	}
	return l.remove()
}
