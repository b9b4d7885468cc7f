package maildir

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/emersion/go-imap/v2"
)

const (
	listFile = "dovecot-uidlist"
	listLock = "dovecot-uidlist.lock"
	keysFile = "dovecot-keywords"

	// lockWait is how long a change waits for dovecot-uidlist.lock, as long as Dovecot does.
	lockWait = 122 * time.Second
	// syncLockWait is how long a look at the disk waits for it, to number new mail. What has no
	// UID by then is shown later; shortWait is for looks that can do without.
	syncLockWait = 5 * time.Second
	shortWait    = 50 * time.Millisecond
	// slice is how many files are renamed or unlinked in one hold of the lock: about 3 ms.
	slice = 200
)

// A Mailbox is one directory as this process sees it, shared by every session that has it open.
// It is the directory, whatever its name: when another one takes over the name, this one is gone.
//
// All methods may be called by several goroutines. They return ErrGone once the mailbox is no
// longer what it was.
type Mailbox struct {
	acct *Account                 // immutable
	d    *dir                     // immutable; where its mail is
	id   fileID                   // immutable
	snap atomic.Pointer[Snapshot] // the current state; only publish replaces it

	// disk makes this process one party to the dotlock, which is taken after it. It is held
	// during I/O and guards what follows.
	disk      diskMutex
	control   *dir                // where dovecot-uidlist and dovecot-keywords are: d, if they are not apart
	controlAt string              // its path in their tree, if they are
	scanned   scanState           // of the last complete scan, or of our own last change
	scanTook  time.Duration       // for cur/
	list      listState           // of dovecot-uidlist as it was last read; zero: not known
	keys      fileStat            // of dovecot-keywords as it was last read
	pending   bool                // the last look could not do all it had to
	places    index               // of the current snapshot, or one before
	states    []fileState         // of a reading; kept for the next one
	twins     map[string]struct{} // base names that two files had at the last look
	watched   *watched            // nil: nobody has it selected, or nothing tells of changes
	unsure    bool                // it was not watched at the last look
	byName    bool                // each change since the last look is heard of by name
	warned    map[string]struct{} // files that were complained about
	gaveWay   time.Time           // when the lock was last left to others
	unwritten error               // why mail has no UID, or is in new/ still, since the last look

	use   use   // which sessions have it selected
	hints hints // what was heard of changes since the last look

	// mu guards what follows. It is taken after disk, and not held during I/O.
	mu       sync.Mutex
	storage  string             // the storage name, which RENAME changes
	aside    string             // where it is, if it was deleted and is kept for who has it open
	refs     map[*Ref]struct{}  // who uses it
	changed  chan struct{}      // closed by the next publish
	recent   []imap.UID         // messages that no read-write session was told of
	ghosts   map[imap.UID]ghost // expunged messages that are kept
	gone     error              // why it is gone
	lost     bool               // it is gone, and sessions stay all the same
	computed bool               // sizes were counted that dovecot-uidlist does not have
	trouble  map[string]string  // why something could not be done the last time, by what it was
	recheck  *time.Timer        // looks again when the clock has moved on
}

// A Ref is one user's hold on a mailbox. Close must be called.
type Ref struct {
	*Mailbox
	opts RefOptions
	told atomic.Uint64
	sent bool // away: Gone was called; guarded by Mailbox.mu

	entered, left bool // whether it is, and whether it was, counted by use.users; guarded by use.mu
}

// RefOptions says what a mailbox is opened for.
type RefOptions struct {
	// Selected is whether a session selects the mailbox, and may hold messages that others expunge.
	Selected bool
	// ReadOnly is whether nothing may change by looking: mail stays in new/ and stays \Recent. A selected
	// mailbox that this process may not change is read-only, too (Ref.ReadOnly).
	ReadOnly bool
	// Gone is called once, on a goroutine of its own, when the mailbox is gone while it is open.
	Gone func(reason error)
	// Follow is whether the mailbox stays open when another program renames it; otherwise it is gone then.
	Follow bool
	// Stay is whether the session goes on without the content when another program deletes the mailbox:
	// with what the last snapshot says. Gone is not called then.
	Stay bool
}

