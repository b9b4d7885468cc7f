package maildir

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
)

// Control files are dovecot-uidlist, dovecot-keywords and their locks of a mailbox, subscriptions and
// dovecot-uidvalidity of the account. Mostly they are with the mail; with Options.Control they are in a tree of
// their own, in which each mailbox has a directory of its name, INBOX too (Dovecot's CONTROL=).
//
// That directory is found by the mailbox's name: it comes along when the mailbox is renamed, and it goes
// with it.

// apart reports whether control files have a tree of their own.
func (a *Account) apart() bool { return a.control != a.mail }

// controlPath is a mailbox's control directory, in a tree of its own.
func (o *Options) controlPath(storage string) string {
	if storage == "INBOX" && o.Layout == LayoutMaildirpp {
		return ".INBOX"
	} else if storage == "INBOX" {
		return "INBOX"
	}
	return o.path(storage)
}

// openControl opens a mailbox's control directory, and makes it where it is missing.
func (a *Account) openControl(storage string) (*dir, error) {
	rel := a.opts.controlPath(storage)
	d, err := a.control.openDir(rel)
	if !notExist(err) {
		return d, err
	}
	t, at := a.at(storage)
	st, err := t.statDir(at)
	if err != nil {
		return nil, err
	}
	if err := a.control.makeDir(rel, st.access()); err != nil {
		return nil, err
	}
	if err := a.control.fsyncAbove(rel); err != nil {
		return nil, err
	}
	return a.control.openDir(rel)
}

// statList looks at a mailbox's dovecot-uidlist.
func (a *Account) statList(storage string) (fileStat, error) {
	t, rel := a.at(storage)
	if a.apart() {
		t, rel = a.control, a.opts.controlPath(storage)
	}
	return t.stat(path.Join(rel, listFile))
}

// openList opens the directory that a mailbox's dovecot-uidlist and its lock are in.
func (a *Account) openList(storage string) (*dir, error) {
	if a.apart() {
		return a.openControl(storage)
	}
	t, rel := a.at(storage)
	return t.openDir(rel)
}

// findControl takes the control directory that is there under the mailbox's name by now. The caller holds disk.
func (m *Mailbox) findControl() error {
	before, err := m.otherControl()
	if before != nil {
		before.close()
	}
	return err
}

// otherControl is findControl for who holds the lock. Where it is another directory than before, that one is returned, for the
// caller to close. Where another program has moved the mailbox and not that, it is moved, too.
func (m *Mailbox) otherControl() (before *dir, err error) {
	a := m.acct
	if !a.apart() {
		return nil, nil
	}
	m.mu.Lock()
	rel, aside := a.opts.controlPath(m.storage), m.aside
	m.mu.Unlock()
	if aside != "" {
		return nil, nil // it was taken away with the mailbox, and only who has it still uses it
	}
	known, err := m.control.stat("")
	if err != nil {
		return nil, err
	}
	st, err := a.control.statDir(rel)
	if notExist(err) {
		if old, oerr := a.control.statDir(m.controlAt); oerr == nil && old.id == known.id {
			if err = a.bringControl(m.controlAt, rel); notExist(err) {
				return nil, nil // Dovecot was faster
			}
			st = old
		} else if known.nlink > 0 {
			return nil, nil // on its way: Dovecot moves it after the mailbox
		}
	}
	if err != nil && !notExist(err) {
		return nil, err
	}
	if rel != m.controlAt {
		m.unwatch()
		m.controlAt = rel
	}
	if err == nil && st.id == known.id {
		return nil, nil
	}
	m.mu.Lock()
	storage := m.storage
	m.mu.Unlock()
	d, err := a.openControl(storage)
	if err != nil {
		return nil, err
	}
	m.unwatch()
	before, m.control = m.control, d
	m.list, m.keys = listState{}, fileStat{}
	return before, nil
}

// bringControl moves a control directory after its mailbox. What is there already stays.
func (a *Account) bringControl(from, to string) error {
	acc, err := a.mail.access()
	if err == nil {
		err = a.control.makeParents(to, acc)
	}
	if err == nil {
		err = a.control.rename(from, to)
	}
	if err == nil {
		err = a.control.fsyncAbove(to, from)
	}
	return err
}

// dropControl removes control files that a deleted mailbox of that name left behind; those of the mailboxes
// below it stay.
func (a *Account) dropControl(storage string) error {
	if !a.apart() {
		return nil
	}
	rel := a.opts.controlPath(storage)
	entries, err := a.control.readDir(rel)
	if notExist(err) {
		return nil
	}
	for _, e := range entries {
		if err == nil && !e.IsDir() && e.Name() != listLock { // that may be held
			err = a.control.removeAll(path.Join(rel, e.Name()))
		}
	}
	return err
}

// moveControl renames the control directory of a mailbox that was renamed, in the fs layout with those below.
// Where that can't be done the mailbox is renamed all the same, and gets new UIDs.
func (a *Account) moveControl(old, now string) {
	if !a.apart() {
		return
	}
	from, to := a.opts.controlPath(old), a.opts.controlPath(now)
	if _, err := a.control.stat(from); notExist(err) {
		return
	}
	err := a.bringControl(from, to)
	if errors.Is(err, fs.ErrExist) { // what is there is of a mailbox that is gone
		if err = a.control.removeAll(to); err == nil {
			err = a.bringControl(from, to)
		}
	}
	if err != nil && !notExist(err) { // or else a session was faster
		a.log().Error("rename control directory", "from", from, "to", to, "err", err)
	}
}

// controlAside is where the control directory of a mailbox is that was set aside.
func controlAside(aside string) string { return "imapmaildir." + path.Base(aside) }

// setControlAside takes away the control directory of a mailbox that was set aside. In the fs layout it keeps
// those of the mailboxes below. What can't be taken away is dropped by the next CREATE.
func (a *Account) setControlAside(storage, aside string) {
	if !a.apart() {
		return
	}
	rel := a.opts.controlPath(storage)
	entries, err := a.control.readDir(rel)
	if notExist(err) {
		return
	}
	if err == nil && slices.ContainsFunc(entries, fs.DirEntry.IsDir) {
		err = a.dropControl(storage)
	} else if err == nil {
		err = a.control.rename(rel, controlAside(aside))
	}
	if err != nil {
		a.log().Warn("remove control directory", "path", rel, "err", err)
	}
}

// removeAside removes a mailbox that was set aside.
func (a *Account) removeAside(aside string) error {
	err := a.mail.removeAll(aside)
	for range 10 { // who had just opened it may be making what is missing in it
		if !errors.Is(err, syscall.ENOTEMPTY) {
			break
		}
		err = a.mail.removeAll(aside)
	}
	if err != nil || !a.apart() {
		return err
	}
	return a.control.removeAll(controlAside(aside))
}

// sweepControl removes the control directories of mailboxes that are not there any more, as a crash
// leaves them.
func (a *Account) sweepControl() error {
	if !a.apart() {
		return nil
	}
	entries, err := a.control.readDir(".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), "imapmaildir.")
		if aside := "tmp/" + name; ok && e.IsDir() && isAside(aside) {
			if _, err := a.mail.root.stat(aside); notExist(err) {
				if err := a.control.removeAll(e.Name()); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
