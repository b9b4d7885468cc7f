package maildir

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// A reading is what one look at the disk knows, before it becomes a snapshot.
type reading struct {
	prev   *Snapshot
	number uint64 // of the next one

	// What is read: whole directories, or if names is not nil the files with these names ("cur/x").
	// The rest is as prev has it.
	readNew, readCur, readList, readKeys bool
	names                                map[string]struct{}

	places  *index           // of prev
	state   []fileState      // of the messages of prev, by their places
	touched []int            // places that have a state, where names are read
	at      map[int]found    // where those are that have moved
	files   map[string]found // that prev does not have, by base name, and that are not assigned yet

	// Base names that two files have: when one of these goes, only a scan finds out what is left.
	twins map[string]struct{}
	doubt bool       // one of them was missed
	pairs [][2]found // of these, as far as they are two files and not one that was renamed meanwhile

	late     []string   // base names of records whose files were not met
	known    []*Message // those of prev that are still there; nil: all, as they were
	came     []*Message // those that are not in prev
	changed  []*Message // those of known that have another name than in prev
	lost     []*Message // those of prev that are in no file; ascending
	fresh    []imap.UID // of messages that had no UID, or that nobody looked at yet
	list     *uidlist   // nil: not read, or there is none
	keywords keywords
}

// set notes the state of a message.
func (r *reading) set(place int, s fileState) {
	if r.names != nil && r.state[place] == unread {
		r.touched = append(r.touched, place)
	}
	r.state[place] = s
}

// A fileState is what a reading knows of the file of a message of prev.
type fileState byte

const (
	unread fileState = iota
	met              // it is where it was
	moved            // it is in reading.at
	sought           // it was looked for by its name, and is not there
)

// look finds out what is in new/ and cur/, and assigns it.
func (m *Mailbox) look(r *reading) error {
	m.places.extend(r.prev)
	r.places = &m.places
	m.states = slices.Grow(m.states[:0], len(r.prev.Messages))[:len(r.prev.Messages)]
	clear(m.states)
	r.state = m.states
	r.at = map[int]found{}
	r.files = map[string]found{}
	if r.names == nil && r.prev.Number == 0 && r.list != nil {
		r.files = make(map[string]found, len(r.list.records))
	}
	if m.twins == nil {
		m.twins = map[string]struct{}{}
	}
	r.twins = m.twins
	r.pairs = nil
	if r.names != nil {
		if err := m.lookAt(r, r.names); err != nil {
			return err
		}
	} else if err := m.scan(r); err != nil {
		return err
	}
	if r.doubt {
		if err := m.scanInstead(r); err != nil {
			return err
		}
	}
	if r.assign() > 0 {
		return m.lookTwice(r)
	}
	return nil
}

// lookTwice looks for files that a first look has missed, and assigns again: another program may have
// renamed one while it was looked for.
//
// Where names tell it is exact: a file that was missed is gone unless something was heard of it during the
// look. Otherwise both directories are read once more; two readings were never seen to miss a file.
func (m *Mailbox) lookTwice(r *reading) error {
	for i := 0; r.names != nil; i++ {
		more, err := m.heardMeanwhile()
		switch {
		case err != nil:
			return err
		case more == nil:
			if err := m.scanInstead(r); err != nil {
				return err
			}
		case len(more) == 0:
			return nil
		case i == 3 && !r.comes(more):
			m.leaveOpen(r, more)
			return nil
		case i == 3:
			if err := m.scanInstead(r); err != nil {
				return err
			}
		default:
			maps.Copy(r.names, more)
			if err := m.lookAt(r, more); err != nil {
				return err
			}
			if r.doubt {
				if err := m.scanInstead(r); err != nil {
					return err
				}
			}
		}
		if r.assign() == 0 {
			return nil
		}
	}
	if err := m.scanBoth(r); err != nil {
		return err
	}
	r.assign()
	return nil
}

// scanInstead begins anew with the directories, where names don't tell enough.
func (m *Mailbox) scanInstead(r *reading) error {
	r.names, r.touched, r.doubt = nil, nil, false
	clear(r.state)
	clear(r.at)
	clear(r.files)
	r.came, r.fresh, r.pairs = nil, nil, nil
	clear(r.twins)
	return m.scanBoth(r)
}

