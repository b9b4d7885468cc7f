package maildir

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/emersion/go-imap/v2"
)

// Store changes the flags of messages and returns how they are now, those that are gone left out.
// The change is made to the flags that the file names carry by now, so that changes of other
// programs stay. A keyword that is new to the mailbox is named in dovecot-keywords before any file
// uses its letter; where no letter is left, nothing is changed and ErrTooManyKeywords returned.
// Flags that IMAP doesn't define are ignored.
func (m *Mailbox) Store(ctx context.Context, uids []imap.UID, op imap.StoreFlagsOp, flags []imap.Flag) ([]*Message, error) {
	if err := m.disk.lock(ctx, lockWait); err != nil {
		return nil, err
	}
	defer m.disk.Unlock()
	if _, err := m.syncLocked(ctx, false); err != nil {
		return nil, err
	}
	named, err := m.keywordLetters(ctx, flags)
	if err != nil {
		return nil, err
	}
	var c change
	err = m.each(ctx, uids, func(msg *Message) error {
		now := named
		switch op {
		case imap.StoreFlagsAdd:
			now = msg.Flags | named
		case imap.StoreFlagsDel:
			now = msg.Flags &^ named
		}
		if now == msg.Flags {
			return nil
		}
		name := withFlags(msg.name, now)
		if err := m.d.renameFresh(msg.path(), m.d, "cur/"+name); err != nil {
			return err
		}
		c.rename(msg.UID, name)
		return nil
	})
	if err != nil {
		return nil, m.abandon(ctx, err)
	}
	m.apply(&c)
	s, err := m.syncLocked(ctx, false) // a keyword may be new
	if err != nil {
		return nil, err
	}
	var messages []*Message
	for _, uid := range uids {
		if msg := s.Find(uid); msg != nil {
			messages = append(messages, msg)
		}
	}
	return messages, nil
}

// each calls f for messages under the lock, a slice in each hold of it. Where f finds that a file is not there any
// more, or that its new name is taken, another program has renamed it: the disk is looked at again, and in another
// hold f gets the message as it is now, if it is.
func (m *Mailbox) each(ctx context.Context, uids []imap.UID, f func(*Message) error) error {
	for part := range slices.Chunk(uids, slice) {
		if part[0] != uids[0] {
			m.giveWay()
		}
		for try := 0; len(part) > 0; try++ {
			if try > 0 && try < maxTries {
				if err := m.refresh(); err != nil {
					return err
				}
			}
			var last error
			err := m.locked(ctx, lockWait, func() error {
				if try == maxTries { // now at least Dovecot renames nothing meanwhile
					if err := m.refresh(); err != nil {
						return err
					}
				}
				var again []imap.UID
				for _, uid := range part {
					msg := m.Snapshot().Find(uid)
					if msg == nil {
						continue
					}
					if err := f(msg); notExist(err) || errors.Is(err, fs.ErrExist) {
						again, last = append(again, uid), err
					} else if err != nil {
						return err
					}
				}
				part = again
				return nil
			})
			switch {
			case err != nil:
				return err
			case len(part) > 0 && try == maxTries && !notExist(last):
				return last
			case try == maxTries:
				part = nil
			}
		}
	}
	return nil
}

// maxTries is how often a file is looked for again that another program goes on renaming.
const maxTries = 10

// refresh reads the directories, to settle where the known messages are. It neither numbers nor expunges
// anything. The caller holds disk; of the lock there is no need, and in a large mailbox it takes long.
func (m *Mailbox) refresh() error {
	r := &reading{prev: m.Snapshot(), readNew: true, readCur: true}
	r.number = r.prev.Number + 1
	r.keywords = r.prev.keywords
	if err := m.look(r); err != nil {
		return err
	}
	for i := range r.state {
		if r.state[i] == unread {
			r.state[i] = met // gone, which the next look tells
		}
	}
	r.assign()
	m.finish(r)
	return nil
}

// keywordLetters turns names into flags, naming new keywords first.
func (m *Mailbox) keywordLetters(ctx context.Context, names []imap.Flag) (Flags, error) {
	keys := m.Snapshot().keywords
	f, unknown := lookupFlags(&keys, names)
	if len(unknown) == 0 {
		return f, nil
	}
	var used Flags
	for _, msg := range m.Snapshot().Messages {
		used |= msg.Flags
	}
	err := m.locked(ctx, lockWait, func() error {
		keys, problems, err := m.readKeywords() // another program may have named some
		if err != nil {
			return err
		}
		for _, name := range unknown {
			if keys.find(name) < 0 {
				if _, err := keys.add(name, used); err != nil {
					return err
				}
			}
		}
		f, _ = lookupFlags(&keys, names)
		return m.writeKeywords(&keys, problems)
	})
	return f, err
}
