package maildir

import (
	"cmp"
	"context"
	"path"
	"sync"
	"time"
)

// A Watcher hears of what others change on disk. Package watch has one.
type Watcher interface {
	// Watch calls hint with the name of each file in dir that is made, renamed or removed from now on, and
	// with "" where all of dir is to be looked at: something happened to dir itself, or names may be
	// missing. hint does not block. dir need not exist.
	Watch(dir string, hint func(name string)) Watching
}

// A Watching is a directory that is watched.
type Watching interface {
	// Settle waits until each change that was made in the directory before the call was told by name,
	// and reports whether that is so. It returns false at once where changes are not told by name, or
	// names were lost.
	Settle() bool
	// Stop ends the watching.
	Stop()
}

// maxHints is how many names a mailbox remembers; with more than that it is read whole. Reading an entry takes
// a tenth of the time of a stat, but meets mail that comes meanwhile in no order, which then is numbered so.
const maxHints = 50_000

// hints are what a mailbox has heard since it last looked. They say where to look, never what is there.
type hints struct {
	mu      sync.Mutex // guards what follows; taken last, not held during I/O
	names   map[string]struct{}
	all     bool // names may be missing
	waiting int  // sessions that want to hear of changes as they happen
	looking bool // lookNow runs
	again   bool // something was heard since the last look
}

// add remembers a name, "cur/x" or "new/x", or that all may have changed: "". Without wake it waits for
// the next look. The result is whether lookNow is to be started.
func (h *hints) add(name string, wake bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case name == "" || len(h.names) == maxHints:
		h.names, h.all = nil, true
	case !h.all:
		if h.names == nil {
			h.names = map[string]struct{}{}
		}
		h.names[name] = struct{}{}
	}
	return wake && h.wakeLocked()
}

// wake is add where there is nothing to remember: the look finds it.
func (h *hints) wake() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wakeLocked()
}

func (h *hints) wakeLocked() bool {
	h.again = true
	if h.looking {
		return false
	}
	h.looking = true
	return true
}

// awaited reports whether a session waits for changes.
func (h *hints) awaited() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.waiting > 0
}

// take returns what was heard, and forgets it.
func (h *hints) take() (names map[string]struct{}, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	names, all = h.names, h.all
	h.names, h.all = nil, false
	return names, all
}

// next reports whether lookNow is to look (again), which it does after it; insist, even if nothing was heard,
// as long as somebody waits.
func (h *hints) next(insist bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looking, h.again = h.again || insist && h.waiting > 0, false
	return h.looking
}

// A watched is what is watched of a mailbox that is selected.
type watched struct {
	path     string // of the mailbox, from the root
	new, cur Watching
	others   []Watching
}

// watch sees to it that the mailbox is watched, under the name it has by now, while a session has it
// selected. What was heard before does not count: names may be missing. The caller holds disk.
func (m *Mailbox) watch() {
	if m.acct.opts.Watcher == nil || m.holders(nil) == 0 {
		return
	}
	t, rel := m.where()
	if m.watched != nil && m.watched.path == rel {
		return
	}
	m.unwatch()
	w := &watched{path: rel}
	part := func(name string) Watching {
		return m.acct.opts.Watcher.Watch(t.join(path.Join(rel, name)), func(file string) {
			if file != "" {
				file = name + "/" + file
			}
			if m.hints.add(file, file == "" || m.hints.awaited()) {
				go m.lookNow()
			}
		})
	}
	w.new, w.cur = part("new"), part("cur")
	own := func(file string) {
		// Of the mailbox's own directories it matters that they are moved or removed, or are none any more, and that
		// another program gave UIDs or named keywords. Locks come and go in them.
		if file == "" || file == "cur" || (file == listFile || file == keysFile) && m.hints.awaited() {
			if m.hints.wake() {
				go m.lookNow()
			}
		}
	}
	w.others = append(w.others, m.acct.opts.Watcher.Watch(t.join(rel), own))
	if m.acct.apart() {
		w.others = append(w.others, m.acct.opts.Watcher.Watch(m.acct.control.join(m.controlAt), own))
	}
	for above := path.Dir(rel); rel != "." && above != "."; above = path.Dir(above) {
		w.others = append(w.others, m.acct.opts.Watcher.Watch(t.join(above), func(file string) {
			if file == "" && m.hints.wake() { // it is moved, and the mailbox with it
				go m.lookNow()
			}
		}))
	}
	m.watched, m.unsure, m.byName = w, true, false
}

// unwatch ends the watching. The caller holds disk.
func (m *Mailbox) unwatch() {
	if m.watched == nil {
		return
	}
	m.watched.new.Stop()
	m.watched.cur.Stop()
	for _, w := range m.watched.others {
		w.Stop()
	}
	m.watched = nil
	if m.byName && m.scanned.racy() { // what came since may show the same times
		m.scanned = scanState{}
	}
	m.byName = false
}

// settle waits until all that happened in new/ and cur/ was told by name, and reports whether it was.
// The caller holds disk.
func (m *Mailbox) settle() bool {
	return m.watched != nil && m.watched.new.Settle() && m.watched.cur.Settle()
}

// lookNow looks at the disk for as long as there is something new to be heard of. The first look comes
// at once; in a burst each waits as long as the one before took, so that many changes share a look and
// sessions get their turn. While a session waits for changes, a look that could not do all it had to is made
// again, after pauses that grow.
func (m *Mailbox) lookNow() {
	var pause time.Duration
	for failures := 0; m.hints.next(failures > 0); {
		time.Sleep(pause)
		started := time.Now()
		if m.lookOnce() {
			failures, pause = 0, min(time.Since(started), 100*time.Millisecond)
		} else {
			pause = min(time.Second<<min(failures, 5), 10*time.Second)
			failures++
		}
	}
}

// lookOnce reports whether a look did all it had to. It does not keep others from the disk for long while it
// waits for another program's lock.
func (m *Mailbox) lookOnce() bool {
	ctx := WithLockWait(context.Background(), func(w LockWait) error {
		if w.Waited < time.Second {
			return nil
		}
		return w.GiveUp()
	})
	m.disk.Lock()
	defer m.disk.Unlock()
	if !m.inUse() {
		return true
	}
	s, err := m.syncLocked(ctx, false)
	m.Tried("look at mailbox", cmp.Or(err, m.unwritten))
	return m.Err() != nil || err == nil && !m.pending && (s.inNew == 0 || !m.readWrite())
}

// inUse reports whether anybody has the mailbox open.
func (m *Mailbox) inUse() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.refs) > 0
}

// Listen makes the mailbox look at the disk as soon as something changes there, so that Changed tells of
// it, until stop is called. Sync tells what happened before.
func (r *Ref) Listen() (stop func()) {
	h := &r.hints
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting++
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.waiting--
	})
}
