package maildir

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sys/unix"
)

// Append adds a message: with the given flags, and date as its internal date (zero: now). It
// returns the UID and the UIDVALIDITY after the message and its UID are durable. The message is
// stored with LF line ends, as Dovecot stores it, and not compressed; what would be taken for a compressed
// message when it is read again is refused with ErrCompressed.
//
// r is read to its end before any lock is taken.
func (m *Mailbox) Append(ctx context.Context, r io.Reader, flags []imap.Flag, date time.Time) (imap.UID, uint32, error) {
	now := time.Now()
	if date.IsZero() {
		date = now
	}
	base := newBase(now)
	tmp := "tmp/" + base
	stored, virtual, err := m.spool(tmp, r, date)
	if lerr := m.disk.lock(ctx, lockWait); lerr != nil {
		m.d.remove(tmp)
		return 0, 0, cmp.Or(err, lerr)
	}
	defer m.disk.Unlock()
	if err != nil {
		m.d.remove(tmp)
		return 0, 0, m.missing(err)
	}
	base = withSizes(base, stored, virtual)
	if _, err := m.syncLocked(ctx, false); err != nil {
		m.d.remove(tmp)
		return 0, 0, err
	}
	f, err := m.keywordLetters(ctx, flags)
	if err != nil {
		m.d.remove(tmp)
		return 0, 0, err
	}
	uids, err := m.place(ctx, m.hold(ctx), true, []placement{{
		flags: f,
		base:  base,
		put:   func(to string) error { return m.d.renameFresh(tmp, m.d, to) },
	}})
	if err != nil {
		m.d.remove(tmp)
		return 0, 0, err
	}
	return uids[0], m.Snapshot().UIDValidity, nil
}

// spool writes a message to tmp/ and makes it durable.
func (m *Mailbox) spool(tmp string, r io.Reader, date time.Time) (stored, virtual int64, err error) {
	st, err := m.d.stat("")
	if err != nil {
		return 0, 0, err
	}
	f, err := m.d.create(tmp, st.access())
	if err != nil {
		return 0, 0, err
	}
	w := &lfWriter{w: bufio.NewWriterSize(f, 64<<10)}
	_, err = io.Copy(w, r)
	if err == nil {
		err = w.flush()
	}
	if err == nil {
		var format *format
		if format, err = formatOfFile(f.File); format != nil {
			err = ErrCompressed
		}
	}
	if err == nil {
		err = m.d.setTimes(tmp, unix.NsecToTimespec(date.UnixNano()))
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return w.stored, w.virtual, err
}

// An lfWriter turns CRLF into LF and counts what it wrote, as it is stored and as it will be read
// again: with a CR before each LF that has none.
type lfWriter struct {
	w               *bufio.Writer
	cr              bool // a CR waits for what follows
	last            byte // that was written
	stored, virtual int64
}

func (w *lfWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if w.cr && b[0] != '\n' {
			w.put([]byte{'\r'})
		}
		if w.cr = b[0] == '\r'; w.cr {
			b = b[1:]
			continue
		}
		end := bytes.IndexByte(b, '\r')
		if end < 0 {
			end = len(b)
		}
		w.put(b[:end])
		b = b[end:]
	}
	return n, nil
}

// put writes bytes that have no CR before an LF.
func (w *lfWriter) put(b []byte) {
	w.w.Write(b) // an error stays with the bufio.Writer
	w.stored += int64(len(b))
	w.virtual += int64(len(b) + bytes.Count(b, []byte{'\n'}))
	if b[0] == '\n' && w.last == '\r' {
		w.virtual--
	}
	w.last = b[len(b)-1]
}

func (w *lfWriter) flush() error {
	if w.cr {
		w.put([]byte{'\r'})
	}
	return w.w.Flush()
}

// hold runs functions under the mailbox's lock.
func (m *Mailbox) hold(ctx context.Context) func(func() error) error {
	return func(f func() error) error { return m.locked(ctx, lockWait, f) }
}

// A placement is a message on its way into a mailbox.
type placement struct {
	flags Flags
	base  string
	put   func(to string) error // moves the file into place; fails where the name is taken or the file gone
	back  func(to string)       // undoes put, for place without whole
}

// inNew is whether it goes to new/, where there is no place for flags.
func (p *placement) inNew() bool { return p.flags == 0 }

