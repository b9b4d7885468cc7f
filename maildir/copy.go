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
// nothing: if one of the messages is gone, what was copied is removed and ErrExpunged returned.
func (m *Mailbox) CopyTo(ctx context.Context, dest *Mailbox, msgs []*Message) (Copied, error) {
	c, err := m.copyTo(ctx, dest, msgs)
	if err == ErrExpunged { // or a file has another name by now, since another program changed flags
		m.disk.Lock()
		_, serr := m.syncLocked(ctx, true)
		m.disk.Unlock()
		if serr == nil {
			return m.copyTo(ctx, dest, msgs)
		}
	}
	return c, err
}

func (m *Mailbox) copyTo(ctx context.Context, dest *Mailbox, msgs []*Message) (Copied, error) {
	flags := m.Snapshot()
	dest.disk.Lock()
	defer dest.disk.Unlock()
	todo, err := m.placements(ctx, dest, flags, msgs)
	if err != nil {
		return Copied{}, err
	}
	for i, msg := range msgs {
		todo[i].put = func(to string) error { return m.linkTo(msg, dest, to) }
	}
	uids, err := dest.place(ctx, dest.hold(ctx), todo)
	if err != nil {
		return Copied{}, err
	}
	c, lost := copied(dest, msgs, uids)
	if lost {
		for part := range slices.Chunk(c.Dest, slice) {
			err := dest.locked(ctx, lockWait, func() error {
				return dest.eachCurrent(ctx, part, func(msg *Message) error { return dest.d.remove(msg.path()) })
			})
			if err != nil {
				return Copied{}, dest.abandon(ctx, err)
			}
		}
		if _, err := dest.syncLocked(ctx, true); err != nil {
			return Copied{}, err
		}
		return Copied{}, ErrExpunged
	}
	return c, nil
}

// copied pairs messages with the UIDs they got; lost is whether one got none.
func copied(dest *Mailbox, msgs []*Message, uids []imap.UID) (c Copied, lost bool) {
	c.UIDValidity = dest.Snapshot().UIDValidity
	for i, uid := range uids {
		if uid == 0 {
			lost = true
			continue
		}
		c.Source = append(c.Source, msgs[i].UID)
		c.Dest = append(c.Dest, uid)
	}
	return c, lost
}

// placements names messages for dest: with dest's letters for their keywords, under new base names. The
// one that a message has may have been another message's in dest: this one's, before it went away and
// came back. The caller holds dest.disk.
func (m *Mailbox) placements(ctx context.Context, dest *Mailbox, s *Snapshot, msgs []*Message) ([]placement, error) {
	if _, err := dest.syncLocked(ctx, false); err != nil {
		return nil, err
	}
	letters := map[Flags]Flags{}
	todo := make([]placement, len(msgs))
	for i, msg := range msgs {
		f, ok := letters[msg.Flags]
		if !ok {
			var err error
			if f, err = dest.keywordLetters(ctx, s.IMAPFlags(msg.Flags)); err != nil {
				return nil, err
			}
			letters[msg.Flags] = f
		}
		todo[i] = placement{flags: f, base: newBase(time.Now())}
		if stored, virtual := sizesOf(msg.Key()); stored >= 0 && virtual >= 0 {
			todo[i].base = withSizes(todo[i].base, stored, virtual)
		}
	}
	return todo, nil
}

// linkTo links a message's file into dest, or copies it where it can't be linked.
func (m *Mailbox) linkTo(msg *Message, dest *Mailbox, to string) error {
	from, f, err := m.find(msg)
	if err != nil {
		return err
	}
	defer f.Close()
	err = m.d.linkTo(from, dest.d, to)
	if cannotLink(err) {
		return copyFile(f, dest, to)
	}
	return err
}

// cannotLink reports whether a file system has no links between two places, or none (any more) of a
// file. Linux refuses with EPERM, too, to link the file of another user that ours may not write to.
func cannotLink(err error) bool {
	return errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EPERM) ||
		errors.Is(err, unix.EOPNOTSUPP)
}

