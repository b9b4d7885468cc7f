package maildir

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
)

// useLock is the file that says which processes have a mailbox selected: each holds a lock on one byte
// of it, whose place is the process's number (use.id). The kernel takes the lock away when the
// process ends, however that happens. Servers of other kinds don't know it.
const useLock = "imapmaildir.inuse"

// A use is this process's part in a mailbox's useLock.
type use struct {
	id int64 // immutable; by which other processes know the holders in this one

	mu    sync.Mutex // guards what follows; held during I/O, never while waiting for somebody else
	f     *os.File   // nil: not selected here
	users int        // refs that have the mailbox selected
}

func newUseID() int64 { return rand.Int64N(1 << 62) }

// enter counts a session that selects the mailbox. Where no lock file can be made, other processes
// are not told.
func (m *Mailbox) enter(r *Ref) {
	m.use.mu.Lock()
	defer m.use.mu.Unlock()
	if r.left {
		return // sent away already
	}
	r.entered = true
	m.use.users++
	if m.use.f != nil {
		return
	}
	f, err := openUseLock(m.d)
	if err == nil {
		if err = lockByte(f, m.use.id); err != nil {
			f.Close()
		}
	}
	if err != nil {
		m.acct.log().Debug("other processes are not told that a mailbox is in use", "mailbox", m.Name(), "err", err)
		return
	}
	m.use.f = f
	m.sweepTmp(f)
}

// leave is the opposite of enter, and may be called twice. The last one tells other processes, and takes
// along what they kept for sessions here that left without having looked again.
func (m *Mailbox) leave(r *Ref) {
	m.use.mu.Lock()
	defer m.use.mu.Unlock()
	r.left = true
	if !r.entered {
		return
	}
	r.entered = false
	m.use.users--
	if m.use.users == 0 && m.use.f != nil {
		m.sweepTmp(m.use.f)
		m.use.f.Close()
		m.use.f = nil
	}
}

// InUse reports whether another session, of this process or of another one with this package, has
// the mailbox selected.
func (r *Ref) InUse() (bool, error) {
	if r.Holders() > 0 {
		return true, nil
	}
	others, err := r.others()
	return len(others) > 0, err
}

// others are the numbers of the other processes that have the mailbox selected.
func (m *Mailbox) others() ([]int64, error) {
	m.use.mu.Lock()
	defer m.use.mu.Unlock()
	if m.use.f == nil {
		return users(m.d)
	}
	return lockedBytes(m.use.f)
}

// users are the numbers of all processes that have the mailbox in a directory selected.
func users(d *dir) ([]int64, error) {
	f, err := d.open(useLock)
	if notExist(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	return lockedBytes(f)
}

func usedElsewhere(d *dir) (bool, error) {
	all, err := users(d)
	return len(all) > 0, err
}

func openUseLock(d *dir) (*os.File, error) {
	f, err := d.open(useLock)
	if !notExist(err) {
		return f, err
	}
	st, err := d.stat("")
	if err != nil {
		return nil, err
	}
	made, err := d.create(useLock, st.access())
	if err == nil {
		made.Close() // it was open for writing, and would keep the disk from becoming read-only
	} else if !errors.Is(err, fs.ErrExist) { // another process may have been faster
		return nil, err
	}
	return d.open(useLock)
}
