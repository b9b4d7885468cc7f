package maildir

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// rename gives a mailbox's directory another path. Nothing may be there, and no symlink on the way leads out.
func (a *Account) rename(from, to string) error {
	for _, t := range []*tree{a.inbox, a.control} {
		if rel, ok := a.mail.holds(t); ok && strings.HasPrefix(rel, from+"/") { // and would go with it
			return &NameError{Name: from, Reason: "is of a directory that has INBOX or control files in it"}
		}
	}
	err := a.mail.rename(from, to)
	if err == nil {
		a.quota.moved(from, to)
	}
	return err
}

// Rename renames a mailbox and those below it; sessions that have them open go on. Subscriptions
// follow. INBOX stays, and its mail moves to the new mailbox (RFC 9051 section 6.3.6).
func (a *Account) Rename(ctx context.Context, from, to string) error {
	if strings.EqualFold(from, "INBOX") {
		return a.renameINBOX(ctx, to)
	}
	a.names.Lock()
	defer a.names.Unlock()
	fromStorage, err := a.storageOf(from)
	if err == ErrNoMailbox {
		fromStorage, err = a.opts.storageName(from) // a name above others has no directory
	}
	if err != nil {
		return err
	}
	toStorage, err := a.opts.storageName(to)
	if err != nil {
		return err
	}
	if toStorage == "INBOX" {
		return ErrMailboxExists
	}
	sep := a.opts.storageSeparator()
	if strings.HasPrefix(toStorage, fromStorage+sep) {
		return &NameError{Name: to, Reason: "is below the mailbox that is renamed"}
	}
	storages, err := a.storages()
	if err != nil {
		return err
	}
	moves := map[string]string{} // storage names
	for s := range storages {
		if s == fromStorage || strings.HasPrefix(s, fromStorage+sep) {
			moves[s] = toStorage + s[len(fromStorage):]
		}
	}
	if len(moves) == 0 {
		return ErrNoMailbox
	}
	for _, s := range moves {
		if _, err := a.mail.stat(a.opts.path(s)); err == nil {
			return ErrMailboxExists
		} else if errors.Is(err, ErrBadPlace) {
			return err
		}
		if err := a.free(s); err != nil {
			return err
		}
	}
	if err := a.renameAll(ctx, fromStorage, toStorage, moves); err != nil {
		return err
	}
	return a.updateSubscriptions(ctx, func(s *subscriptions) {
		for old, now := range moves {
			if s.has(old) {
				s.remove(old)
				s.add(now)
			}
		}
	})
}

// renameAll gives mailboxes other names, under their locks: all or none. moves are the storage names of from and of those
// below it. The caller holds names.
func (a *Account) renameAll(ctx context.Context, from, to string, moves map[string]string) error {
	unlock, err := a.lockAll(ctx, slices.Collect(maps.Keys(moves)))
	if err != nil {
		return err
	}
	defer unlock()
	a.setMoving(moves)
	defer a.setMoving(nil)
	if a.opts.Layout == LayoutFS {
		acc, err := a.accessOf(to)
		if err != nil {
			return err
		}
		if err := a.mail.makeParents(a.opts.path(to), acc); err != nil {
			return err
		}
		if err := a.rename(a.opts.path(from), a.opts.path(to)); err != nil {
			return err
		}
		a.moveControl(from, to)
	}
	done := slices.Sorted(maps.Keys(moves))
	for i, old := range done {
		if err := a.move(old, moves[old]); err != nil {
			for _, old := range done[:i] {
				a.move(moves[old], old) // as far as that goes; the error that counts is the first one
			}
			return err
		}
	}
	a.mu.Lock()
	a.noteMoved(from, to) // also where it is only above others
	a.mu.Unlock()
	return a.mail.fsyncAbove(a.opts.path(to), a.opts.path(from))
}

// lockAll takes dovecot-uidlist.lock in mailboxes that are to get other names. Programs that find a mailbox by its path, as
// Dovecot does, would go on elsewhere in the middle of a change, and could not release their lock. None is held while another
// one is waited for: that may take long.
func (a *Account) lockAll(ctx context.Context, storages []string) (unlock func(), err error) {
	dirs, err := a.openLists(storages)
	closeDirs := func() {
		for _, d := range dirs {
			d.close()
		}
	}
	if err != nil {
		closeDirs()
		return nil, err
	}
	for until := time.Now().Add(lockWait); ; {
		held, err := lockEach(ctx, dirs, time.Until(until))
		release := func() {
			for _, l := range held {
				if err := l.unlock(); err != nil {
					a.log().Warn("unlock", "root", a.Root(), "err", err)
				}
			}
		}
		if err == nil {
			return func() { release(); closeDirs() }, nil
		}
		release()
		busy := slices.IndexFunc(dirs, func(d *dir) bool {
			le, ok := errors.AsType[*LockError](err)
			return ok && le.Path == d.path(listLock)
		})
		if busy <= 0 || time.Now().After(until) {
			closeDirs()
			return nil, err
		}
		dirs[0], dirs[busy] = dirs[busy], dirs[0]
	}
}

