package maildir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// moveLockWait is how long a lock is waited for that shows that a server runs. Tests shorten it.
var moveLockWait = 5 * time.Second

// A Move is what ImportCourier or ExportCourier did with a mailbox, or would do.
type Move struct {
	// Mailbox is the name by which clients know the mailbox; "" for what belongs to none.
	Mailbox string
	// Text is what was done, or why it was not.
	Text string
	// Refused is whether something was left as it is that should have been moved.
	Refused bool
}

func (m Move) String() string {
	if m.Mailbox == "" {
		return m.Text
	}
	return fmt.Sprintf("mailbox %q: %s", m.Mailbox, m.Text)
}

// ImportCourier takes over what Courier knows of an account: UIDs, keywords and subscriptions. It adds
// to Dovecot's files what they don't have, and leaves Courier's as they are. What was taken over before
// is not taken again, so it may run twice. No server may run meanwhile.
//
// With dry it tells what it would do, and changes nothing. The error is that it could not begin, or that
// ctx ended.
func ImportCourier(ctx context.Context, root string, o *Options, dry bool) ([]Move, error) {
	m, err := newMover(root, o, dry)
	if err != nil {
		return nil, err
	}
	defer m.a.closeTrees()
	misspelled := func(storage string) bool {
		_, canonical := m.a.opts.mailboxName(storage)
		return !canonical
	}
	if err := m.wantUTF8(misspelled); err != nil {
		return nil, err
	}
	return m.run(ctx, m.importMailbox, m.importSubscriptions)
}

// ExportCourier gives Courier what is known of an account, the other way round. What Courier's files
// say otherwise is kept under another name.
func ExportCourier(ctx context.Context, root string, o *Options, dry bool) ([]Move, error) {
	m, err := newMover(root, o, dry)
	if err != nil {
		return nil, err
	}
	defer m.a.closeTrees()
	if err := m.wantUTF8(func(storage string) bool { return decodeUTF7(storage) != storage }); err != nil {
		return nil, err
	}
	return m.run(ctx, m.exportMailbox, m.exportSubscriptions)
}

// A mover moves an account from one server's files to another's.
type mover struct {
	a        *Account
	dry      bool
	storages []string // of all mailboxes, INBOX first
	moves    []Move

	// of the mailbox that is moved
	mailbox string
	d       *dir   // where its mail is, and what Courier knows of it
	control *dir   // where Dovecot's files are; nil: that is yet to be made
	access  access // of its directory, for what is made
}

// newMover looks whether the account can be moved at all.
func newMover(root string, o *Options, dry bool) (*mover, error) {
	a, err := lookInto(root, o)
	if err != nil {
		return nil, err
	}
	m := &mover{a: a, dry: dry}
	if a.opts.Layout != LayoutMaildirpp {
		err = fmt.Errorf("layout %q: Courier has only %q", a.opts.Layout, LayoutMaildirpp)
	} else {
		m.storages, err = a.mailboxes()
	}
	if err != nil {
		a.closeTrees()
		return nil, err
	}
	return m, nil
}

// wantUTF8 fails where a mailbox is not spelled as Courier spells names.
func (m *mover) wantUTF8(otherwise func(storage string) bool) error {
	if i := slices.IndexFunc(m.storages, otherwise); i >= 0 && m.a.opts.Names != NamesUTF8 {
		return fmt.Errorf("%q: Courier spells names in UTF-8; the folders have to be named so, and names set to %q",
			m.a.opts.path(m.storages[i]), NamesUTF8)
	}
	return nil
}

// say notes what was done.
func (m *mover) say(refused bool, format string, args ...any) {
	m.moves = append(m.moves, Move{m.mailbox, fmt.Sprintf(format, args...), refused})
}

// run moves one mailbox after the other. What can't be done with one doesn't keep the others from being moved.
func (m *mover) run(ctx context.Context, mailbox func() error, subscriptions func(context.Context) error) ([]Move, error) {
	for _, storage := range m.storages {
		m.mailbox, _ = m.a.opts.mailboxName(storage)
		if err := m.open(ctx, storage, mailbox); ctx.Err() != nil {
			return m.moves, ctx.Err()
		} else if err != nil {
			m.say(true, "left as it is: %v", err)
		}
	}
	m.mailbox = ""
	var err error
	if m.access, err = m.a.mail.access(); err == nil {
		err = subscriptions(ctx)
	}
	if err != nil {
		m.say(true, "subscriptions: left as they are: %v", err)
	}
	return m.moves, nil
}

