package maildir

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// Sync looks at the disk if something may have changed there, publishes what it finds, and returns
// the current snapshot. Every change of a mailbox, ours or another program's, becomes visible here
// and nowhere else; one caller looks at a time and the others use what it found. While another caller waits
// for another program's lock, the snapshot is what is known.
func (m *Mailbox) Sync(ctx context.Context) (*Snapshot, error) {
	if m.Snapshot().Number == 0 {
		if err := m.disk.lock(ctx, lockWait); err != nil {
			return m.Snapshot(), err
		}
	} else if !m.disk.lockUnlessStuck(ctx) {
		return m.Snapshot(), cmp.Or(m.Err(), ctx.Err())
	}
	defer m.disk.Unlock()
	s, err := m.syncLocked(ctx, false)
	if notExist(err) { // in the middle of somebody's rm -r, mostly: now it is gone
		s, err = m.syncLocked(ctx, false)
	}
	m.Tried("look at mailbox", cmp.Or(err, m.unwritten))
	return s, err
}

// syncLocked is Sync for a caller that holds disk; force looks even where no time has changed.
func (m *Mailbox) syncLocked(ctx context.Context, force bool) (*Snapshot, error) {
	if err := m.stands(); err != nil {
		return m.Snapshot(), err
	}
	if err := m.findControl(); err != nil {
		return m.Snapshot(), err
	}
	m.watch()
	dirs, err := m.statDirs()
	if notExist(err) && m.withoutCur() {
		return m.Snapshot(), m.Err()
	}
	if err != nil {
		return m.Snapshot(), err
	}
	list, err := m.control.stat(listFile)
	if err != nil && !notExist(err) {
		return m.Snapshot(), err
	}
	keys, err := m.control.stat(keysFile)
	if err != nil && !notExist(err) {
		return m.Snapshot(), err
	}
	prev := m.Snapshot()
	r := &reading{
		prev:     prev,
		number:   prev.Number + 1,
		readList: m.list.end == 0 || !sameFile(list, m.list.fileStat),
		readKeys: m.pending || prev.Number == 0 || !sameFile(keys, m.keys),
	}
	m.whatToRead(r, dirs, force)
	mustMove := prev.inNew > 0 && m.readWrite()
	if !r.readNew && !r.readCur && len(r.names) == 0 && !r.readList && !r.readKeys && !mustMove {
		if r.names != nil {
			m.scanned = dirs
		}
		return prev, nil
	}
	if err := m.read(ctx, r, dirs, keys); err != nil {
		return m.Snapshot(), m.missing(err)
	}
	return m.Snapshot(), m.Err()
}

// sameFile reports whether a file that others replace or append to is as it was.
func sameFile(a, b fileStat) bool {
	return a.id == b.id && a.size == b.size && a.mtime == b.mtime && a.ctime == b.ctime
}

// whatToRead decides what of new/ and cur/ is read: only the files that were heard of, where it is sure
// that all were, or else each directory that changed. dirs is how they look now.
func (m *Mailbox) whatToRead(r *reading, dirs scanState, force bool) {
	names, lost := m.hints.take()
	all := m.pending || r.prev.Number == 0 || lost
	switch {
	case m.unsure: // from now on all is heard of, if it is
		all = all || force || m.scanned.racy() || m.isRecheckDue()
		m.byName = m.settle()
		m.unsure = false
	case all:
		m.byName = m.settle()
	case !force && len(names) == 0 && dirs.sameTimes(m.scanned) && !(m.byName && m.scanned.racy()):
		return
	case m.watched != nil && !m.byName: // names were lost, but may tell again
		m.byName = m.settle()
		all = m.byName
	case m.byName:
		if m.byName = m.settle(); !m.byName {
			all = true
			break
		}
		more, lost := m.hints.take()
		if all = lost; all {
			break
		}
		if names == nil {
			names = map[string]struct{}{}
		}
		maps.Copy(names, more)
		r.names = names
		return
	}
	r.readNew = all || force || dirs.new != m.scanned.new
	r.readCur = all || force || dirs.cur != m.scanned.cur
	for name := range names {
		r.readNew = r.readNew || strings.HasPrefix(name, "new/")
		r.readCur = r.readCur || strings.HasPrefix(name, "cur/")
	}
}