func copyFile(f *os.File, dest *Mailbox, to string) error {
	st, err := dest.d.stat("")
	if err != nil {
		return err
	}
	old, err := statFile(f)
	if err != nil {
		return err
	}
	tmp := "tmp/" + newBase(time.Now())
	w, err := dest.d.create(tmp, filePerm(st.mode))
	if err != nil {
		return err
	}
	_, err = w.ReadFrom(f)
	if err == nil {
		err = w.Sync()
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = dest.d.setTimes(tmp, old.mtime)
	}
	if err == nil {
		err = dest.d.rename(tmp, to)
	}
	if err != nil {
		dest.d.remove(tmp)
	}
	return err
}

// MoveTo moves messages to a mailbox of the same account. Each is one rename where that can be:
// it is in one place at any moment, whatever happens. Messages that are gone are left out.
//
// Within one mailbox a moved message gets a new UID and the old one is expunged. keep is as for
// Expunge.
//
// s is the snapshot that the caller looked at. What is kept of a message that was gone from it is
// copied; one that was there and goes before its turn was moved or expunged by another session, and is
// not to be in two places.
func (m *Mailbox) MoveTo(ctx context.Context, dest *Mailbox, s *Snapshot, msgs []*Message, keep bool) (Copied, error) {
	first, second := m, dest // in one order everywhere, so that opposite moves don't wait for each other
	if dest.id.ino < m.id.ino {
		first, second = dest, m
	}
	hold := first.hold(ctx)
	first.disk.Lock()
	defer first.disk.Unlock()
	if m != dest {
		second.disk.Lock()
		defer second.disk.Unlock()
		hold = func(f func() error) error {
			return first.hold(ctx)(func() error { return second.hold(ctx)(f) })
		}
	}
	if _, err := m.syncLocked(ctx, false); err != nil {
		return Copied{}, err
	}
	todo, err := m.placements(ctx, dest, s, msgs)
	if err != nil {
		return Copied{}, err
	}
	looked := false
	for i, msg := range msgs {
		todo[i].put = func(to string) error {
			err := m.moveFile(s, msg, dest, to, keep)
			if (err == ErrExpunged || notExist(err)) && !looked && m.Snapshot().Find(msg.UID) != nil {
				looked = true // its flags may have been changed by another program
				if err = m.refresh(); err == nil {
					err = m.moveFile(s, msg, dest, to, keep)
				}
			}
			return err
		}
	}
	uids, err := dest.place(ctx, hold, todo)
	if err != nil {
		return Copied{}, m.abandon(ctx, err)
	}
	c, _ := copied(dest, msgs, uids)
	for _, sub := range []string{"cur", "new"} {
		if err := m.d.fsync(sub); err != nil {
			return Copied{}, m.abandon(ctx, err)
		}
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

// moveFile moves one file, under both mailboxes' locks.
func (m *Mailbox) moveFile(s *Snapshot, msg *Message, dest *Mailbox, to string, keep bool) error {
	from, f, err := m.find(msg)
	if err != nil {
		return err
	}
	defer f.Close()
	if strings.HasPrefix(from, "tmp/") {
		if s.Find(msg.UID) != nil {
			return ErrExpunged
		}
		return m.linkTo(msg, dest, to) // a ghost, which goes when all were told (RFC 2180 4.4.2)
	}
	if keep {
		if err := m.haunt(msg, from); cannotLink(err) {
			keep = false
		} else if err != nil {
			return err
		}
	}
	err = m.d.renameFresh(from, dest.d, to)
	if errors.Is(err, unix.EXDEV) {
		if err = copyFile(f, dest, to); err == nil {
			err = m.d.remove(from)
		}
	}
	switch {
	case keep && err == nil:
		m.keep(msg)
	case keep:
		m.exorcise(msg)
	}
	return err
}
