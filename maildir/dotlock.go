package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// dotlockOptions says how a lock file is taken.
type dotlockOptions struct {
	guarded string        // the file behind the lock: a lock is not stale while this one changes
	wait    time.Duration // how long to wait
	stale   time.Duration // after which a lock of unknown owner counts as left behind; 0: 120 s
	noOwner bool          // write no pid, as for subscriptions.lock
	perm    fs.FileMode
}

// A dotlock is a lock file of ours, in the way of Dovecot's file-dotlock.c: whoever makes the file
// has the lock. It holds "pid:host", so that others can tell whether its maker lives.
type dotlock struct {
	d    *dir
	name string
	f    *file
	id   fileID
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
func lockDotfile(ctx context.Context, d *dir, name string, o dotlockOptions) (*dotlock, error) {
	if o.stale == 0 {
		o.stale = 120 * time.Second
	}
	start := time.Now()
	pause := time.Millisecond
	var seen stamp
	for {
		f, err := d.create(name, o.perm)
		if err == nil {
			return newDotlock(d, name, f, o)
		} else if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		holder, now, err := lookAtLock(d, name, o.guarded)
		switch {
		case notExist(err):
			continue // just released
		case err != nil:
			return nil, err
		}
		if !now.same(seen) {
			seen = now
			seen.since = time.Now()
		}
		if takeOver(holder, now, time.Since(seen.since), o) {
			// Another process may think so too, and have made its own by now: only the very file
			// that was looked at goes.
			st, err := d.stat(name)
			if err == nil && st.id == now.lock.id {
				err = d.remove(name)
			}
			if err == nil || notExist(err) {
				continue
			} // else it is waited for like any other
		}
		if waited := time.Since(start); waited >= o.wait {
			return nil, &LockError{Path: d.f.Name() + "/" + name, Holder: holder, Waited: waited}
		}
		t := time.NewTimer(min(pause, o.wait))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		case <-t.C:
		}
		limit := 50 * time.Millisecond
		if time.Since(start) > 2*time.Second {
			limit = time.Second
		}
		pause = min(pause*3/2+time.Millisecond, limit)
	}
}

// A stamp is how a lock and what it guards looked at one moment.
type stamp struct {
	lock, guarded fileStat
	since         time.Time
}

func (s stamp) same(o stamp) bool {
	return s.lock.id == o.lock.id && s.lock.mtime == o.lock.mtime && s.lock.ctime == o.lock.ctime && s.lock.size == o.lock.size &&
		sameFile(s.guarded, o.guarded)
}

func lookAtLock(d *dir, name, guarded string) (holder string, s stamp, err error) {
	f, err := d.open(name)
	if err != nil {
		return "", s, err
	}
	defer f.Close()
	if s.lock, err = statFile(f); err != nil {
		return "", s, err
	}
	b, err := io.ReadAll(io.LimitReader(f, 512))
	if err != nil {
		return "", s, err
	}
	s.guarded, err = d.stat(guarded)
	if notExist(err) {
		err = nil
	}
	return strings.TrimSuffix(string(b), "\n"), s, err
}

// takeOver reports whether a lock was left behind.
func takeOver(holder string, s stamp, unchanged time.Duration, o dotlockOptions) bool {
	locks.Lock()
	held := locks.held[s.lock.id]
	since, left := locks.left[s.lock.id]
	locks.Unlock()
	if left && since == s.lock.ctime {
		return true
	}
	pid, host, ok := strings.Cut(holder, ":")
	n, err := strconv.Atoi(pid)
	if !ok || err != nil || n <= 0 || host != hostName {
		return unchanged >= o.stale
	}
	if n == os.Getpid() {
		if held {
			return false // elsewhere in this process
		}
	} else if err := unix.Kill(n, 0); err != unix.ESRCH {
		return false // alive, even if it may not be signalled
	}
	return time.Since(time.Unix(s.lock.mtime.Unix())) >= 2*time.Second || unchanged >= 2*time.Second
}

func newDotlock(d *dir, name string, f *file, o dotlockOptions) (*dotlock, error) {
	l := &dotlock{d: d, name: name, f: f}
	st, err := statFile(f.File)
	l.id = st.id
	locks.Lock()
	locks.held[l.id] = true
	delete(locks.left, l.id)
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
