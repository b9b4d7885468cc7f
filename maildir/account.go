package maildir

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/emersion/go-imap/v2"
)

const (
	// useFile holds a mailbox's special use, one attribute a line; Dovecot has no file for it.
	useFile = "imapmaildir.special-use"
	// folderFile marks a directory as a Maildir++ folder.
	folderFile = "maildirfolder"
	// sharedFile says to Dovecot that the folder is shared. Where the root has it, new folders get it.
	sharedFile = "dovecot-shared"
)

// An Account is one user's mailboxes: a root directory and what is open of it in this process.
// All methods may be called by several goroutines.
type Account struct {
	opts    Options // immutable
	mail    *tree   // immutable; all mailboxes but INBOX are in it
	inbox   *tree   // immutable; INBOX: mail, if it has no place of its own
	control *tree   // immutable; what Dovecot calls control files: mail, if they have no place of their own
	quota   quota

	scans atomic.Uint64

	// names serialises what this process does to names: CREATE, DELETE, RENAME. It is taken
	// first and held during I/O.
	names sync.Mutex

	mu     sync.Mutex          // guards what follows; taken before Mailbox.mu; not held during I/O
	known  map[fileID]*Mailbox // all that are in use or kept
	kept   []*Mailbox          // those that nobody uses, the one that was left last at the end
	moved  map[string]string   // storage names: that of a mailbox that was renamed → its present one
	moving map[string]string   // storage names that a RENAME is changing now → the new ones
}

// Open opens an account. A root that does not exist is made, and so is an INBOX that does not exist, for
// their owner alone, as delivery agents do. One process opens a root once.
func Open(root string, o *Options) (*Account, error) {
	a := &Account{known: map[fileID]*Mailbox{}, moved: map[string]string{}}
	if o != nil {
		a.opts = *o
	}
	if err := a.opts.Check(); err != nil {
		return nil, err
	}
	fresh, err := a.openTrees(root, makeTree)
	if err != nil {
		return nil, err
	}
	a.quota.a = a
	if err := a.sweep(); err != nil { // what a crash left; a place that can't be read shows later
		a.log().Warn("look for deleted mailboxes", "root", a.Root(), "err", err)
	}
	if fresh {
		if err := a.inbox.makeParts(a.inbox.root, ".", access{0o700, -1}); err != nil {
			a.Close()
			return nil, err
		}
	}
	return a, nil
}

// openTrees opens the account's directories. fresh is whether that of INBOX was made.
func (a *Account) openTrees(root string, open func(where string, log func() *slog.Logger) (t *tree, fresh bool, err error)) (fresh bool, err error) {
	defer func() {
		if err != nil {
			a.closeTrees()
		}
	}()
	if a.mail, fresh, err = open(root, a.log); err != nil {
		return false, err
	}
	a.inbox, a.control = a.mail, a.mail
	if a.opts.Inbox != "" {
		var t *tree
		if t, fresh, err = open(a.opts.Inbox, a.log); err != nil {
			return false, err
		}
		a.inbox = t
	}
	if a.opts.Control != "" {
		t, made, err := open(a.opts.Control, a.log)
		if err != nil {
			return false, err
		}
		a.control = t
		if made { // as Dovecot makes it
			acc, err := a.mail.access()
			if err == nil {
				err = t.root.giveAccess(".", acc)
			}
			if err != nil {
				return false, err
			}
		}
	}
	return fresh, nil
}

func (a *Account) closeTrees() error {
	var errs []error
	for i, t := range []*tree{a.mail, a.inbox, a.control} {
		if t != nil && (i == 0 || t != a.mail) {
			errs = append(errs, t.close())
		}
	}
	return errors.Join(errs...)
}

// Close closes the root and what is kept. No mailbox may be in use.
func (a *Account) Close() error {
	a.quota.close()
	a.mu.Lock()
	kept := a.kept
	a.kept = nil
	for _, m := range kept {
		delete(a.known, m.id)
	}
	a.mu.Unlock()
	closeAll(kept)
	return a.closeTrees()
}