// place puts files into the mailbox and numbers them, in order, then makes both durable. Each file is
// in place before its record is written: from a record alone Dovecot may announce a message that isn't
// there (docs/coexistence.md). The caller holds disk and has just synced; hold runs a function under the
// mailbox's lock.
//
// With whole, all are put there or none: if one fails, or is gone, the others are removed again
// (RFC 9051 sections 6.3.12 and 6.4.7). Otherwise a file that was gone has UID 0.
func (m *Mailbox) place(ctx context.Context, hold func(func() error) error, whole bool, todo []placement) ([]imap.UID, error) {
	uids := make([]imap.UID, len(todo))
	var c change
	alone := true // nobody else wrote to the list
	put := func(start int, part []placement) error {
		list, _, err := m.readNews(true)
		if err != nil {
			return err
		}
		if list == nil || list.version != 3 || list.guid == "" {
			return fmt.Errorf("%s was removed while a message was on its way", listFile)
		}
		if list.validity != m.Snapshot().UIDValidity {
			return goneError("its UIDVALIDITY was changed by another program")
		}
		alone = alone && list.tail && len(list.records) == 0
		next := max(list.nextUID(), m.Snapshot().UIDNext)
		if n := len(c.added); n > 0 {
			next = max(next, c.added[n-1].UID+1)
		}
		var records []byte
		var placed error
		for i, p := range part {
			msg := &Message{Flags: p.flags, InNew: p.inNew(), name: p.base}
			if !msg.InNew {
				msg.name = withFlags(p.base, p.flags)
			}
			err := p.put(msg.path())
			if !whole && (notExist(err) || errors.Is(err, ErrExpunged)) {
				continue
			} else if err != nil {
				placed = err
				break
			}
			if st, err := m.d.stat(msg.path()); err == nil {
				msg.file = tagOf(st.id.ino)
			}
			records = appendRecord(records, uidRecord{uid: next, base: p.base})
			msg.UID = next
			c.added = append(c.added, msg)
			uids[start+i] = next
			next++
		}
		if len(records) > 0 && (placed == nil || !whole) {
			if err := m.appendList(records); err != nil {
				if whole {
					return err
				}
				added := c.added // what has no UID goes back where it was
				for i, p := range slices.Backward(part) {
					if uids[start+i] != 0 {
						p.back(added[len(added)-1].path())
						added = added[:len(added)-1]
					}
				}
				return err
			}
			if alone {
				if err := m.knowList(); err != nil {
					return err
				}
			}
		}
		return placed
	}
	takeBack := func() error {
		for _, msg := range c.added {
			if err := m.d.remove(msg.path()); err != nil && !notExist(err) {
				m.acct.log().Warn("what a command that failed has put there stays", "mailbox", m.Name(), "err", err)
			}
		}
		c.added = nil
		return nil
	}
	var err error
	for start := 0; start < len(todo) && err == nil; start += slice {
		if start > 0 {
			m.giveWay()
		}
		err = hold(func() error {
			err := put(start, todo[start:min(start+slice, len(todo))])
			if err != nil && whole {
				takeBack() // under this lock: where the disk is full there may be no other
			}
			return err
		})
	}
	if err == nil {
		err = m.fsyncParts(func(inNew bool) bool {
			return slices.ContainsFunc(c.added, func(msg *Message) bool { return msg.InNew == inNew })
		})
	}
	if err != nil && whole && len(c.added) > 0 {
		hold(takeBack)
	}
	if err != nil {
		return nil, m.abandon(ctx, err)
	}
	if alone {
		m.apply(&c)
	}
	_, err = m.syncLocked(ctx, !alone)
	return uids, err
}

// fsyncParts makes the entries of new/ and cur/ durable, where they changed.
func (m *Mailbox) fsyncParts(changed func(inNew bool) bool) error {
	for _, sub := range []string{"cur", "new"} {
		if !changed(sub == "new") {
			continue
		}
		if err := m.d.fsync(sub); err != nil {
			return err
		}
	}
	return nil
}

// abandon reads back what a command that failed did before, and returns its error. The caller
// holds disk.
func (m *Mailbox) abandon(ctx context.Context, err error) error {
	m.pending, m.list = true, listState{}
	if errors.Is(err, ErrLocked) {
		m.unwritten = err // nor does the look wait for it
	}
	m.syncLocked(ctx, true) // the error that counts is the first one
	return m.missing(err)
}

// missing is the error of a command that failed: where a file or a directory was not there, that the
// mailbox is gone, if it is. The caller holds disk.
func (m *Mailbox) missing(err error) error {
	if notExist(err) {
		if gone := m.stands(); gone != nil {
			return gone
		}
	}
	return err
}
