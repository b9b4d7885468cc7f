package maildir

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sys/unix"
)

// Copied tells which message became which.
type Copied struct {
	UIDValidity  uint32 // of the destination
	Source, Dest []imap.UID
}

// CopyTo copies messages to a mailbox of the same account, itself included. A copy is a hard link
// to the same file where that can be, and keeps flags, keywords and internal date. It is all or
// nothing: if one of the messages is gone, ErrExpunged is returned and none is copied.
func (m *Mailbox) CopyTo(ctx context.Context, dest *Mailbox, msgs []*Message) (Copied, error) {
	c, err := m.copyTo(ctx, dest, msgs)
	if err == ErrExpunged { // or a file has another name by now, since another program changed flags
		serr := m.disk.lock(ctx, lockWait)
		if serr == nil {
			_, serr = m.syncLocked(ctx, true)
			m.disk.Unlock()
		}
		if serr == nil {
			return m.copyTo(ctx, dest, msgs)
		}
	}
	return c, err
}

func (m *Mailbox) copyTo(ctx context.Context, dest *Mailbox, msgs []*Message) (Copied, error) {
	flags := m.Snapshot()
	m.measure(ctx, msgs)
	staged, err := m.stage(ctx, dest, msgs)
	defer dest.unstage(staged)
	if err != nil {
		return Copied{}, err
	}
	if slices.Contains(staged, "") {
		return Copied{}, ErrExpunged
	}
	if err := dest.disk.lock(ctx, lockWait); err != nil {
		return Copied{}, err
	}
	defer dest.disk.Unlock()
	todo, err := dest.placements(ctx, flags, msgs)
	if err != nil {
		return Copied{}, err
	}
	for i := range todo {
		todo[i].put = func(to string) error {
			err := dest.d.renameFresh(staged[i], dest.d, to)
			if err == nil {
				staged[i] = ""
			}
			return err
		}
	}
	uids, err := dest.place(ctx, dest.hold(ctx), true, todo)
	if err != nil {
		return Copied{}, err
	}
	return copied(dest, msgs, uids), nil
}

// measure finds out which sizes in the names of messages are right, to be taken along. Dovecot believes a wrong one,
// and ends the connection at FETCH (docs/coexistence.md).
func (m *Mailbox) measure(ctx context.Context, msgs []*Message) {
	for _, msg := range msgs {
		if stored, virtual := sizesOf(msg.Key()); stored >= 0 && virtual >= 0 {
			m.Size(ctx, msg) // one that is gone is found out later
		}
	}
}

// copied pairs messages with the UIDs they got. Those that were gone got none.
func copied(dest *Mailbox, msgs []*Message, uids []imap.UID) Copied {
	c := Copied{UIDValidity: dest.Snapshot().UIDValidity}
	for i, uid := range uids {
		if uid != 0 {
			c.Source = append(c.Source, msgs[i].UID)
			c.Dest = append(c.Dest, uid)
		}
	}
	return c
}

// placements names messages of another mailbox for this one: with its letters for their keywords, under
// new base names. The one that a message has may have been another message's here: this one's, before
// it went away and came back. s is the snapshot that the messages' flags are from. The caller holds disk.
func (m *Mailbox) placements(ctx context.Context, s *Snapshot, msgs []*Message) ([]placement, error) {
	if _, err := m.syncLocked(ctx, false); err != nil {
		return nil, err
	}
	letters := map[Flags]Flags{}
	todo := make([]placement, len(msgs))
	for i, msg := range msgs {
		f, ok := letters[msg.Flags]
		if !ok {
			var err error
			if f, err = m.keywordLetters(ctx, s.IMAPFlags(msg.Flags)); err != nil {
				return nil, err
			}
			letters[msg.Flags] = f
		}
		todo[i] = placement{flags: f, base: newBase(time.Now())}
		if stored, virtual := sizesOf(msg.Key()); stored >= 0 && virtual >= 0 && msg.size.Load() == virtual+1 {
			todo[i].base = withSizes(todo[i].base, stored, virtual)
		}
	}
	return todo, nil
}