// read makes the next snapshot from the disk.
//
// The list is read first, then the directories: a record is written after its file, so that a
// record without a file is one whose file is gone. A message is missed only after two looks
// (docs/coexistence.md). Files without a UID get one under the lock, and mail in new/ is moved in the
// same hold.
func (m *Mailbox) read(ctx context.Context, r *reading, dirs scanState, keys fileStat) error {
	m.pending = true // until all of it is done
	defer func() {
		if m.pending {
			m.list = listState{}
		}
	}()
	var list listState
	var err error
	if r.readList {
		if r.list, list, err = m.readNews(false); err != nil {
			return err
		}
		if err := m.sameValidity(r.list, r.prev); err != nil {
			return err
		}
	}
	r.keywords = r.prev.keywords
	mendKeys := false
	if r.readKeys {
		var problems []*FormatError
		if r.keywords, problems, err = m.readKeywords(); err != nil {
			return err
		}
		mendKeys = len(problems) > 0
	}
	if err := m.look(r); err != nil {
		return err
	}
	if len(r.pairs) > 0 {
		if err := m.lookApart(ctx, r); err != nil {
			return err
		}
	}
	m.keys, m.scanned = keys, dirs
	if r.nothing() && r.prev.inNew == 0 && !mendKeys {
		m.pending = false
		return nil
	}

	bad := r.readList && (r.list == nil || r.list.guid == "" || r.list.version != 3 || r.list.damaged || r.dropped())
	number := bad || len(r.files) > 0
	move := m.readWrite() && r.hasNew()
	first := r.prev.Number == 0 && r.list == nil
	wait := syncLockWait
	switch {
	case first:
		wait = lockWait
	case errors.Is(m.unwritten, ErrLocked): // it was waited for, and each command would wait anew
		wait = shortWait
	}
	var moveErr error
	held := false // by another program
	if number || move || mendKeys {
		var err error
		for try := 0; ; try++ {
			if err = m.locked(ctx, wait, func() error {
				if number {
					if err := m.number(r, try == 3); err != nil {
						return err
					}
				}
				if move {
					moveErr = m.moveRead(r)
				}
				if mendKeys {
					return m.mendKeywords()
				}
				return nil
			}); err != errLateRecords {
				break
			}
			if err := m.lookTwice(r); err != nil {
				return err
			}
		}
		held = errors.Is(err, ErrLocked)
		switch {
		case err == nil:
		case held && !number: // mail stays in new/ until the lock can be had
			moveErr = err
		case errors.Is(err, ErrGone) || first:
			return err
		default: // what can be known is shown; the mail that has no UID yet is not
			m.finish(r)
			m.unwritten = err
			return nil
		}
	}
	if r.readList && !number {
		m.list = list
	}
	m.pending = false
	m.finish(r)
	if moveErr == nil && m.readWrite() {
		moveErr = m.moveNew(ctx)
	}
	m.unwritten = moveErr
	if moveErr != nil && !held {
		return nil
	}
	if m.scanned.racy() {
		m.lookAgain()
	}
	return nil
}

// sameValidity checks that a list still has the UIDVALIDITY that the snapshot has; with another
// one, the mailbox is gone for all who know its UIDs.
func (m *Mailbox) sameValidity(list *uidlist, s *Snapshot) error {
	if list == nil || s.UIDValidity == 0 || list.validity == s.UIDValidity {
		return nil
	}
	reason := goneError("its UIDVALIDITY was changed by another program")
	m.vanish(reason)
	return reason
}

// isRecheckDue reports whether lookAgain has yet to look.
func (m *Mailbox) isRecheckDue() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.recheck != nil
}