func (m *Mailbox) scanBoth(r *reading) error {
	r.readNew, r.readCur = true, true
	return m.scan(r)
}

// lookApart separates files that have one base name, and looks again if there were any.
func (m *Mailbox) lookApart(ctx context.Context, r *reading) error {
	any := false
	err := m.locked(ctx, syncLockWait, func() (err error) {
		any, err = m.separate(r)
		return err
	})
	m.Tried("give two files of one name names of their own", err)
	switch {
	case errors.Is(err, ErrGone):
		return err
	case errors.Is(err, ErrLocked):
		m.hints.add("", false) // the next look tries again
	}
	if !any {
		return nil // one of the two is shown
	}
	if err := m.scanInstead(r); err != nil {
		return err
	}
	if r.assign() > 0 {
		return m.lookTwice(r)
	}
	return nil
}

// separate gives one of two files that have one base name a name of its own, as Dovecot does: it is another
// message, of which nobody would know. The one that is known, or else the older one, stays what it is. It runs
// under the lock, where nobody renames or replaces files who keeps to it.
func (m *Mailbox) separate(r *reading) (any bool, err error) {
	for _, pair := range r.pairs {
		var st [2]fileStat
		there := true
		for i, f := range pair {
			st[i], err = m.d.stat(f.path())
			if err != nil && !notExist(err) {
				return any, err
			}
			there = there && err == nil && st[i].mode.IsRegular()
		}
		if !there || st[0].id == st[1].id { // one that was renamed, or that has two links
			continue
		}
		base, _ := splitName(pair[0].name)
		other := 1
		if later := st[0].ctime.Nano() > st[1].ctime.Nano(); later {
			other = 0
		}
		if i := r.places.find(r.prev, base); i >= 0 {
			for j, f := range pair {
				if r.prev.Messages[i].file == f.file {
					other = 1 - j
				}
			}
		}
		f := pair[other]
		now := found{name: newBase(time.Now()) + f.name[len(base):], inNew: f.inNew}
		if err := m.d.renameFresh(f.path(), m.d, now.path()); err != nil {
			return any, err
		}
		any = true
		m.acct.log().Warn("two files of one name: one has another name now", "mailbox", m.Name(), "file", f.path(), "now", now.path())
	}
	return any, nil
}

// heardMeanwhile returns the names that were heard since hints were taken last, nil if there may be more.
func (m *Mailbox) heardMeanwhile() (map[string]struct{}, error) {
	// A rename shows a moment before the kernel tells of it, but holds the directory all the time: who
	// has read an entry of it has waited for that.
	for _, part := range []string{"new", "cur"} {
		if err := m.d.readOne(part); err != nil {
			return nil, err
		}
	}
	if !m.settle() {
		return nil, nil
	}
	names, all := m.hints.take()
	if all {
		return nil, nil
	}
	if names == nil {
		names = map[string]struct{}{}
	}
	return names, nil
}

// comes reports whether one of the names is that of a message which has a UID already, and is in no snapshot yet. It can't
// be left for the next look: its UID would be below UIDNEXT then, and it would get another one.
func (r *reading) comes(names map[string]struct{}) bool {
	if r.list == nil {
		return false
	}
	bases := make(map[string]bool, len(names))
	for name := range names {
		base, _ := splitName(name[len("cur/"):])
		bases[base] = r.places.find(r.prev, base) < 0
	}
	first, _ := r.news()
	return slices.ContainsFunc(r.list.records[first:], func(rec uidRecord) bool { return bases[rec.base] })
}

// leaveOpen takes for unchanged, until the next look, what is renamed so fast that it can't be met.
func (m *Mailbox) leaveOpen(r *reading, names map[string]struct{}) {
	for name := range names {
		base, _ := splitName(name[len("cur/"):])
		if i := r.places.find(r.prev, base); i >= 0 && r.state[i] == sought {
			r.state[i] = met // as far as is known
		}
		if m.hints.add(name, m.hints.awaited()) {
			go m.lookNow()
		}
	}
	r.assign()
}

