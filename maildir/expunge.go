package maildir

import (
	"context"
	"slices"

	"github.com/emersion/go-imap/v2"
)

// A ghost is an expunged message whose file is kept in tmp/ for sessions that were not told. Every
// Maildir program ignores it there and removes it after 36 hours, so that a crash leaves nothing.
type ghost struct {
	uid    imap.UID
	name   string // in the mailbox's directory
	number uint64 // of the first snapshot without the message; 0: it is in the current one
}

func ghostName(base string) string { return "tmp/" + base + ".ghost" }

// Expunge removes messages. With keep, their content stays readable for the sessions that have the
// mailbox selected, until all of them were told; otherwise it is gone at once.
func (m *Mailbox) Expunge(ctx context.Context, uids []imap.UID, keep bool) error {
	m.disk.Lock()
	defer m.disk.Unlock()
	if _, err := m.syncLocked(ctx, false); err != nil {
		return err
	}
	var c change
	for part := range slices.Chunk(uids, slice) {
		err := m.locked(ctx, lockWait, func() error {
			return m.eachCurrent(ctx, part, func(msg *Message) error {
				if !keep {
					if err := m.d.remove(msg.path()); err != nil {
						return err
					}
				} else {
					if err := m.d.rename(msg.path(), ghostName(msg.Key())); err != nil {
						return err
					}
					m.keep(msg)
				}
				c.remove(msg.UID)
				return nil
			})
		})
		if err != nil {
			return m.abandon(ctx, err)
		}
	}
	m.apply(&c)
	_, err := m.syncLocked(ctx, false)
	m.reap()
	return err
}

// keep remembers a ghost; publish finds the first snapshot without the message.
func (m *Mailbox) keep(msg *Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ghosts = append(m.ghosts, ghost{uid: msg.UID, name: ghostName(msg.Key())})
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
	var dead []ghost
	m.ghosts = slices.DeleteFunc(m.ghosts, func(g ghost) bool {
		gone := g.number != 0 && g.number <= told
		if gone {
			dead = append(dead, g)
		}
		return gone
	})
	m.mu.Unlock()
	for _, g := range dead {
		if err := m.d.remove(g.name); err != nil && !notExist(err) {
			m.acct.log().Warn("remove an expunged message", "mailbox", m.Name(), "err", err)
		}
	}
}

// ghostOf finds what is kept of an expunged message.
func (m *Mailbox) ghostOf(uid imap.UID) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.ghosts {
		if g.uid == uid {
			return g.name, true
		}
	}
	return "", false
}