// lookAgain looks at the disk once more when a change after the last scan would show, where nothing is
// heard of it. In a large mailbox it waits longer, so that many changes in a row cost no more than a tenth of the time.
func (m *Mailbox) lookAgain() {
	if m.byName {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.recheck != nil {
		return
	}
	m.recheck = time.AfterFunc(max(2*coarse, 10*m.scanTook), func() {
		m.disk.Lock()
		defer m.disk.Unlock()
		m.mu.Lock()
		used := len(m.refs) > 0
		m.recheck = nil
		m.mu.Unlock()
		if used {
			m.syncLocked(context.Background(), true) // an error shows at the next command
		} else {
			m.scanned = scanState{} // who opens it next looks
		}
	})
}

// dropped reports whether another program's rewriting took the record of a message away that is
// still there: it is written again, so that the message keeps its UID.
func (r *reading) dropped() bool {
	if r.list.tail {
		return false
	}
	lost := Snapshot{Messages: r.lost}
	i := 0
	for _, msg := range r.prev.Messages {
		for i < len(r.list.records) && r.list.records[i].uid < msg.UID {
			i++
		}
		if i == len(r.list.records) || r.list.records[i].uid != msg.UID {
			if lost.Find(msg.UID) == nil {
				return true
			}
		}
	}
	return false
}

// errLateRecords says that the list has gained records of files that may have come after the look.
var errLateRecords = errors.New("the list has grown meanwhile")

// number gives a UID to each file that has none, and writes them down. It runs under the lock. Where another look is
// needed first it returns errLateRecords, since a large mailbox is not to be read under the lock, or else looks itself.
func (m *Mailbox) number(r *reading, look bool) error {
	list, _, err := m.readNews(true) // another program may have numbered the same files
	if err != nil {
		return err
	}
	if err := m.sameValidity(list, r.prev); err != nil {
		return err
	}
	rewrite, made := false, list == nil
	if made {
		rewrite = true
		list = &uidlist{version: 3, validity: r.prev.UIDValidity, next: max(r.prev.UIDNext, 1), guid: r.prev.GUID}
		if list.validity == 0 {
			if list.validity, err = m.acct.nextUIDValidity(); err != nil {
				return err
			}
		}
	}
	if list.guid == "" {
		list.guid, rewrite = newGUID(), true
	}
	rewrite = rewrite || list.version != 3
	list.next = max(list.nextUID(), r.prev.UIDNext, 1)

	// Records that are new since the list was read without the lock.
	old := r.list
	r.list = list
	known := list.tail && len(list.records) == 0 || old != nil && list.size == old.size && len(list.records) == len(old.records)
	if !known {
		// Their files may have come after the scan. Left out now, they would be below UIDNEXT and get
		// another UID at the next look.
		missing := r.assign()
		if missing > 0 {
			if err := m.lookForLate(r); err != nil {
				return err
			}
			missing = r.assign()
		}
		if missing > 0 {
			if !look {
				return errLateRecords
			}
			if err := m.lookTwice(r); err != nil {
				return err
			}
		}
	}
	if list.damaged {
		// Dovecot would throw the whole list away.
		if err := mend(m.log(), m.control, listFile, nil); err != nil {
			return err
		}
	}
	if list.damaged || r.dropped() {
		rewrite = true
		list.restore(r.prev.Messages, r.lost)
	}

	bases := make([]string, 0, len(r.files))
	for base := range r.files {
		bases = append(bases, base)
	}
	sortBases(bases)
	list.forget(r.files)
	list.records = slices.Grow(list.records, len(bases))
	numbered, came, fresh := len(list.records), len(r.came), len(r.fresh)
	for _, base := range bases {
		f := r.files[base]
		if len(bases) <= slice { // many at once are a first look, and nobody else's to remove
			if _, err := m.d.stat(f.path()); err != nil {
				continue // gone or renamed meanwhile: the next look finds it
			}
		}
		rec := uidRecord{uid: list.nextUID(), base: base}
		list.records = append(list.records, rec)
		r.take(rec, f)
	}
	if rewrite {
		err = m.writeList(list)
	} else if len(list.records) > numbered {
		var lines []byte
		for _, rec := range list.records[numbered:] {
			lines = appendRecord(lines, rec)
		}
		err = m.appendList(lines)
	}
	if err != nil { // nobody hears of UIDs that are not on disk
		list.records, r.came, r.fresh = list.records[:numbered], r.came[:came], r.fresh[:fresh]
		if list.guid = r.prev.GUID; made {
			r.list = nil
		}
		return err
	}
	return m.knowList()
}

// restore puts back the records of messages that a foreign rewriting took away or gave to others.
func (l *uidlist) restore(msgs, lost []*Message) {
	have := make(map[imap.UID]bool, len(l.records))
	known, gone := Snapshot{Messages: msgs}, Snapshot{Messages: lost}
	for i, rec := range l.records {
		have[rec.uid] = true
		if msg := known.Find(rec.uid); msg != nil && msg.Key() != rec.base {
			l.records[i] = uidRecord{uid: rec.uid, base: msg.Key()}
		}
	}
	for _, msg := range msgs {
		if !have[msg.UID] && gone.Find(msg.UID) == nil {
			l.records = append(l.records, uidRecord{uid: msg.UID, base: msg.Key()})
		}
	}
	slices.SortFunc(l.records, func(a, b uidRecord) int { return cmp.Compare(a.uid, b.uid) })
}

// forget takes away the records of expunged messages whose file names came back: they are other
// messages now, and of two records of a name the later one counts.
func (l *uidlist) forget(files map[string]found) {
	if len(files) == 0 {
		return
	}
	l.records = slices.DeleteFunc(l.records, func(rec uidRecord) bool {
		_, again := files[rec.base]
		return again
	})
}

// finish publishes what was read.
func (m *Mailbox) finish(r *reading) {
	slices.SortFunc(r.came, func(a, b *Message) int { return cmp.Compare(a.UID, b.UID) })
	m.nameLetters(r)
	packNames(append(r.changed, r.came...)) // a message that is in both is packed twice, which is harmless
	next := &Snapshot{
		Number:      r.number,
		GUID:        r.prev.GUID,
		UIDValidity: r.prev.UIDValidity,
		UIDNext:     r.prev.UIDNext,
		Messages:    join(r.still(), r.came),
		keywords:    r.keywords,
	}
	if r.list != nil {
		next.GUID = r.list.guid
		next.UIDValidity = r.list.validity
		next.UIDNext = max(next.UIDNext, r.list.nextUID())
	}
	if r.prev.Number > 0 && next.GUID == r.prev.GUID && next.UIDNext == r.prev.UIDNext && next.keywords == r.prev.keywords &&
		slices.Equal(next.Messages, r.prev.Messages) {
		return // nothing is new
	}
	m.mu.Lock()
	m.recent = append(m.recent, r.fresh...)
	m.mu.Unlock()
	if m.holders(nil) > 0 {
		for _, msg := range r.lost {
			m.keep(msg) // another process may have left a link
		}
	}
	m.publish(next)
}

// nameLetters reads dovecot-keywords again, where a file that was found after it was read has a letter that had no name
// then: names are written first.
func (m *Mailbox) nameLetters(r *reading) {
	const letters = 1<<26 - 1
	unnamed := letters &^ r.keywords.named()
	if !slices.ContainsFunc(append(r.changed, r.came...), func(msg *Message) bool { return msg.Flags&unnamed != 0 }) {
		return
	}
	if k, _, err := m.readKeywords(); err == nil { // else the next look reads it
		r.keywords = k
	}
}

// join is the messages of the current snapshot, or of a reading, and those that came. Where there is room
// behind the former, the latter are put there: nobody sees the slots but who has the longer slice, and
// only the newest snapshot is ever added to. So a delivery does not copy the whole.
func join(still, came []*Message) []*Message {
	n := len(still) + len(came)
	if room := cap(still); n > room || room-n > n/16+16 {
		still = append(make([]*Message, 0, n+n/32), still...)
	}
	return append(still, came...)
}

// moveRead moves the mail in new/ that a reading has met to cur/, as the first read-write session to see
// it does; as much as one hold of the lock allows. It runs under the lock.
func (m *Mailbox) moveRead(r *reading) error {
	if r.prev.inNew > 0 && r.known == nil {
		r.known = slices.Clone(r.prev.Messages)
	}
	n := 0
	for _, msgs := range [][]*Message{r.known, r.came} {
		for i, msg := range msgs {
			if !msg.InNew {
				continue
			}
			if n++; n > slice {
				return nil
			}
			name, ok, err := m.moveToCur(msg)
			if err != nil {
				return err
			}
			if ok {
				msgs[i] = msg.with(name, false, r.number)
				r.changed = append(r.changed, msgs[i])
			}
		}
	}
	return nil
}

// moveToCur moves a message from new/ to cur/, and reports whether it was there and is now under name. It
// runs under the lock.
func (m *Mailbox) moveToCur(msg *Message) (name string, ok bool, err error) {
	name = msg.name
	if base, info := splitName(name); info == "" {
		name = base + ":2,"
	}
	err = m.d.renameFresh(msg.path(), m.d, "cur/"+name)
	if notExist(err) || errors.Is(err, fs.ErrExist) {
		return "", false, nil
	}
	return name, err == nil, err
}

// moveNew moves the mail in new/ that one hold of the lock was too short for.
func (m *Mailbox) moveNew(ctx context.Context) error {
	var todo []*Message
	if m.Snapshot().inNew > 0 {
		for _, msg := range m.Snapshot().Messages {
			if msg.InNew {
				todo = append(todo, msg)
			}
		}
	}
	var c change
	for part := range slices.Chunk(todo, slice) {
		m.giveWay()
		err := m.locked(ctx, syncLockWait, func() error {
			for _, msg := range part {
				name, ok, err := m.moveToCur(msg)
				if err != nil {
					return err
				}
				if ok {
					c.rename(msg.UID, name)
				}
			}
			return nil
		})
		var le *LockError
		if errors.As(err, &le) {
			break // it stays in new/ until the lock can be had
		} else if err != nil {
			m.pending = true // some may be moved
			return err
		}
	}
	m.apply(&c)
	return nil
}

// A change is what a command did to the files of a mailbox.
type change struct {
	renamed map[imap.UID]string // new names, in cur/
	removed map[imap.UID]bool
	added   []*Message // with UIDs above all others, in ascending order
}

func (c *change) rename(uid imap.UID, name string) {
	if c.renamed == nil {
		c.renamed = map[imap.UID]string{}
	}
	c.renamed[uid] = name
}

func (c *change) remove(uid imap.UID) {
	if c.removed == nil {
		c.removed = map[imap.UID]bool{}
	}
	c.removed[uid] = true
}

// apply publishes what this process did itself since it last looked, without reading it back. What
// other programs did meanwhile may have the same modification time as ours, so a look follows in a
// moment. The caller holds disk.
func (m *Mailbox) apply(c *change) {
	if len(c.renamed)+len(c.removed)+len(c.added) == 0 {
		return
	}
	prev := m.Snapshot()
	if prev.Number == 0 || m.pending {
		return // the next look reads all
	}
	next := *prev
	next.Number++
	next.Messages = make([]*Message, 0, len(prev.Messages)+len(c.added))
	var made []*Message
	for _, msg := range prev.Messages {
		if name, ok := c.renamed[msg.UID]; ok {
			msg = msg.with(name, false, next.Number)
			made = append(made, msg)
		}
		if !c.removed[msg.UID] {
			next.Messages = append(next.Messages, msg)
		}
	}
	m.mu.Lock()
	for _, msg := range c.added {
		msg.Number = next.Number
		made = append(made, msg)
		next.Messages = append(next.Messages, msg)
		next.UIDNext = msg.UID + 1
		m.recent = append(m.recent, msg.UID)
	}
	m.mu.Unlock()
	packNames(made)
	m.publish(&next)
	if m.byName {
		return // the next look hears of it, and of what others did meanwhile
	}
	st, err := m.statDirs()
	if err != nil {
		m.pending = true // it shows at the next look
		return
	}
	m.scanned = st
	m.lookAgain()
}

// readList reads dovecot-uidlist; nil where there is none. One that can't be used counts as none;
// under the lock it is kept under another name, never deleted.
func (m *Mailbox) readList(underLock bool) (*uidlist, listState, error) {
	f, err := m.control.openFile(listFile)
	if notExist(err) {
		return nil, listState{}, nil
	} else if err != nil {
		return nil, listState{}, m.unusable(err, underLock)
	}
	defer f.Close()
	return m.parseList(f, underLock)
}

// readNews reads what was appended to dovecot-uidlist since it was last read. Where it was replaced
// it reads the whole. Other programs append to it or replace it, and do nothing else.
func (m *Mailbox) readNews(underLock bool) (*uidlist, listState, error) {
	known, s := m.list, m.Snapshot()
	if st, err := m.control.stat(listFile); err == nil && known.end == st.size && known.end != 0 && sameFile(st, known.fileStat) {
		list, err := parseNews(s.UIDValidity, s.UIDNext, s.GUID, "")
		if err != nil {
			return nil, listState{}, err
		}
		list.size = known.end
		return list, known, nil
	}
	f, err := m.control.openFile(listFile)
	if notExist(err) {
		return nil, listState{}, nil
	} else if err != nil {
		return nil, listState{}, m.unusable(err, underLock)
	}
	defer f.Close()
	st, err := statFile(f)
	if err != nil {
		return nil, listState{}, err
	}
	if known.end == 0 || st.id != known.id || st.size < known.end {
		return m.parseList(f, underLock)
	}
	news := make([]byte, st.size-known.end+1)
	if _, err := f.ReadAt(news, known.end-1); err != nil {
		return nil, listState{}, err
	}
	if news[0] != '\n' {
		return m.parseList(f, underLock) // somebody did something else
	}
	list, err := parseNews(s.UIDValidity, s.UIDNext, s.GUID, string(news[1:]))
	if err != nil {
		return nil, listState{}, err
	}
	if list.damaged {
		return m.parseList(f, underLock)
	}
	list.size += known.end
	return list, listState{st, list.size}, nil
}

func (m *Mailbox) parseList(f *os.File, underLock bool) (*uidlist, listState, error) {
	st, err := statFile(f)
	if err != nil {
		return nil, listState{}, err
	}
	var text strings.Builder
	text.Grow(int(st.size) + bytes.MinRead)
	if _, err := io.Copy(&text, f); err != nil {
		return nil, listState{}, err
	}
	list, problems, err := parseUIDList(text.String())
	if err != nil {
		return nil, listState{}, m.unusable(err, underLock)
	}
	if underLock || !list.damaged { // else it will be read again, under the lock, and mended
		logProblems(m.log(), problems)
	}
	return list, listState{st, list.size}, nil
}

// unusable is what becomes of a list that can't be used: it counts as none, and under the lock it is kept under another
// name, to be made anew. Other errors stay.
func (m *Mailbox) unusable(err error, underLock bool) error {
	if _, ok := errors.AsType[*FormatError](err); !ok || !underLock {
		if ok {
			return nil
		}
		return err
	}
	kept, kerr := m.control.keepBroken(listFile)
	if kerr != nil && !notExist(kerr) {
		return kerr
	}
	m.log().Error("set aside and made anew", "err", err, "as", kept)
	return nil
}

func (m *Mailbox) log() *slog.Logger { return m.acct.log().With("mailbox", m.Name()) }

// A listState says how dovecot-uidlist was when all of it was known.
type listState struct {
	fileStat
	end int64 // of the last whole line
}

// knowList remembers dovecot-uidlist as this process just wrote it. It runs under the lock.
func (m *Mailbox) knowList() error {
	st, err := m.control.stat(listFile)
	m.list = listState{st, st.size}
	return err
}

// writeList replaces dovecot-uidlist. It runs under the lock.
func (m *Mailbox) writeList(l *uidlist) error {
	return m.replaceFile(listFile, listFile+".tmp", l.encode())
}

// appendList adds whole records to dovecot-uidlist, in one write: a last line without its end
// would count as absent. Where the last writer left such a line, it is cut off first. It runs
// under the lock.
func (m *Mailbox) appendList(records []byte) error {
	f, err := m.control.appendTo(listFile)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := statFile(f.File)
	if err != nil {
		return err
	}
	end := st.size
	if st.id != m.list.id || end != m.list.end { // or else it is as this process has read it
		if end, err = lineEnd(f.File, end); err != nil {
			return err
		}
	}
	if end < st.size {
		tail := make([]byte, min(st.size-end, 300))
		f.ReadAt(tail, end) // for the log
		if err := f.Truncate(end); err != nil {
			return err
		}
		m.log().Warn("cut off a last line without its end", "file", listFile, "bytes", st.size-end, "text", string(tail))
	}
	if _, err := f.Write(records); err != nil {
		if st, serr := statFile(f.File); serr != nil || st.size > end { // who watches would hear of it for nothing
			f.Truncate(end) // half a record is worse than none; the error is the write's
		}
		return err
	}
	return f.Sync()
}

// lineEnd is where the last whole line of a file ends.
func lineEnd(f *os.File, size int64) (int64, error) {
	tail := make([]byte, 4096)
	for size > 0 {
		part := tail[:min(size, int64(len(tail)))]
		if _, err := f.ReadAt(part, size-int64(len(part))); err != nil && err != io.EOF {
			return 0, err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return size - int64(len(part)-1-i), nil
		}
		size -= int64(len(part))
	}
	return 0, nil
}

// replaceFile writes a file under a temporary name, makes it durable and renames it into place.
func (m *Mailbox) replaceFile(name, tmp string, content []byte) error {
	st, err := m.d.stat("")
	if err != nil {
		return err
	}
	return m.control.writeFile(name, tmp, content, st.access())
}

// readKeywords reads dovecot-keywords, and what is wrong there; none where there is no such file.
func (m *Mailbox) readKeywords() (keywords, []*FormatError, error) {
	f, err := m.control.openFile(keysFile)
	if fe, ok := errors.AsType[*FormatError](err); ok {
		return keywords{}, []*FormatError{fe}, nil
	} else if notExist(err) {
		return keywords{}, nil, nil
	} else if err != nil {
		return keywords{}, nil, err
	}
	defer f.Close()
	return parseKeywords(f)
}

// writeKeywords replaces dovecot-keywords. Where problems were found in it, it is kept as it was, too. It runs under the lock.
func (m *Mailbox) writeKeywords(k *keywords, problems []*FormatError) error {
	if len(problems) > 0 {
		if err := mend(m.log(), m.control, keysFile, problems); err != nil {
			return err
		}
	}
	st, err := m.d.stat("")
	if err != nil {
		return err
	}
	return writeKeywords(m.control, k, st.access())
}

// mendKeywords writes dovecot-keywords anew if something is wrong there: Dovecot leaves out more of it. It runs under the
// lock.
func (m *Mailbox) mendKeywords() error {
	k, problems, err := m.readKeywords()
	if err != nil || len(problems) == 0 {
		return err
	}
	return m.writeKeywords(&k, problems)
}