// meet notes that a file is there. Of two files with one base name the last one counts.
func (r *reading) meet(f found) {
	base, _ := splitName(f.name)
	i := r.places.find(r.prev, base)
	if i < 0 {
		if before, ok := r.files[base]; ok && !before.sameName(f) {
			r.pair(base, before, f)
		}
		r.files[base] = f
		return
	}
	if before, ok := r.foundAt(i); ok && !before.sameName(f) {
		r.pair(base, before, f)
	}
	if msg := r.prev.Messages[i]; msg.name == f.name && msg.InNew == f.inNew && msg.isIn(f) {
		r.set(i, met)
		delete(r.at, i)
	} else {
		r.set(i, moved)
		r.at[i] = f
	}
}

// pair notes two names of one base name.
func (r *reading) pair(base string, f, g found) {
	r.twins[base] = struct{}{}
	if f.file != g.file {
		r.pairs = append(r.pairs, [2]found{f, g})
	}
}

// lookForLate looks for files whose records another program has just written, by the names that they have at first: that is less
// work than to read the directories, under the lock above all. What has other names is found by that.
func (m *Mailbox) lookForLate(r *reading) error {
	if len(r.late) == 0 || len(r.late) > slice {
		return nil
	}
	names := make(map[string]struct{}, 3*len(r.late))
	for _, base := range r.late {
		for _, name := range []string{"new/" + base, "cur/" + base, "cur/" + base + ":2,"} {
			names[name] = struct{}{}
		}
	}
	return m.lookAt(r, names)
}

// lookAt looks at files by their names.
func (m *Mailbox) lookAt(r *reading, names map[string]struct{}) error {
	r.reopen()
	sorted := slices.SortedFunc(maps.Keys(names), func(a, b string) int { return cmp.Compare(b, a) })
	var there []found          // after those that are not: most have another name now
	for _, p := range sorted { // new/ first, as in a scan
		part, name, _ := strings.Cut(p, "/")
		st, err := m.d.stat(p)
		switch {
		case err != nil && !notExist(err):
			return err
		case err == nil && m.isMessage(part, name, st.mode.IsRegular()):
			there = append(there, found{name, part == "new", tagOf(st.id.ino)})
		case listedName(name):
			if err := m.miss(r, names, name, part == "new"); err != nil {
				return err
			}
		}
	}
	for _, f := range there {
		r.meet(f)
	}
	for _, f := range there { // is one that was renamed still there under its old name, too?
		base, _ := splitName(f.name)
		i := r.places.find(r.prev, base)
		if now, ok := r.at[i]; !ok || !now.sameName(f) {
			continue
		}
		msg := r.prev.Messages[i]
		if _, heard := names[msg.path()]; heard {
			continue
		}
		if st, err := m.d.stat(msg.path()); err == nil {
			r.pair(msg.Key(), found{msg.name, msg.InNew, tagOf(st.id.ino)}, f)
		} else if !notExist(err) {
			return err
		}
	}
	return nil
}

// foundAt is the file of a message of prev that this reading has met.
func (r *reading) foundAt(place int) (found, bool) {
	switch r.state[place] {
	case met:
		msg := r.prev.Messages[place]
		return found{msg.name, msg.InNew, msg.file}, true
	case moved:
		return r.at[place], true
	}
	return found{}, false
}

// miss notes that a file is not there. If it is one of a message's former names, the message's own file
// is looked at, unless it is among the names that are looked at.
func (m *Mailbox) miss(r *reading, names map[string]struct{}, name string, inNew bool) error {
	base, _ := splitName(name)
	if _, ok := r.twins[base]; ok {
		r.doubt = true
	}
	i := r.places.find(r.prev, base)
	if i < 0 {
		if f := r.files[base]; f.name == name && f.inNew == inNew {
			delete(r.files, base)
		}
		return nil
	}
	if f := r.at[i]; r.state[i] == moved && (f.name != name || f.inNew != inNew) {
		return nil
	}
	delete(r.at, i)
	r.set(i, sought)
	msg := r.prev.Messages[i]
	if _, heard := names[msg.path()]; heard {
		return nil // its own file is looked at as well
	}
	if st, err := m.d.stat(msg.path()); err == nil && st.mode.IsRegular() {
		r.set(i, met)
	} else if err != nil && !notExist(err) {
		return err
	}
	return nil
}

// reopen takes back what was assigned to records: another look may find other files.
func (r *reading) reopen() {
	for _, msg := range r.came {
		r.files[msg.Key()] = found{msg.name, msg.InNew, msg.file}
	}
	r.came, r.fresh = r.came[:0], r.fresh[:0]
}