// Stands reports whether the account's directories are still those that were opened: none was moved,
// deleted or made again.
func (a *Account) Stands() bool { return a.mail.stands() && a.inbox.stands() && a.control.stands() }

// Away is the error of a directory of the account's that has no other one in its place; nil if there is none. It may
// come back.
func (a *Account) Away() error {
	for _, t := range []*tree{a.mail, a.inbox, a.control} {
		if _, err := identify(t.where); notExist(err) {
			return err
		}
	}
	return nil
}

// replaced reports whether another directory has taken the place of one of the account's.
func (a *Account) replaced() bool {
	return a.mail.replaced() || a.inbox != a.mail && a.inbox.replaced() || a.control != a.mail && a.control.replaced()
}

// Root is the account's directory.
func (a *Account) Root() string { return a.mail.where }

// at is where a mailbox's directory is.
func (a *Account) at(storage string) (t *tree, rel string) {
	if storage == "INBOX" {
		return a.inbox, "."
	}
	return a.mail, a.opts.path(storage)
}

// Separator is the hierarchy separator in mailbox names.
func (a *Account) Separator() rune { return a.opts.separator() }

// Prefix is what mailbox names begin with, but for INBOX.
func (a *Account) Prefix() string { return a.opts.Prefix }

// Scans counts how often a new/ or a cur/ was read.
func (a *Account) Scans() uint64 { return a.scans.Load() }

// OpenMailboxes counts the mailboxes that are in use.
func (a *Account) OpenMailboxes() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.known) - len(a.kept)
}

func (a *Account) log() *slog.Logger {
	if a.opts.Logger != nil {
		return a.opts.Logger
	}
	return slog.Default()
}

// MakeFile makes an empty file in the root, with the mode and the group that files have there. One that is
// there stays as it is.
func (a *Account) MakeFile(name string) error {
	acc, err := a.mail.access()
	if err != nil {
		return err
	}
	f, err := a.mail.root.create(name, acc)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return f.Close()
}

// accessOf is that of a new mailbox: as the one it is below has it, or as the root.
func (a *Account) accessOf(storage string) (access, error) {
	for {
		i := strings.LastIndex(storage, a.opts.storageSeparator())
		if i < 0 {
			return a.mail.access()
		}
		storage = storage[:i]
		t, rel := a.at(storage)
		if st, err := t.statDir(rel); err == nil && st.mode.IsDir() {
			return st.access(), nil
		}
	}
}

// An Entry is a name that LIST shows.
type Entry struct {
	Name string
	// Selectable is whether there is a mailbox, not just names below it.
	Selectable bool
	// SpecialUse is what the mailbox was created for (RFC 6154).
	SpecialUse []imap.MailboxAttr

	storage string
}

// List returns INBOX first, then the other mailboxes and the names above them in order.
func (a *Account) List() ([]Entry, error) {
	storages, err := a.storages()
	if err != nil {
		return nil, err
	}
	sep := string(a.Separator())
	byName := map[string]Entry{"INBOX": {Name: "INBOX", Selectable: true, storage: "INBOX"}}
	for storage, selectable := range storages {
		name, canonical := a.opts.mailboxName(storage)
		if name == "" || strings.EqualFold(name, "INBOX") {
			continue
		}
		if e, ok := byName[name]; ok && (e.Selectable || !canonical) {
			continue // two directories of one name: the one that is spelled right
		}
		byName[name] = Entry{Name: name, Selectable: selectable, storage: storage}
	}
	for name := range byName {
		for {
			i := strings.LastIndex(name, sep)
			if i <= 0 {
				break
			}
			name = name[:i]
			if _, ok := byName[name]; !ok {
				byName[name] = Entry{Name: name}
			}
		}
	}
	entries := make([]Entry, 0, len(byName))
	for _, e := range byName {
		if e.Selectable {
			e.SpecialUse = a.specialUse(e.storage)
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(x, y Entry) int {
		switch {
		case x.Name == "INBOX":
			return -1
		case y.Name == "INBOX":
			return 1
		}
		return strings.Compare(x.Name, y.Name)
	})
	return entries, nil
}

// storages are the storage names of all directories that may be mailboxes, and whether they are.
func (a *Account) storages() (map[string]bool, error) {
	found := map[string]bool{}
	if a.opts.Layout == LayoutFS {
		err := a.walk(".", found)
		maps.DeleteFunc(found, func(rel string, _ bool) bool { return a.isOwn(rel) })
		return found, err
	}
	entries, err := a.mail.readDir(".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, ".") || strings.HasPrefix(name, "..") || name == "." {
			continue
		}
		if a.mail.isDir(name, e) && !a.isOwn(name) {
			found[name[1:]] = true
		}
	}
	return found, nil
}