// open opens a mailbox for f, which runs under the locks of both servers unless it changes nothing.
func (m *mover) open(ctx context.Context, storage string, f func() error) error {
	t, rel := m.a.at(storage)
	d, err := t.openDir(rel)
	if err != nil {
		return err
	}
	defer d.close()
	m.d, m.control = d, d
	st, err := d.stat("")
	if err != nil {
		return err
	}
	m.access = st.access()
	if m.a.apart() {
		if m.control, err = m.a.control.openDir(m.a.opts.controlPath(storage)); notExist(err) && m.dry {
			return f()
		} else if notExist(err) {
			m.control, err = m.a.openControl(storage)
		}
		if err != nil {
			return err
		}
		defer m.control.close()
	}
	if m.dry {
		return f()
	}
	return m.locked(ctx, f)
}

func (m *mover) locked(ctx context.Context, f func() error) (err error) {
	for _, l := range []struct {
		d             *dir
		lock, guarded string
	}{{m.d, courierLock, courierList}, {m.control, listLock, listFile}} {
		lock, err := lockDotfile(ctx, l.d, l.lock, dotlockOptions{guarded: l.guarded, wait: moveLockWait, access: m.access})
		if errors.Is(err, ErrLocked) {
			return fmt.Errorf("a server runs on it: %w", err)
		} else if err != nil {
			return err
		}
		defer func() {
			if uerr := lock.unlock(); err == nil {
				err = uerr
			}
		}()
	}
	return f()
}

// write replaces a file, unless nothing is to be changed.
func (m *mover) write(d *dir, name string, content []byte) error {
	if m.dry {
		return nil
	}
	return d.writeFile(name, name+".tmp", content, m.access)
}

// setAside keeps what is in the way under another name.
func (m *mover) setAside(d *dir, name string) error {
	aside := name + ".before-" + time.Now().UTC().Format("20060102T150405.000000")
	m.say(false, "%s is kept as %s", name, aside)
	if m.dry {
		return nil
	}
	return d.rename(name, aside)
}

// importMailbox goes from Courier's list to Dovecot's. The list is written last: what it has is done.
func (m *mover) importMailbox() error {
	theirs, err := readList(m.d, courierList)
	if err != nil {
		return err
	} else if theirs == nil {
		m.say(false, "there is no %s", courierList)
		return nil
	}
	ours, err := readList(m.control, listFile)
	if err != nil {
		return err
	}
	switch {
	case ours == nil:
		ours = &uidlist{validity: theirs.validity, next: 1}
	case ours.validity != theirs.validity:
		return fmt.Errorf("%s has UIDVALIDITY %d, and %s %d: clients may know the one or the other", listFile, ours.validity, courierList, theirs.validity)
	case ours.knows(theirs):
		m.say(false, "has Courier's UIDs already (UIDVALIDITY %d)", ours.validity)
		return nil
	}
	if ours.guid == "" {
		ours.guid = newGUID()
	}
	taken, err := ours.take(theirs)
	if err != nil {
		return err
	}
	files, err := messageFiles(m.d)
	if err != nil {
		return err
	}
	all, err := readCourierKeywords(m.d)
	if err != nil {
		return err
	}
	numbered, named := 0, map[string][]string{}
	for _, r := range taken {
		if _, ok := files[r.base]; ok {
			numbered++
			if names := all[r.base]; len(names) > 0 {
				named[r.base] = names
			}
		}
	}
	if err := m.importKeywords(files, named); err != nil {
		return err
	}
	if err := m.write(m.control, listFile, ours.encode()); err != nil {
		return err
	}
	m.say(false, "UIDVALIDITY %d; %d of %d messages get Courier's UIDs, %d get its keywords", ours.validity, numbered, len(files), len(named))
	return nil
}