// Name is the name that clients know the mailbox by.
func (m *Mailbox) Name() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, _ := m.acct.opts.mailboxName(m.storage)
	return name
}

// where is where the mailbox's directory is.
func (m *Mailbox) where() (t *tree, rel string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.aside != "" {
		return m.acct.mail, m.aside
	}
	return m.acct.at(m.storage)
}

// Deleted reports whether the mailbox was deleted and is kept for those who have it selected, or was taken
// away by another program and some of them stay. It has its name still, but nobody finds it under that.
func (m *Mailbox) Deleted() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.aside != "" || m.lost
}

// Again is another hold on the mailbox, also where it can't be opened by its name any more.
func (r *Ref) Again(o RefOptions) *Ref {
	again := &Ref{Mailbox: r.Mailbox, opts: o}
	r.mu.Lock()
	defer r.mu.Unlock()
	again.told.Store(r.snap.Load().Number)
	r.refs[again] = struct{}{}
	return again
}

// Snapshot is the current state as far as this process knows; it does no I/O.
func (m *Mailbox) Snapshot() *Snapshot { return m.snap.Load() }

// Changed returns a channel that is closed when there is a newer snapshot than the current one, or
// when the mailbox is gone or has another name. Take the channel first, then the snapshot.
func (m *Mailbox) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// Err is why the mailbox is gone, or nil: an error that matches ErrGone.
func (m *Mailbox) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gone
}

// publish makes s the current snapshot and tells who waits. The caller holds disk.
func (m *Mailbox) publish(s *Snapshot) {
	s.countNew(m.Snapshot())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.snap.Store(s)
	for uid, g := range m.ghosts {
		if g.number == 0 && s.Find(uid) == nil {
			g.number = s.Number
			m.ghosts[uid] = g
		}
	}
	m.wake()
}

// wake wakes who waits on Changed. The caller holds mu.
func (m *Mailbox) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// vanish makes the mailbox gone for all who have it open, and leaves its name to another one.
func (m *Mailbox) vanish(reason error) {
	m.acct.forget(m)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone != nil {
		return
	}
	m.gone = reason
	m.wake()
	for r := range m.refs {
		r.sendAway(reason)
	}
}

// vanishOutside is vanish for a mailbox that another program took away. Those who stay go on with what is
// known of it; a kept one that was taken away is gone for them, too.
func (m *Mailbox) vanishOutside() error {
	reason := goneError("the mailbox was deleted by another program")
	m.mu.Lock()
	if m.gone == nil && m.aside == "" {
		for r := range m.refs {
			if r.opts.Stay && r.opts.Selected {
				r.sent, m.lost = true, true
			}
		}
	}
	m.mu.Unlock()
	m.vanish(reason)
	return reason
}

// sendAway calls Gone, once. Before that the session counts no more as one that has the mailbox
// selected. The caller holds mu.
func (r *Ref) sendAway(reason error) {
	if r.opts.Gone == nil || r.sent {
		return
	}
	r.sent = true
	go func() {
		if r.opts.Selected {
			r.leave(r)
		}
		r.opts.Gone(reason)
	}()
}

// Disconnect calls Gone, on a goroutine of its own, for all who have the mailbox selected, but not
// for except. The mailbox itself stays, and they don't count as holders any more.
func (m *Mailbox) Disconnect(except *Ref, reason error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for r := range m.refs {
		if r != except && r.opts.Selected {
			r.sendAway(reason)
		}
	}
}

// holders counts the sessions that have the mailbox selected, other than one.
func (m *Mailbox) holders(other *Ref) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for r := range m.refs {
		if r != other && r.opts.Selected && !r.sent {
			n++
		}
	}
	return n
}

// Holders counts the other sessions of this process that have the mailbox selected.
func (r *Ref) Holders() int { return r.holders(r) }

// readWrite reports whether a session has the mailbox selected read-write.
func (m *Mailbox) readWrite() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for r := range m.refs {
		if r.opts.Selected && !r.opts.ReadOnly {
			return true
		}
	}
	return false
}

