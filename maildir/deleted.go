package maildir

import (
	"context"
	"io/fs"
	"path"
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
	mode, err := a.rootMode()
	if err != nil {
		return err
	}
	if err := a.makeParts(a.root, ".", mode); err != nil { // INBOX may not have been opened yet
		return err
	}
	err = m.locked(ctx, lockWait, func() error {
		err := m.replaceFile(asideFile, asideFile+".tmp", []byte(storage+"\n"+aside+"\n"))
		if err != nil {
			return err
		}
		if err := a.rename(rel, aside); err != nil {
			m.d.remove(asideFile)
			return err
		}
		m.mu.Lock()
		m.aside = aside
		m.mu.Unlock()
		return nil
	})
	if err != nil {
		return err
	}
	a.forget(m)
	if err := a.root.fsync("tmp"); err != nil {
		return err
	}
	return a.root.fsync(path.Dir(rel))
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
	entries, err := fs.ReadDir(a.fsys.FS(), "tmp")
	if notExist(err) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		if aside := "tmp/" + e.Name(); e.IsDir() && isAside(aside) {
			if d, err := openDir(a.fsys, aside); err == nil {
				f(aside, d)
				d.close()
			}
		}
	}
	return nil
}

// sweep removes the mailboxes that are set aside and that nobody has open any more.
func (a *Account) sweep() error {
	return a.eachAside(func(aside string, d *dir) {
		if used, err := usedElsewhere(d); used || err != nil {
			return
		}
		if err := a.fsys.RemoveAll(aside); err != nil {
			a.log().Warn("remove a deleted mailbox", "path", aside, "err", err)
		}
	})
}

// free returns ErrNameInUse if a name belongs to a deleted mailbox that somebody still has open: it
// is not given to another one before (draft 3.2).
func (a *Account) free(storage string) error {
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