// exportMailbox goes from Dovecot's list to Courier's.
func (m *mover) exportMailbox() error {
	ours, err := readList(m.control, listFile)
	if err != nil {
		return err
	} else if ours == nil {
		m.say(false, "there is no %s", listFile)
		return nil
	}
	theirs, err := readList(m.d, courierList)
	if err != nil {
		return err
	}
	if theirs != nil && theirs.validity != ours.validity {
		if err := m.setAside(m.d, courierList); err != nil {
			return err
		}
		theirs = nil
	}
	if theirs == nil {
		theirs = &uidlist{validity: ours.validity, next: 1}
	}
	if _, err := theirs.take(ours); err != nil {
		return err
	}
	files, err := messageFiles(m.d)
	if err != nil {
		return err
	}
	numbered := 0
	for _, r := range theirs.records {
		if _, ok := files[r.base]; ok {
			numbered++
		}
	}
	named, err := m.exportKeywords(files)
	if err != nil {
		return err
	}
	if err := m.write(m.d, courierList, theirs.encodeCourier()); err != nil {
		return err
	}
	m.say(false, "UIDVALIDITY %d; Courier has UIDs of %d of %d messages, and keywords of %d", ours.validity, numbered, len(files), named)
	return nil
}

// readList reads a list of UIDs, Dovecot's or Courier's; nil where there is none. One with a mistake in
// it is for its own server to mend.
func readList(d *dir, name string) (*uidlist, error) {
	text, err := readText(d, name)
	if notExist(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	l, problems, err := parseUIDList(text)
	if err == nil && l.damaged {
		err = problems[0]
	}
	if fe, ok := errors.AsType[*FormatError](err); ok {
		fe.File = name
	}
	return l, err
}

func readText(d *dir, name string) (string, error) {
	if d == nil {
		return "", fs.ErrNotExist
	}
	f, err := d.open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

// knows reports whether a list has nothing to take from another one of the same mailbox.
func (l *uidlist) knows(other *uidlist) bool {
	return other.nextUID() <= l.nextUID() && l.contradicts(other) == nil
}

// take adds the records of another list of the same mailbox with UIDs that were not given yet here, and
// returns them. Where the two give a UID to different messages it fails: two servers ran at once.
func (l *uidlist) take(other *uidlist) ([]uidRecord, error) {
	if err := l.contradicts(other); err != nil {
		return nil, err
	}
	from, _ := slices.BinarySearchFunc(other.records, l.nextUID(), func(r uidRecord, uid imap.UID) int { return cmp.Compare(r.uid, uid) })
	next := max(l.nextUID(), other.nextUID())
	for _, r := range other.records[from:] {
		l.records = append(l.records, uidRecord{uid: r.uid, base: r.base})
	}
	l.next = next
	return other.records[from:], nil
}

// contradicts tells of a message that has another UID in another list, or a UID of another message.
func (l *uidlist) contradicts(other *uidlist) error {
	bases, uids := map[imap.UID]string{}, map[string]imap.UID{}
	for _, r := range l.records {
		bases[r.uid], uids[r.base] = r.base, r.uid
	}
	for _, r := range other.records {
		if base, ok := bases[r.uid]; ok && base != r.base {
			return fmt.Errorf("UID %d is of %q in %s and of %q in %s", r.uid, base, listFile, r.base, courierList)
		}
		if uid, ok := uids[r.base]; ok && uid != r.uid {
			return fmt.Errorf("%q has UID %d in %s and %d in %s", r.base, uid, listFile, r.uid, courierList)
		}
	}
	return nil
}

// messageFiles are the files of a mailbox by base name, as "cur/…".
func messageFiles(d *dir) (map[string]string, error) {
	files := map[string]string{}
	for _, sub := range []string{"new", "cur"} {
		err := eachName(d, sub, func(name string) {
			if listedName(name) {
				base, _ := splitName(name)
				files[base] = sub + "/" + name
			}
		})
		if err != nil && !notExist(err) {
			return nil, err
		}
	}
	return files, nil
}

// importKeywords gives files the letters of keywords, naming new letters first: of the keywords that most
// messages have, if not all have room.
func (m *mover) importKeywords(files map[string]string, named map[string][]string) error {
	text, err := readText(m.control, keysFile)
	if err != nil && !notExist(err) {
		return err
	}
	keys, problems, _ := parseKeywords(strings.NewReader(text)) // a string can be read
	var used Flags                                              // letters without a name among them
	for _, file := range files {
		used |= parseFlags(path.Base(file))
	}
	count := map[string]int{}
	for _, names := range named {
		for _, name := range names {
			count[name]++
		}
	}
	added := false
	for _, name := range slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), strings.Compare(a, b))
	}) {
		if keys.find(name) >= 0 {
			continue
		}
		free := 0
		for free < len(keys) && (keys[free] != "" || used&keywordFlag(free) != 0) {
			free++
		}
		switch {
		case !validKeyword(name):
			m.say(true, "%d messages lose the keyword %q, which IMAP does not allow", count[name], name)
		case free == len(keys):
			m.say(true, "%d messages lose the keyword %q: file names hold 26, and they are used up", count[name], name)
		default:
			keys[free] = name
			added = true
		}
	}
	if m.dry {
		return nil
	}
	if added {
		if len(problems) > 0 {
			if err := mend(m.a.log().With("mailbox", m.mailbox), m.control, keysFile, problems); err != nil {
				return err
			}
		}
		if err := writeKeywords(m.control, &keys, m.access); err != nil {
			return err
		}
	}
	for base, names := range named {
		name := path.Base(files[base])
		flags := parseFlags(name)
		for _, n := range names {
			if i := keys.find(n); i >= 0 {
				flags |= keywordFlag(i)
			}
		}
		if flags == parseFlags(name) {
			continue
		}
		if err := m.d.renameFresh(files[base], m.d, "cur/"+withFlags(name, flags)); err != nil {
			return err
		}
	}
	return nil
}