// ReadOnly reports whether the mailbox was opened read-only, or this process could not change it then.
func (r *Ref) ReadOnly() bool { return r.opts.ReadOnly }

// Close ends the use of the mailbox. One that nobody uses any more is kept for a while, without the
// messages that were expunged (Options.KeepMailboxes).
func (r *Ref) Close() {
	m, a := r.Mailbox, r.acct
	m.saveSizes(context.Background())
	if r.opts.Selected {
		m.wasSetAside() // so that the last one who leaves removes it
	}
	r.Told(math.MaxUint64) // waits for no ghost any more
	a.mu.Lock()
	m.mu.Lock()
	delete(m.refs, r)
	last := len(m.refs) == 0
	m.mu.Unlock()
	var dropped []*Mailbox
	if last && a.known[m.id] == m {
		a.kept = append(a.kept, m)
		dropped = a.trim()
	} else if last { // it is gone
		dropped = []*Mailbox{m}
	}
	a.mu.Unlock()
	if r.opts.Selected {
		m.leave(r)
		if m.holders(nil) == 0 { // who else has it may hold disk for long
			unwatch := func() {
				if m.holders(nil) == 0 {
					m.unwatch()
				}
				m.disk.Unlock()
			}
			if m.disk.TryLock() {
				unwatch()
			} else { // a command may be waiting for another program's lock
				go func() {
					m.disk.Lock()
					unwatch()
				}()
			}
		}
	}
	closeAll(dropped)
	if last && m.Deleted() {
		if err := a.sweep(); err != nil {
			a.log().Warn("remove a deleted mailbox", "mailbox", m.Name(), "err", err)
		}
	}
}

// Tried logs that something can't be done with the mailbox, or can be again: once, not each time it is tried.
// That the mailbox is gone is no trouble.
func (m *Mailbox) Tried(what string, err error) {
	var reason string // whichever file it was
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		reason = errno.Error()
	} else if errors.Is(err, ErrLocked) { // whoever held it, and for how long
		reason = ErrLocked.Error()
	} else if err != nil && !errors.Is(err, ErrGone) {
		reason = err.Error()
	}
	m.mu.Lock()
	before := m.trouble[what]
	if reason != before {
		if m.trouble == nil {
			m.trouble = map[string]string{}
		}
		m.trouble[what] = reason
	}
	m.mu.Unlock()
	if reason == before {
		return
	}
	log := m.acct.log().With("mailbox", m.Name())
	switch {
	case reason == "":
		log.Info(what + ": works again")
	case notExist(err), errors.Is(err, ErrLocked): // another program is taking it away, or busy
		log.Warn(what, "err", err)
	default:
		log.Error(what, "err", err)
	}
}

// Told says that the session's client was told of everything up to the snapshot with this number,
// expunges included: ghosts that nobody else waits for are removed.
func (r *Ref) Told(number uint64) {
	if r.told.Swap(number) != number {
		r.reap()
	}
}

// Recent are the messages of the current snapshot that no read-write session was told of. For a
// read-write session they are its own from now on, and nobody else gets them (RFC 3501 2.3.2).
func (r *Ref) Recent() []imap.UID {
	m := r.Mailbox
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.snap.Load()
	m.recent = slices.DeleteFunc(m.recent, func(uid imap.UID) bool { return s.Find(uid) == nil })
	uids := slices.Clone(m.recent)
	if r.opts.Selected && !r.opts.ReadOnly {
		m.recent = nil
	}
	return uids
}

// locked runs f under dovecot-uidlist.lock, after making sure that the directory still stands
// under its name. The caller holds disk.
func (m *Mailbox) locked(ctx context.Context, wait time.Duration, f func() error) error {
	for {
		unlock, err := m.lock(ctx, wait)
		if err != nil {
			return err
		}
		var before *dir // that the lock is in, if control files are elsewhere by now
		err = func() error {
			defer unlock()
			if err := m.stands(); err != nil {
				return err
			}
			var err error
			if before, err = m.otherControl(); err != nil || before != nil {
				return err
			}
			return f()
		}()
		if before == nil {
			return err
		}
		before.close()
	}
}

