package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// A ghost is an expunged message whose file is kept in tmp/ for the sessions of this process that were
// not told. Another process that has the mailbox selected gets a link to the file under its own
// number, and removes that when its sessions were told.
type ghost struct {
	name   string // in the mailbox's directory
	number uint64 // of the first snapshot without the message; 0: it is in the current one
}

const ghostSuffix = ".ghost"

// ghostName is where a process finds what is kept of a message. Every Maildir program ignores it in
// tmp/, and removes it there after 36 hours.
func ghostName(key string, process int64) string {
	return fmt.Sprintf("tmp/%s.%x%s", key, process, ghostSuffix)
}

// Expunge removes messages, but for those that have not (any more) all flags of only. With keep,
// their content stays readable for the sessions that have the mailbox selected, here and in other
// processes, until all of them were told; otherwise it is gone at once.
func (m *Mailbox) Expunge(ctx context.Context, uids []imap.UID, only Flags, keep bool) error {
	if err := m.disk.lock(ctx, lockWait); err != nil {
		return err
	}
	defer m.disk.Unlock()
	if _, err := m.syncLocked(ctx, false); err != nil {
		return err
	}
	var c change
	err := m.each(ctx, uids, func(msg *Message) error {
		if msg.Flags&only != only {
			return nil
		}
		if err := m.unlink(msg, keep); err != nil {
			return err
		}
		c.remove(msg.UID)
		return nil
	})
	if err != nil {
		return m.abandon(ctx, err)
	}
	m.apply(&c)
	_, err = m.syncLocked(ctx, false)
	m.reap()
	return err
}

// unlink removes a message's file. The caller holds the lock.
func (m *Mailbox) unlink(msg *Message, keep bool) error {
	if !keep {
		return m.d.remove(msg.path())
	}
	err := m.haunt(msg, msg.path())
	if cannotLink(err) { // it is kept for the sessions of this process alone
		err = m.d.rename(msg.path(), ghostName(msg.Key(), m.use.id))
		if err == nil {
			m.keep(msg)
		}
		return err
	} else if err != nil {
		return err
	}
	err = m.d.remove(msg.path())
	if err != nil {
		m.exorcise(msg)
		return err
	}
	m.keep(msg)
	return nil
}

// haunt makes the links by which each process that has the mailbox selected keeps a message, before
// its file goes.
func (m *Mailbox) haunt(msg *Message, path string) error {
	for _, process := range m.haunted() {
		err := m.d.linkTo(path, m.d, ghostName(msg.Key(), process))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			m.exorcise(msg)
			return err
		}
	}
	return nil
}

// exorcise takes haunt back.
func (m *Mailbox) exorcise(msg *Message) {
	for _, process := range m.haunted() {
		m.d.remove(ghostName(msg.Key(), process))
	}
}

// haunted are the processes that keep ghosts: this one, and the others that have the mailbox selected.
func (m *Mailbox) haunted() []int64 {
	others, err := m.others()
	if err != nil {
		m.acct.log().Debug("other processes are not known", "mailbox", m.Name(), "err", err)
	}
	return append(others, m.use.id)
}

// keep remembers a ghost; publish finds the first snapshot without the message.
func (m *Mailbox) keep(msg *Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ghosts == nil {
		m.ghosts = map[imap.UID]ghost{}
	}
	m.ghosts[msg.UID] = ghost{name: ghostName(msg.Key(), m.use.id)}
}

// reap removes the ghosts that every session was told of.
func (m *Mailbox) reap() {
	m.mu.Lock()
	told := m.snap.Load().Number
	for r := range m.refs {
		if r.opts.Selected {
			told = min(told, r.told.Load())
		}
	}
	var dead []string
	for uid, g := range m.ghosts {
		if g.number != 0 && g.number <= told {
			dead = append(dead, g.name)
			delete(m.ghosts, uid)
		}
	}
	if len(dead) > 0 && len(m.ghosts) > 0 {
		// A message that came back from another mailbox has the same base name as the one before.
		kept := make(map[string]bool, len(m.ghosts))
		for _, g := range m.ghosts {
			kept[g.name] = true
		}
		dead = slices.DeleteFunc(dead, func(name string) bool { return kept[name] })
	}
	m.mu.Unlock()
	for _, name := range dead {
		if err := m.d.remove(name); err != nil && !notExist(err) {
			m.acct.log().Warn("remove an expunged message", "mailbox", m.Name(), "err", err)
		}
	}
}

// ghostOf finds what is kept of an expunged message.
func (m *Mailbox) ghostOf(uid imap.UID) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g, ok := m.ghosts[uid]
	return g.name, ok
}

// sweepTmp removes from tmp/ the ghosts that were for processes which have gone, and those for this one, in
// which nobody has the mailbox selected (yet, or any more); and what was left there more than 36 hours ago,
// as every reader of a Maildir does. f is the open useLock.
func (m *Mailbox) sweepTmp(f *os.File) {
	t, rel := m.where()
	entries, err := t.readDir(path.Join(rel, "tmp"))
	if err != nil || len(entries) == 0 {
		return // a place that can't be read is complained of elsewhere
	}
	alive, err := lockedBytes(f)
	if err != nil {
		return
	}
	for _, e := range entries {
		name := "tmp/" + e.Name()
		if process, ok := ghostOwner(e.Name()); ok {
			if !slices.Contains(alive, process) {
				m.d.remove(name)
			}
		} else if st, err := m.d.stat(name); err == nil && st.leftBehind() {
			if err := m.d.remove(name); err == nil {
				m.acct.log().Info("removed what was left in tmp", "mailbox", m.Name(), "file", name)
			}
		}
	}
}

// ghostOwner is the process that a file in tmp/ is a ghost for.
func ghostOwner(name string) (process int64, ok bool) {
	name, ok = strings.CutSuffix(name, ghostSuffix)
	if !ok {
		return 0, false
	}
	process, err := strconv.ParseInt(name[strings.LastIndexByte(name, '.')+1:], 16, 64)
	return process, err == nil
}