// stage brings the files of messages into dest's tmp/, before any lock is taken: as hard links, or as
// copies where links can't be or others may use dest. It returns their names there, "" for a message that is gone. The caller
// lets unstage remove what is not used, also after an error.
func (m *Mailbox) stage(ctx context.Context, dest *Mailbox, msgs []*Message) (names []string, err error) {
	link, err := m.sameAccess(dest)
	if err != nil {
		return nil, err
	}
	for _, msg := range msgs {
		name := "tmp/" + newBase(time.Now())
		err := m.stageAs(ctx, dest, msg, name, link)
		if err == ErrExpunged {
			name = ""
		} else if err != nil {
			return names, err
		}
		names = append(names, name)
	}
	return names, nil
}

// sameAccess reports whether a file of the mailbox has the mode and group that dest's have. Otherwise who uses
// dest could not read a file that is linked or moved there, or somebody else could.
func (m *Mailbox) sameAccess(dest *Mailbox) (bool, error) {
	here, err := m.d.stat("")
	if err != nil {
		return false, err
	}
	there, err := dest.d.stat("")
	return here.access() == there.access(), err
}

func (m *Mailbox) stageAs(ctx context.Context, dest *Mailbox, msg *Message, name string, link bool) error {
	from, f, err := m.locate(ctx, msg)
	if err != nil {
		return err
	}
	defer f.Close()
	if !link {
		return copyFile(f, dest, name)
	}
	err = m.d.linkTo(from, dest.d, name)
	if cannotLink(err) || notExist(err) { // or renamed by another program just now
		return copyFile(f, dest, name)
	}
	return err
}

// cannotLink reports whether a file system has no links between two places, or none (any more) of a
// file. Linux refuses with EPERM, too, to link the file of another user that ours may not write to.
func cannotLink(err error) bool {
	return errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EPERM) ||
		errors.Is(err, unix.EOPNOTSUPP)
}

// unstage removes what stage made.
func (m *Mailbox) unstage(names []string) {
	for _, name := range names {
		if name == "" {
			continue
		}
		if err := m.d.remove(name); err != nil && !notExist(err) {
			m.acct.log().Warn("what was to be copied stays in tmp", "mailbox", m.Name(), "err", err)
		}
	}
}

// copyFile copies a message's bytes and date, and makes them durable.
func copyFile(f *os.File, dest *Mailbox, name string) error {
	st, err := dest.d.stat("")
	if err != nil {
		return err
	}
	old, err := statFile(f)
	if err != nil {
		return err
	}
	w, err := dest.d.create(name, st.access())
	if err != nil {
		return err
	}
	_, err = w.ReadFrom(f)
	if err == nil {
		err = dest.d.setTimes(name, old.mtime)
	}
	if err == nil {
		err = w.Sync()
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		dest.d.remove(name)
	}
	return err
}

// MoveTo moves messages to a mailbox of the same account, with the flags they have by now. Each is one
// rename: it is in one place at any moment, whatever happens. Where the mailboxes are on different
// file systems, or files in them have different permissions, it is a copy and an unlink, and a message is in both places if the process ends between
// the two. Messages that are gone are left out.
//
// Within one mailbox a moved message gets a new UID and the old one is expunged. keep is as for
// Expunge.
//
// s is the snapshot that the caller looked at. What is kept of a message that was gone from it is
// copied; one that was there and goes before its turn was moved or expunged by another session, and is
// not to be in two places.
func (m *Mailbox) MoveTo(ctx context.Context, dest *Mailbox, s *Snapshot, msgs []*Message, keep bool) (Copied, error) {
	m.measure(ctx, msgs)
	rename, err := m.sameAccess(dest)
	if err != nil {
		return Copied{}, err
	}
	if rename {
		c, err := m.move(ctx, dest, s, msgs, make([]string, len(msgs)), keep)
		if !cannotLink(err) {
			return c, err
		}
	}
	staged, err := m.stage(ctx, dest, msgs)
	defer dest.unstage(staged)
	if err != nil {
		return Copied{}, err
	}
	return m.move(ctx, dest, s, msgs, staged, keep)
}