// lock takes dovecot-uidlist.lock. What is changed under it is in the quota file when it is free again. The caller
// holds disk.
func (m *Mailbox) lock(ctx context.Context, wait time.Duration) (unlock func(), err error) {
	if err := m.findControl(); err != nil {
		return nil, err
	}
	st, err := m.d.stat("")
	if err != nil {
		return nil, err
	}
	observe := func(LockUse) {}
	if o := m.acct.opts.Locks; o != nil {
		observe = o.ObserveLock
	}
	begin := time.Now()
	waits := &lockWaiting{m: m, ctx: ctx}
	l, err := lockDotfile(ctx, m.control, listLock, dotlockOptions{
		guarded: listFile, wait: wait, since: m.disk.behind, waiting: waits.tell, access: st.access(),
	})
	waits.end(err)
	use := LockUse{Waited: time.Since(begin), Err: err}
	if err != nil {
		observe(use)
		return nil, m.missing(err)
	}
	m.disk.behind = time.Time{}
	m.d.tally.begin(m.acct.quota.isThere())
	begin = time.Now()
	return func() {
		if err := l.unlock(); err != nil {
			m.acct.log().Warn("unlock", "mailbox", m.Name(), "err", err)
		}
		use.Held = time.Since(begin)
		observe(use)
		_, rel := m.where()
		m.acct.quota.changed(rel, m.d.tally.end())
	}, nil
}

// stands checks that the directory is still the one under the mailbox's name. One that another
// program has renamed is followed; if it was deleted or made again, the mailbox is gone.
func (m *Mailbox) stands() error {
	if err := m.Err(); err != nil {
		return err
	}
	if m.acct.replaced() {
		reason := goneError("another directory has taken the place of the account")
		m.vanish(reason)
		return reason
	}
	for try, renames := 0, uint64(0); try < 3 || renames != m.acct.renames.Load(); try++ { // a RENAME may come between the looks
		renames = m.acct.renames.Load()
		t, rel := m.where()
		st, err := t.statDir(rel)
		if err == nil && st.id == m.id {
			return nil
		} else if err != nil && !notExist(err) && !errors.Is(err, ErrBadPlace) {
			return err
		}
		if m.wasSetAside() || m.wasMoved() {
			return nil
		}
	}
	return m.vanishOutside()
}

// withoutCur reports whether the directory is that of no mailbox any more, and then the mailbox is gone:
// in the fs layout the directory stays when there are others below.
func (m *Mailbox) withoutCur() bool {
	if _, rel := m.where(); rel == "." {
		return false
	}
	if _, err := m.d.stat("cur"); !notExist(err) {
		return false
	}
	m.vanishOutside()
	return true
}

// wasSetAside reports whether another process deleted the mailbox and keeps it for those who have it
// open.
func (m *Mailbox) wasSetAside() bool {
	if m.Deleted() {
		return false // it was, and isn't there either
	}
	_, aside := asideOf(m.d)
	if aside == "" {
		return false
	}
	if st, err := m.acct.mail.root.stat(aside); err != nil || st.id != m.id {
		return false
	}
	m.mu.Lock()
	m.aside = aside
	m.wake()
	m.mu.Unlock()
	m.acct.forget(m)
	return true
}

// errRenamed is why those are sent away who don't follow.
var errRenamed = errors.New("mailbox has been renamed")

// wasMoved reports whether the directory has another name in this account by now, and takes that.
func (m *Mailbox) wasMoved() bool {
	if m.Deleted() {
		return false
	}
	m.mu.Lock()
	old := m.storage
	m.mu.Unlock()
	now, ok := m.acct.whereIs(m.id, old)
	if !ok {
		return false
	}
	m.acct.mu.Lock()
	defer m.acct.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.storage != old || old == now {
		return true // a RENAME of this process, meanwhile
	}
	ours := m.acct.moving[m.storage] == now
	m.acct.noteMoved(m.storage, now)
	m.storage = now
	m.wake()
	if ours {
		return true // a RENAME of this process that is under way
	}
	for r := range m.refs {
		if !r.opts.Follow {
			r.sendAway(errRenamed)
		}
	}
	return true
}
