package maildir

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

const (
	// asideSuffix marks, in the root's tmp/, a mailbox that was deleted and that sessions still have
	// open. Maildir programs look for files there, and for those only when they are old.
	asideSuffix = ".deleted"
	// asideFile, in such a mailbox, holds its storage name and its place, a line each. It tells other
	// processes that have the mailbox open where it is now, and that it isn't gone for them.
	asideFile = "imapmaildir.deleted"
)

// setAside takes a mailbox's name away and keeps the mailbox for those who have it selected, here
// or in other processes. The last one who leaves removes it; after a crash the next one who opens the
// account does. The caller holds names and disk.
func (a *Account) setAside(ctx context.Context, m *Mailbox, storage string) error {
	rel := a.opts.path(storage)
	aside := "tmp/" + newBase(time.Now()) + asideSuffix
	if err := a.makeAsides(); err != nil {
		return err
	}
	err := m.locked(ctx, lockWait, func() error {
		err := writeAsideFile(m.d, storage, aside)
		if err == nil {
			err = a.rename(rel, aside)
		}
		if err != nil {
			m.d.remove(asideFile)
			return err
		}
		a.setControlAside(storage, aside)
		m.mu.Lock()
		m.aside = aside
		m.wake() // for who watches directories by their path
		m.mu.Unlock()
		return nil
	})
	if err != nil {
		return err
	}
	a.forget(m)
	if err := a.mail.root.fsync("tmp"); err != nil {
		return err
	}
	return a.mail.root.fsync(path.Dir(rel))
}

// makeAsides makes the place where deleted mailboxes are: INBOX may not have been opened yet.
func (a *Account) makeAsides() error {
	acc, err := a.mail.access()
	if err != nil {
		return err
	}
	if a.inbox == a.mail {
		return a.mail.makeParts(a.mail.root, ".", acc)
	}
	if err := a.mail.root.mkdir("tmp", acc); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return a.mail.root.fsync("")
}

// moveAside takes a mailbox away to be removed. It is one rename, so that the mailbox is there or gone
// and never half of it; but in the fs layout a mailbox that has others below it keeps its directory.
// There, what goes on if this process ends in the middle is said by asideFile. The caller holds the
// mailbox's lock.
func (a *Account) moveAside(d *dir, storage, aside string) error {
	rel := a.opts.path(storage)
	below, err := a.hasBelow(rel)
	if err != nil {
		return err
	}
	if !below {
		return a.rename(rel, aside)
	}
	st, err := d.stat("")
	if err != nil {
		return err
	}
	if err := a.mail.root.mkdir(aside, st.access()); err != nil {
		return err
	}
	to, err := a.mail.openDir(aside)
	if err != nil {
		return err
	}
	defer to.close()
	inUse, err := openUseLock(to) // until all is there, nobody sweeps
	if err != nil {
		return err
	}
	defer inUse.Close()
	if err := lockByte(inUse, newUseID()); err != nil {
		return err
	}
	err = writeAsideFile(to, storage, aside)
	if err == nil {
		err = a.moveParts(d, to, rel)
	}
	if err != nil {
		if _, serr := to.stat("cur"); notExist(serr) {
			a.mail.removeAll(aside)
		}
		return err
	}
	a.quota.moved(rel, aside)
	return nil
}

// moveParts moves what makes a directory a mailbox: cur first, since without it what is left is none;
// useLock last, since it tells that the new place is in use. If that goes wrong, all is moved back, cur
// last: where it stays, the next sweep goes on.
func (a *Account) moveParts(from, to *dir, rel string) error {
	entries, err := a.mail.readDir(rel)
	if err != nil {
		return err
	}
	names := []string{"cur"}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "cur" || name == useLock || name == listLock:
		case name == asideFile: // of an earlier try
			if err := from.remove(name); err != nil {
				return err
			}
		case !e.IsDir() || isMaildirPart(name):
			names = append(names, name)
		}
	}
	names = append(names, useLock)
	for i, name := range names {
		if err := from.renameTo(name, to, name); err != nil && !notExist(err) {
			for _, name := range slices.Backward(names[:i]) {
				if err := to.renameTo(name, from, name); err != nil && !notExist(err) {
					break
				}
			}
			return err
		}
	}
	return nil
}

func writeAsideFile(d *dir, storage, aside string) error {
	st, err := d.stat("")
	if err != nil {
		return err
	}
	return d.writeFile(asideFile, asideFile+".tmp", []byte(storage+"\n"+aside+"\n"), st.access())
}

// asideOf reads where a mailbox was set aside, "" if it was not, and the storage name it had.
func asideOf(d *dir) (storage, aside string) {
	f, err := d.open(asideFile)
	if err != nil {
		return "", ""
	}
	defer f.Close()
	b := make([]byte, 2048)
	n, _ := f.Read(b)
	lines := strings.Split(string(b[:n]), "\n")
	if len(lines) != 3 || !isAside(lines[1]) {
		return "", ""
	}
	return lines[0], lines[1]
}

// isAside reports whether a path may be that of a mailbox that was set aside.
func isAside(p string) bool {
	dir, name := path.Split(p)
	return dir == "tmp/" && strings.HasSuffix(name, asideSuffix) && listedName(name)
}