// openLists opens the directories that the lists of mailboxes are in, each once: a symlink may lead to one that is among
// them. The caller closes them, also after an error.
func (a *Account) openLists(storages []string) (dirs []*dir, err error) {
	seen := map[fileID]bool{}
	for _, s := range storages {
		d, err := a.openList(s)
		if err != nil {
			return dirs, err
		}
		st, err := d.stat("")
		if err == nil && !seen[st.id] {
			seen[st.id] = true
			dirs = append(dirs, d)
			continue
		}
		d.close()
		if err != nil {
			return dirs, err
		}
	}
	return dirs, nil
}

// lockEach locks the lists in directories. It waits for the first one, and hardly for the others. It returns those that it
// has, also after an error.
func lockEach(ctx context.Context, dirs []*dir, wait time.Duration) (held []*dotlock, err error) {
	for _, d := range dirs {
		st, err := d.stat("")
		if err != nil {
			return held, err
		}
		l, err := lockDotfile(ctx, d, listLock, dotlockOptions{
			guarded: listFile, wait: wait, access: st.access(), waiting: tellLong(ctx),
		})
		if errors.Is(err, fs.ErrPermission) {
			continue // nobody changes it
		} else if err != nil {
			return held, err
		}
		held = append(held, l)
		wait = shortWait
	}
	return held, nil
}

// setMoving notes which names a RENAME changes, so that who looks meanwhile doesn't take it for another
// program's.
func (a *Account) setMoving(moves map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.moving = moves
	a.renames.Add(1)
}

// move renames one directory, and tells who has it open its new name.
func (a *Account) move(old, now string) error {
	rel := a.opts.path(now)
	if a.opts.Layout == LayoutMaildirpp {
		if err := a.rename(a.opts.path(old), rel); err != nil {
			return err
		}
		a.moveControl(old, now)
	}
	st, err := a.mail.statDir(rel)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.noteMoved(old, now)
	if m := a.known[st.id]; m != nil {
		m.mu.Lock()
		m.storage = now
		m.wake() // for who watches directories by their path
		m.mu.Unlock()
	}
	return nil
}

// noteMoved remembers where a mailbox went from a name. The caller holds mu.
func (a *Account) noteMoved(old, now string) {
	for k, v := range a.moved {
		if v == old {
			a.moved[k] = now
		}
	}
	a.moved[old] = now
	delete(a.moved, now)
}

// NewName tells what the mailbox is called now that once had a name, as far as this process knows,
// to answer who asks for the old one (draft 3.4).
func (a *Account) NewName(old string) (now string, ok bool) {
	storage, err := a.opts.storageName(old)
	if err != nil {
		return "", false
	}
	a.mu.Lock()
	storage, ok = a.moved[storage]
	a.mu.Unlock()
	if ok {
		now, _ = a.opts.mailboxName(storage)
		t, rel := a.at(storage)
		_, err = t.root.stat(rel)
	}
	return now, ok && err == nil
}

// whereIs finds the directory of a mailbox that has left its name. Where that has several, by symlinks, it is
// the one that a RENAME gives it now, if it does.
func (a *Account) whereIs(id fileID, old string) (storage string, ok bool) {
	a.mu.Lock()
	renamed, ok := a.moving[old]
	a.mu.Unlock()
	if ok {
		if st, err := a.mail.statDir(a.opts.path(renamed)); err == nil && st.id == id {
			return renamed, true
		}
	}
	storages, err := a.storages()
	if err != nil {
		return "", false
	}
	for storage := range storages {
		t, rel := a.at(storage)
		if st, err := t.root.stat(rel); err == nil && st.id == id {
			return storage, true
		}
	}
	return "", false
}

func (a *Account) renameINBOX(ctx context.Context, to string) error {
	if err := a.Create(ctx, to, nil); err != nil {
		return err
	}
	inbox, err := a.Mailbox("INBOX", RefOptions{})
	if err != nil {
		return err
	}
	defer inbox.Close()
	dest, err := a.Mailbox(to, RefOptions{})
	if err != nil {
		return err
	}
	defer dest.Close()
	s, err := inbox.Sync(ctx)
	if err != nil {
		return err
	}
	used, uerr := inbox.InUse()
	_, err = inbox.MoveTo(ctx, dest.Mailbox, s, s.Messages, used || uerr != nil)
	return err
}