// assign gives the files that were found to the messages that are known: those of the previous
// snapshot, then those of the list. It can be called again after another look, and returns how
// many messages have no file yet.
func (r *reading) assign() (missing int) {
	r.reopen()
	first, again := r.news()
	r.known, r.changed, r.lost = nil, r.changed[:0], r.lost[:0]
	if r.names == nil {
		r.known = make([]*Message, 0, len(r.prev.Messages)+1)
		for i := range r.prev.Messages {
			missing += r.assignKnown(i, again[i])
		}
	} else {
		places := slices.Clone(r.touched)
		for i := range again {
			places = append(places, i)
		}
		slices.Sort(places)
		from := 0
		for _, i := range slices.Compact(places) {
			if r.state[i] == met && !again[i] {
				continue
			}
			if r.known == nil {
				r.known = make([]*Message, 0, len(r.prev.Messages)+1)
			}
			r.known = append(r.known, r.prev.Messages[from:i]...)
			missing += r.assignKnown(i, again[i])
			from = i + 1
		}
		if r.known != nil {
			r.known = append(r.known, r.prev.Messages[from:]...)
		}
	}
	r.late = r.late[:0]
	if r.list == nil {
		return missing
	}
	for _, rec := range r.list.records[first:] {
		if f, ok := r.files[rec.base]; ok {
			r.take(rec, f)
		} else {
			r.late = append(r.late, rec.base)
		}
	}
	return missing + len(r.late)
}

// assignKnown decides what became of one message of the previous snapshot.
func (r *reading) assignKnown(i int, again bool) (missing int) {
	msg, state := r.prev.Messages[i], r.state[i]
	if state == unread && r.names == nil && (msg.InNew && r.readNew || !msg.InNew && r.readCur) {
		state = sought
	}
	switch {
	case again:
		r.lost = append(r.lost, msg)
		switch state {
		case moved:
			r.files[msg.Key()] = r.at[i]
		case sought:
			delete(r.files, msg.Key())
		default:
			r.files[msg.Key()] = found{msg.name, msg.InNew, msg.file}
		}
		return 0
	case state == sought:
		r.lost = append(r.lost, msg)
		return 1
	case state == moved:
		msg = msg.in(r.at[i], r.number)
		r.changed = append(r.changed, msg)
	}
	r.known = append(r.known, msg)
	return 0
}

// still are the messages of the previous snapshot that are still there.
func (r *reading) still() []*Message {
	if r.known == nil {
		return r.prev.Messages
	}
	return r.known
}

// nothing reports whether all is as it was in the previous snapshot.
func (r *reading) nothing() bool {
	return r.names != nil && r.known == nil && len(r.came)+len(r.files) == 0 && !r.readList && !r.readKeys
}

// news finds the first record that the previous snapshot can't know, and the places of messages in
// that snapshot whose base name such a record gives to a file: the message is gone, although a file of that
// name is there again.
func (r *reading) news() (first int, again map[int]bool) {
	if r.list == nil {
		return 0, nil
	}
	first, _ = slices.BinarySearchFunc(r.list.records, r.prev.UIDNext, func(rec uidRecord, uid imap.UID) int {
		return cmp.Compare(rec.uid, uid)
	})
	for _, rec := range r.list.records[first:] {
		if i := r.places.find(r.prev, rec.base); i >= 0 {
			if again == nil {
				again = map[int]bool{}
			}
			again[i] = true
		}
	}
	return first, again
}

// take makes the message of a record and its file.
func (r *reading) take(rec uidRecord, f found) {
	msg := &Message{UID: rec.uid, Flags: parseFlags(f.name), InNew: f.inNew, file: f.file, Number: r.number, name: f.name}
	if w, ok := rec.field('W'); ok {
		if n, err := strconv.ParseInt(w, 10, 64); err == nil && n >= 0 {
			msg.size.Store(n + 1)
		}
	}
	r.came = append(r.came, msg)
	delete(r.files, rec.base)
	if f.inNew || r.prev.Number > 0 {
		r.fresh = append(r.fresh, rec.uid)
	}
}

// hasNew reports whether there is mail in new/.
func (r *reading) hasNew() bool {
	for _, f := range r.files {
		if f.inNew {
			return true
		}
	}
	return r.prev.inNew > 0 || slices.ContainsFunc(r.came, func(msg *Message) bool { return msg.InNew })
}