// exportKeywords gives Courier the keywords of files, and returns of how many.
func (m *mover) exportKeywords(files map[string]string) (int, error) {
	text, err := readText(m.control, keysFile)
	if err != nil && !notExist(err) {
		return 0, err
	}
	keys, _, _ := parseKeywords(strings.NewReader(text))
	named := map[string][]string{}
	for base, file := range files {
		for i, name := range keys {
			if name != "" && parseFlags(path.Base(file))&keywordFlag(i) != 0 {
				named[base] = append(named[base], name)
			}
		}
	}
	before, err := readCourierKeywords(m.d)
	if err != nil {
		return 0, err
	}
	maps.DeleteFunc(before, func(base string, names []string) bool { return files[base] == "" || len(names) == 0 })
	if maps.EqualFunc(before, named, func(a, b []string) bool {
		return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
	}) {
		return len(named), nil
	}
	if _, err := m.d.stat(courierKeys); err == nil {
		if err := m.setAside(m.d, courierKeys); err != nil {
			return 0, err
		}
	}
	if m.dry {
		return len(named), nil
	}
	if err := m.d.mkdir(courierKeys, m.access); err != nil {
		return 0, err
	}
	return len(named), m.d.writeFile(courierKeys+"/:list", courierKeys+"/.tmp.imapmaildir", encodeCourierKeywords(&keys, named), m.access)
}

// importSubscriptions makes the file from Courier's, unless there is one.
func (m *mover) importSubscriptions(ctx context.Context) error {
	text, err := readText(m.a.mail.root, courierSubs)
	if notExist(err) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := m.a.control.root.stat(subsFile); err == nil {
		m.say(false, "%s: there is one, it stays", subsFile)
		return nil
	}
	var names []string
	for name := range strings.Lines(text) {
		name = strings.TrimRight(name, "\r\n")
		if own, ok := strings.CutPrefix(name, courierPrefix); ok {
			names = append(names, own)
		} else if strings.EqualFold(name, "INBOX") {
			names = append(names, "INBOX")
		} else if name != "" {
			m.say(true, "%s: %q is left out: it is not the account's own", subsFile, name)
		}
	}
	m.say(false, "%s: %d names", subsFile, len(names))
	if m.dry {
		return nil
	}
	return m.a.updateSubscriptions(ctx, func(s *subscriptions) {
		for _, name := range names {
			s.add(name)
		}
	})
}

// exportSubscriptions makes Courier's file; another one is set aside.
func (m *mover) exportSubscriptions(context.Context) error {
	if _, err := m.a.control.root.stat(subsFile); notExist(err) {
		return nil
	}
	s, _, err := m.a.readSubscriptions()
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, name := range s.names {
		if name != "INBOX" {
			name = courierPrefix + name
		}
		b.WriteString(name + "\n")
	}
	before, err := readText(m.a.mail.root, courierSubs)
	if err != nil && !notExist(err) {
		return err
	} else if before == b.String() {
		return nil
	} else if err == nil {
		if err := m.setAside(m.a.mail.root, courierSubs); err != nil {
			return err
		}
	}
	m.say(false, "%s: %d names", courierSubs, len(s.names))
	return m.write(m.a.mail.root, courierSubs, []byte(b.String()))
}
