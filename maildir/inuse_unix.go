//go:build unix

package maildir

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// useLock is the file that says which processes have a mailbox selected: each holds a shared flock
// on it. The kernel takes it away when a process dies. Servers of other kinds don't know it.
const useLock = "imapmaildir.inuse"

// A use is this process's part in a mailbox's useLock.
type use struct {
	mu    sync.Mutex // guards what follows; held during I/O, never while waiting for somebody else
	f     *os.File   // nil: not selected here
	users int        // refs that have the mailbox selected
}

// enter counts a session that selects the mailbox. Where no lock file can be made, other processes
// are not told.
func (m *Mailbox) enter() {
	m.use.mu.Lock()
	defer m.use.mu.Unlock()
	m.use.users++
	if m.use.f != nil {
		return
	}
	f, err := openUseLock(m.d)
	if err == nil {
		if err = flock(f, unix.LOCK_SH); err != nil {
			f.Close()
		}
	}
	if err != nil {
		m.acct.log().Debug("other processes are not told that a mailbox is in use", "mailbox", m.Name(), "err", err)
		return
	}
	m.use.f = f
}

// leave is the opposite of enter. The last one tells other processes.
func (m *Mailbox) leave() {
	m.use.mu.Lock()
	defer m.use.mu.Unlock()
	m.use.users--
	if m.use.users == 0 && m.use.f != nil {
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
	m := r.Mailbox
	m.use.mu.Lock()
	defer m.use.mu.Unlock()
	if m.use.f == nil {
		return usedElsewhere(m.d)
	}
	// A shared lock becomes an exclusive one if nobody else has one. In between it is lost, so it is
	// taken again whatever came out.
	err := flock(m.use.f, unix.LOCK_EX|unix.LOCK_NB)
	if back := flock(m.use.f, unix.LOCK_SH); back != nil {
		return true, back
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// usedElsewhere reports whether any process has the mailbox in a directory selected.
func usedElsewhere(d *dir) (bool, error) {
	f, err := d.open(useLock)
	if notExist(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	defer f.Close()
	err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
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
	// Not create: another process may be as fast, and then it is that one's file.
	return d.openat(useLock, unix.O_RDONLY|unix.O_CREAT, filePerm(st.mode))
}

func flock(f *os.File, how int) error {
	return retry(func() error { return unix.Flock(int(f.Fd()), how) })
}