// eachAside calls f for each mailbox that is set aside.
func (a *Account) eachAside(f func(aside string, d *dir)) error {
	entries, err := a.mail.readDir("tmp")
	if notExist(err) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		if aside := "tmp/" + e.Name(); e.IsDir() && isAside(aside) {
			if d, err := a.mail.openDir(aside); err == nil {
				f(aside, d)
				d.close()
			}
		}
	}
	return nil
}

// sweep removes the mailboxes that are set aside and that nobody has open any more.
func (a *Account) sweep() error {
	err := a.eachAside(func(aside string, d *dir) {
		if used, err := usedElsewhere(d); used || err != nil {
			return
		}
		err := a.finishMove(d)
		if err == nil {
			err = a.removeAside(aside)
		}
		if err != nil {
			a.log().Warn("remove a deleted mailbox", "path", aside, "err", err)
		}
	})
	return errors.Join(err, a.sweepControl())
}

// finishMove takes away what moveAside left of a mailbox when its process ended: what is beside the
// directories of others, where cur is away already.
func (a *Account) finishMove(to *dir) error {
	storage, _ := asideOf(to)
	if _, err := to.stat("cur"); storage == "" || err != nil || a.opts.Layout != LayoutFS {
		return nil
	}
	rel := a.opts.path(storage)
	from, err := a.mail.openDir(rel)
	if notExist(err) {
		return nil // it was moved as a whole
	} else if err != nil {
		return err
	}
	defer from.close()
	if _, err := from.stat("cur"); !notExist(err) {
		return err // another mailbox has the name by now
	}
	return a.moveParts(from, to, rel)
}

// free returns ErrNameInUse if a name belongs to a deleted mailbox that somebody still has open: it
// is not given to another one before (draft 3.2). It returns ErrMailboxExists if another program has spelled
// the name in its own way: of two mailboxes of one name clients would only find one. It returns a *NameError if something
// else than mailboxes has its place there.
func (a *Account) free(storage string) error {
	name, _ := a.opts.mailboxName(storage)
	if a.isOwn(a.opts.path(storage)) {
		return &NameError{Name: name, Reason: "is the server's own"}
	}
	if _, taken, err := a.spelledOtherwise(name); err != nil {
		return err
	} else if taken {
		return ErrMailboxExists
	}
	inUse := false
	err := a.eachAside(func(_ string, d *dir) {
		if name, _ := asideOf(d); name == storage {
			used, err := usedElsewhere(d)
			inUse = inUse || used || err != nil
		}
	})
	if err == nil && inUse {
		err = ErrNameInUse
	}
	return err
}

// errINBOX is why INBOX stays.
var errINBOX = &NameError{Name: "INBOX", Reason: "cannot be deleted"}

// Delete deletes a mailbox with its mail; mailboxes below it stay. Of one that is a symlink, only
// that goes. With keep, those who have it
// selected, here or in other processes, go on with it; nobody else finds it, and nobody gets its name
// before the last of them has left (draft 3.2). Otherwise whoever has it open finds it gone. In
// LayoutFS a mailbox that has others below it can't be kept.
func (a *Account) Delete(ctx context.Context, name string, keep bool) error {
	a.names.Lock()
	defer a.names.Unlock()
	storage, err := a.storageOf(name)
	if err != nil {
		return err
	}
	if storage == "INBOX" {
		return errINBOX
	}
	r, err := a.Mailbox(name, RefOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	deleted := goneError("Mailbox " + name + " has been deleted")
	if removed, err := a.mail.removeLink(a.opts.path(storage)); err != nil {
		return err
	} else if removed {
		r.vanish(deleted) // for those who have it open by its other name, too
		return nil
	}
	if err := r.disk.lock(ctx, lockWait); err != nil {
		return err
	}
	defer r.disk.Unlock()
	if keep {
		used, err := r.InUse()
		if err != nil {
			return err
		}
		below, err := a.hasBelow(a.opts.path(storage))
		if err != nil {
			return err
		}
		if used && !below {
			return a.setAside(ctx, r.Mailbox, storage)
		}
	}
	aside := "tmp/" + newBase(time.Now()) + asideSuffix
	if err := a.makeAsides(); err != nil {
		return err
	}
	err = r.locked(ctx, lockWait, func() error {
		err := a.moveAside(r.d, storage, aside)
		if err == nil {
			a.setControlAside(storage, aside)
		}
		return err
	})
	if err != nil {
		return err
	}
	r.vanish(deleted)
	// First of all it is gone for good: what came back after the power went would lack a part of its mail.
	if err := a.mail.fsync(path.Dir(a.opts.path(storage))); err != nil {
		return err
	}
	return a.removeAside(aside)
}

// hasBelow reports whether a mailbox's directory holds other mailboxes.
func (a *Account) hasBelow(rel string) (bool, error) {
	if a.opts.Layout != LayoutFS {
		return false, nil
	}
	entries, err := a.mail.readDir(rel)
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.IsDir() && !isMaildirPart(e.Name()) }), err
}