// move is MoveTo. staged are the names of copies that take the place of the messages in dest, "" for
// those whose own files do.
func (m *Mailbox) move(ctx context.Context, dest *Mailbox, seen *Snapshot, msgs []*Message, staged []string, keep bool) (Copied, error) {
	first, second := m, dest // in one order everywhere, so that opposite moves don't wait for each other
	if dest.id.ino < m.id.ino {
		first, second = dest, m
	}
	hold := first.hold(ctx)
	if m == dest {
		if err := m.disk.lock(ctx, lockWait); err != nil {
			return Copied{}, err
		}
	} else {
		if err := lockBoth(ctx, &first.disk, &second.disk); err != nil {
			return Copied{}, err
		}
		defer second.disk.Unlock()
		hold = func(f func() error) error { return holdBoth(ctx, first, second, f) }
	}
	defer first.disk.Unlock()
	waiting, waited := waitTogether(ctx, first, second)
	defer waited()
	s, err := m.syncLocked(waiting, false)
	if err != nil {
		return Copied{}, err
	}
	msgs = slices.Clone(msgs)
	for i, msg := range msgs {
		if now := s.Find(msg.UID); now != nil {
			msgs[i] = now
		}
	}
	todo, err := dest.placements(waiting, s, msgs)
	waited()
	if err != nil {
		return Copied{}, err
	}
	looked := false
	for i, msg := range msgs {
		var from string
		todo[i].put = func(to string) (err error) {
			from, err = m.moveFile(seen, msg, staged[i], dest, to, keep)
			if (err == ErrExpunged || notExist(err)) && !looked && m.Snapshot().Find(msg.UID) != nil {
				looked = true // its flags may have been changed by another program
				if err = m.refresh(); err == nil {
					from, err = m.moveFile(seen, msg, staged[i], dest, to, keep)
				}
			}
			if err == nil {
				staged[i] = ""
			}
			return err
		}
		todo[i].back = func(to string) { m.moveBack(msg, dest, to, from) }
	}
	uids, err := dest.place(ctx, hold, false, todo)
	if err != nil {
		return Copied{}, m.abandon(ctx, err)
	}
	c := copied(dest, msgs, uids)
	// Only now that the messages are in the one place for good they go from the other for good.
	err = m.fsyncParts(func(inNew bool) bool {
		left, came := false, false
		for i, uid := range uids {
			left = left || uid != 0 && msgs[i].InNew == inNew
			came = came || uid != 0 && todo[i].inNew() == inNew
		}
		return left && (m != dest || !came) // else it is done
	})
	if err != nil {
		return Copied{}, m.abandon(ctx, err)
	}
	var moved change
	for _, uid := range c.Source {
		moved.remove(uid)
	}
	m.apply(&moved)
	_, err = m.syncLocked(ctx, false)
	m.reap()
	return c, err
}

// moveFile moves one file, or puts a copy in its place, under both mailboxes' locks. It returns where the
// file was, if it is the file that was moved.
func (m *Mailbox) moveFile(seen *Snapshot, msg *Message, staged string, dest *Mailbox, to string, keep bool) (moved string, err error) {
	from, f, err := m.find(msg)
	if err != nil {
		return "", err
	}
	f.Close()
	ghost := strings.HasPrefix(from, "tmp/") // it goes when all were told (RFC 2180 4.4.2)
	if ghost && seen.Find(msg.UID) != nil {
		return "", ErrExpunged
	}
	keep = keep && !ghost
	if keep {
		if err := m.haunt(msg, from); cannotLink(err) {
			keep = false
		} else if err != nil {
			return "", err
		}
	}
	switch {
	case staged != "":
		err = dest.d.renameFresh(staged, dest.d, to)
		if err == nil && !ghost {
			if err = m.d.remove(from); err != nil {
				dest.d.remove(to)
			}
		}
	case ghost:
		err = m.d.linkTo(from, dest.d, to)
	default:
		if err = m.d.renameFresh(from, dest.d, to); err == nil {
			moved = from
		}
	}
	switch {
	case keep && err == nil:
		m.keep(msg)
	case keep:
		m.exorcise(msg)
	}
	return moved, err
}

// moveBack undoes moveFile, where that is possible: what was copied from another file system stays.
func (m *Mailbox) moveBack(msg *Message, dest *Mailbox, to, from string) {
	if from == "" {
		return
	}
	if err := dest.d.renameFresh(to, m.d, from); err != nil {
		m.acct.log().Error("a message that was to be moved stays without a UID", "mailbox", dest.Name(), "file", to, "err", err)
		return
	}
	m.exorcise(msg)
	m.mu.Lock()
	delete(m.ghosts, msg.UID)
	m.mu.Unlock()
}