// isOwn reports whether a directory in the root is that of INBOX, or one of control files, and no mailbox besides.
func (a *Account) isOwn(rel string) bool {
	if inbox, ok := a.mail.holds(a.inbox); ok && rel == inbox {
		return true
	}
	control, ok := a.mail.holds(a.control)
	return ok && (rel == control || strings.HasPrefix(rel, control+"/"))
}

// walk finds the directories below one in the fs layout.
func (a *Account) walk(rel string, found map[string]bool) error {
	entries, err := a.mail.readDir(rel)
	if notExist(err) {
		return nil // removed meanwhile
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if isMaildirPart(name) {
			if rel != "." && name == "cur" && e.IsDir() {
				found[rel] = true
			}
			continue
		}
		if !e.IsDir() || strings.HasPrefix(name, "..") {
			continue // a symlink may lead round in a circle
		}
		sub := path.Join(rel, name)
		if _, ok := found[sub]; !ok {
			found[sub] = false
		}
		if err := a.walk(sub, found); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

func isMaildirPart(name string) bool { return name == "cur" || name == "new" || name == "tmp" }

// storageOf finds the storage name of a mailbox that clients call name: what the name is spelled
// like on disk, or a directory that another program spelled in its own way.
func (a *Account) storageOf(name string) (string, error) {
	storage, err := a.opts.storageName(name)
	if err == nil && storage != "INBOX" && a.isOwn(a.opts.path(storage)) {
		return "", ErrNoMailbox
	}
	if err == nil {
		t, rel := a.at(storage)
		if _, serr := t.stat(rel); serr == nil {
			return storage, nil
		} else if !notExist(serr) && !errors.Is(serr, syscall.ENOTDIR) {
			return "", serr
		}
	}
	if s, ok, oerr := a.spelledOtherwise(name); ok || oerr != nil {
		return s, oerr
	}
	if err != nil {
		return "", err
	}
	return "", ErrNoMailbox
}

// spelledOtherwise finds a directory that clients know by a name and that storageName does not lead to.
func (a *Account) spelledOtherwise(name string) (storage string, ok bool, err error) {
	storages, err := a.storages()
	if err != nil {
		return "", false, err
	}
	for s := range storages {
		if n, canonical := a.opts.mailboxName(s); !canonical && n == name {
			return s, true, nil
		}
	}
	return "", false, nil
}

// Mailbox opens a mailbox. It returns ErrNoMailbox where there is none of that name, and ErrBadPlace
// where there can be none. Other programs leave out directories that they don't need yet: those are
// made, in a mailbox that is there.
func (a *Account) Mailbox(name string, o RefOptions) (*Ref, error) {
	storage, err := a.storageOf(name)
	if err != nil {
		return nil, err
	}
	t, rel := a.at(storage)
	d, err := t.openDir(rel)
	if notExist(err) || errors.Is(err, syscall.ENOTDIR) {
		return nil, ErrNoMailbox
	} else if err != nil {
		return nil, err
	}
	st, err := d.stat("")
	if err == nil && a.opts.Layout == LayoutFS && rel != "." {
		if _, serr := d.stat("cur"); notExist(serr) {
			err = ErrNoMailbox // a name above others only
		}
	}
	if err == nil {
		if err = t.makeParts(d, rel, st.access()); notExist(err) {
			err = ErrNoMailbox // removed since it was opened
		}
	}
	if err != nil {
		d.close()
		return nil, err
	}

	o.ReadOnly = o.ReadOnly || o.Selected && !(d.mayChange(".") && d.mayChange("cur"))

	a.mu.Lock()
	m, dropped := a.known[st.id], a.dropMoved(st.id, storage)
	if dropped != nil {
		m = nil
		defer closeAll(dropped)
	}
	control := d
	if m == nil && a.apart() {
		a.mu.Unlock()
		if control, err = a.openControl(storage); err != nil {
			d.close()
			return nil, err
		}
		a.mu.Lock()
		m = a.known[st.id] // by now
	}
	if m == nil {
		d.tally = &tally{}
		m = &Mailbox{
			acct:      a,
			d:         d,
			control:   control,
			controlAt: a.opts.controlPath(storage),
			id:        st.id,
			storage:   storage,
			warned:    map[string]struct{}{},
			refs:      map[*Ref]struct{}{},
			changed:   make(chan struct{}),
			disk:      newDiskMutex(),
			use:       use{id: newUseID()},
		}
		m.snap.Store(&Snapshot{})
		a.known[st.id] = m
	} else {
		defer d.close()
		if control != d {
			defer control.close()
		}
	}
	r := &Ref{Mailbox: m, opts: o}
	m.mu.Lock()
	r.told.Store(m.snap.Load().Number)
	if len(m.refs) == 0 {
		m.storage = storage // another program may have renamed it while nobody looked
	}
	m.refs[r] = struct{}{}
	m.mu.Unlock()
	dropped = a.trim()
	a.mu.Unlock()
	closeAll(dropped)
	if o.Selected {
		m.enter(r)
	}
	return r, nil
}

// dropMoved takes out of those that are kept the one that has another name by now, where control files are
// found by the name. The caller holds mu, and closes it.
func (a *Account) dropMoved(id fileID, storage string) []*Mailbox {
	i := slices.IndexFunc(a.kept, func(m *Mailbox) bool { return m.id == id })
	if !a.apart() || i < 0 {
		return nil
	}
	m := a.kept[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.refs) > 0 || m.storage == storage {
		return nil
	}
	a.kept = slices.Delete(a.kept, i, i+1)
	delete(a.known, id)
	return []*Mailbox{m}
}

// trim brings the kept mailboxes down to what they may be, and returns those that are to be closed:
// first of all those whose name another directory has now, then those that were left longest ago.
// The caller holds mu.
func (a *Account) trim() (dropped []*Mailbox) {
	taken := map[string]bool{}
	messages := 0
	for _, m := range a.known {
		m.mu.Lock()
		if len(m.refs) > 0 {
			taken[m.storage] = true
		}
		m.mu.Unlock()
	}
	kept := a.kept
	a.kept = nil
	for _, m := range slices.Backward(kept) { // from the one that was left last
		m.mu.Lock()
		used, again := len(m.refs) > 0, taken[m.storage]
		taken[m.storage] = true
		m.mu.Unlock()
		if used {
			continue
		}
		n := len(m.Snapshot().Messages)
		if again || len(a.kept) >= a.opts.keepMailboxes() || messages+n > a.opts.keepMessages() {
			delete(a.known, m.id)
			dropped = append(dropped, m)
			continue
		}
		messages += n
		a.kept = append(a.kept, m)
	}
	slices.Reverse(a.kept)
	return dropped
}

// closeAll closes mailboxes that are not known any more.
func closeAll(dropped []*Mailbox) {
	for _, m := range dropped {
		m.disk.Lock() // a look that was under way ends first
		m.d.close()
		if m.acct.apart() {
			m.control.close()
		}
		m.disk.Unlock()
	}
}

// forget takes a mailbox that is gone out of those that can be opened.
func (a *Account) forget(m *Mailbox) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known[m.id] == m {
		delete(a.known, m.id)
	}
}

// Create makes a mailbox, with a special use if one is given. It returns ErrMailboxExists, or a
// *NameError that says what is wrong with the name.
func (a *Account) Create(ctx context.Context, name string, use []imap.MailboxAttr) error {
	a.names.Lock()
	defer a.names.Unlock()
	storage, err := a.opts.storageName(name)
	if err != nil {
		return err
	}
	if storage == "INBOX" {
		return ErrMailboxExists
	}
	if err := a.free(storage); err != nil {
		return err
	}
	acc, err := a.accessOf(storage)
	if err != nil {
		return err
	}
	rel := a.opts.path(storage)
	if a.opts.Layout == LayoutFS {
		if err := a.mail.makeParents(rel, acc); err != nil {
			return err
		}
	}
	above, base, err := a.mail.parent(rel)
	if err != nil {
		return err
	}
	defer above.close()
	err = above.mkdir(base, acc)
	exists := errors.Is(err, fs.ErrExist)
	if err != nil && !exists {
		return err
	}
	d, err := a.mail.openDir(rel)
	if exists && (notExist(err) || errors.Is(err, syscall.ENOTDIR)) {
		return a.mail.badPlace(rel, err)
	} else if err != nil {
		return err
	}
	defer d.close()
	if exists {
		if _, serr := d.stat("cur"); a.opts.Layout != LayoutFS || serr == nil {
			return ErrMailboxExists
		}
	}
	err = a.dropControl(storage)
	if err == nil {
		err = a.fill(ctx, name, rel, d, acc, use)
	}
	if err != nil {
		a.unmake(d, storage)
		if !exists {
			above.rmdir(base) // fails if something else is in it by now
		}
		return err
	}
	a.mu.Lock()
	delete(a.moved, storage)
	a.mu.Unlock()
	return a.mail.fsyncAbove(rel)
}

// unmake takes back what fill made, unless mail has come in.
func (a *Account) unmake(d *dir, storage string) {
	for _, part := range []string{"new", "cur", "tmp"} {
		if err := d.rmdir(part); err != nil && !notExist(err) {
			return
		}
	}
	for _, name := range []string{folderFile, sharedFile, useFile, listFile} {
		d.remove(name)
	}
	a.dropControl(storage)
}

// fill makes a mailbox of the directory d, which is at rel.
func (a *Account) fill(ctx context.Context, name, rel string, d *dir, acc access, use []imap.MailboxAttr) error {
	if err := a.mail.makeParts(d, rel, acc); err != nil {
		return err
	}
	var marks []string
	if a.opts.Layout == LayoutMaildirpp {
		marks = append(marks, folderFile)
	}
	if _, err := a.mail.root.stat(sharedFile); err == nil {
		marks = append(marks, sharedFile)
	}
	for _, name := range marks {
		if f, err := d.replace(name, acc); err != nil {
			return err
		} else if err := f.Close(); err != nil {
			return err
		}
	}
	if len(use) > 0 {
		var b strings.Builder
		for _, attr := range use {
			b.WriteString(string(attr) + "\n")
		}
		if err := d.writeFile(useFile, useFile+".tmp", []byte(b.String()), acc); err != nil {
			return err
		}
	}
	r, err := a.Mailbox(name, RefOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = r.Sync(ctx) // gives it a UIDVALIDITY
	return err
}

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

func (a *Account) specialUse(storage string) []imap.MailboxAttr {
	t, rel := a.at(storage)
	f, err := t.root.open(path.Join(rel, useFile))
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, 512)
	n, _ := f.Read(b)
	var use []imap.MailboxAttr
	for _, line := range strings.Fields(string(b[:n])) {
		use = append(use, imap.MailboxAttr(line))
	}
	return use
}

// errINBOX is why INBOX stays.
var errINBOX = &NameError{Name: "INBOX", Reason: "cannot be deleted"}

// Delete deletes a mailbox with its mail; mailboxes below it stay. Of one that is a symlink, only
// that goes. With keep, those who have it
// selected, here or in other processes, go on with it; nobody else finds it, and nobody gets its name
// before the last of them has left (draft 3.2). Otherwise whoever has it open finds it gone. In
// LayoutFS a mailbox that has others below it can't be kept.
func (a *Account) Delete(ctx context.Context, name string, keep bool) error {
	a.names.Lock()
	defer a.names.Unlock()
	storage, err := a.storageOf(name)
	if err != nil {
		return err
	}
	if storage == "INBOX" {
		return errINBOX
	}
	r, err := a.Mailbox(name, RefOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	deleted := goneError("Mailbox " + name + " has been deleted")
	if removed, err := a.mail.removeLink(a.opts.path(storage)); err != nil {
		return err
	} else if removed {
		r.vanish(deleted) // for those who have it open by its other name, too
		return nil
	}
	if err := r.disk.lock(ctx, lockWait); err != nil {
		return err
	}
	defer r.disk.Unlock()
	if keep {
		used, err := r.InUse()
		if err != nil {
			return err
		}
		below, err := a.hasBelow(a.opts.path(storage))
		if err != nil {
			return err
		}
		if used && !below {
			return a.setAside(ctx, r.Mailbox, storage)
		}
	}
	aside := "tmp/" + newBase(time.Now()) + asideSuffix
	if err := a.makeAsides(); err != nil {
		return err
	}
	err = r.locked(ctx, lockWait, func() error {
		err := a.moveAside(r.d, storage, aside)
		if err == nil {
			a.setControlAside(storage, aside)
		}
		return err
	})
	if err != nil {
		return err
	}
	r.vanish(deleted)
	// First of all it is gone for good: what came back after the power went would lack a part of its mail.
	if err := a.mail.fsync(path.Dir(a.opts.path(storage))); err != nil {
		return err
	}
	return a.removeAside(aside)
}

// hasBelow reports whether a mailbox's directory holds other mailboxes.
func (a *Account) hasBelow(rel string) (bool, error) {
	if a.opts.Layout != LayoutFS {
		return false, nil
	}
	entries, err := a.mail.readDir(rel)
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.IsDir() && !isMaildirPart(e.Name()) }), err
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
			guarded: listFile, wait: wait, access: st.access(),
			waiting: func(w LockWait) error {
				if w.Waited < stuckAfter {
					return nil
				}
				return tellWait(ctx, w)
			},
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

// Subscriptions are the names that LSUB shows, whether or not there is such a mailbox.
func (a *Account) Subscriptions() ([]string, error) {
	s, problems, err := a.readSubscriptions()
	if err != nil {
		return nil, err
	}
	for _, p := range problems {
		if a.control.first(p.Error()) {
			a.log().Warn("damage", "err", p)
		}
	}
	var names []string
	for _, storage := range s.names {
		name, _ := a.opts.mailboxName(storage)
		names = append(names, name)
	}
	return names, nil
}

// Subscribe adds a name to the subscriptions or takes it away; there need not be such a mailbox.
func (a *Account) Subscribe(ctx context.Context, name string, on bool) error {
	storage, err := a.opts.storageName(name)
	if err != nil {
		if found, ferr := a.storageOf(name); ferr == nil {
			storage = found
		} else {
			return err
		}
	}
	return a.updateSubscriptions(ctx, func(s *subscriptions) {
		if on {
			s.add(storage)
		} else {
			s.remove(storage)
		}
	})
}
