package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
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
)

// An Account is one user's mailboxes: a root directory and what is open of it in this process.
// All methods may be called by several goroutines.
type Account struct {
	opts  Options  // immutable
	where string   // immutable; the root's path, for logs and watches
	fsys  *os.Root // immutable; nothing outside can be reached through it
	root  *dir     // immutable
	id    fileID   // immutable; of the root

	scans atomic.Uint64

	// names serialises what this process does to names: CREATE, DELETE, RENAME. It is taken
	// first and held during I/O.
	names sync.Mutex

	mu     sync.Mutex          // guards what follows; taken before Mailbox.mu; not held during I/O
	known  map[fileID]*Mailbox // all that are in use or kept
	kept   []*Mailbox          // those that nobody uses, the one that was left last at the end
	moved  map[string]string   // storage names: that of a mailbox that was renamed → its present one
	moving map[string]string   // storage names that a RENAME is changing now → the new ones
	warned map[string]struct{} // places that were complained about
}

// Open opens an account. A root that does not exist is made, with an INBOX in it, for its owner
// alone, as delivery agents do. One process opens a root once.
func Open(root string, o *Options) (*Account, error) {
	a := &Account{known: map[fileID]*Mailbox{}, moved: map[string]string{}, warned: map[string]struct{}{}}
	if o != nil {
		a.opts = *o
	}
	where, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	a.where = where
	fresh, err := makeRoot(where)
	if err != nil {
		return nil, err
	}
	if a.fsys, err = os.OpenRoot(where); err != nil {
		return nil, err
	}
	f, err := a.fsys.Open(".")
	if err != nil {
		a.fsys.Close()
		return nil, err
	}
	a.root = &dir{f: f}
	st, err := statFile(f)
	if err != nil {
		a.Close()
		return nil, err
	}
	a.id = st.id
	if err := a.sweep(); err != nil { // what a crash left; a place that can't be read shows later
		a.log().Warn("look for deleted mailboxes", "root", where, "err", err)
	}
	if fresh {
		if err := a.makeParts(a.root, ".", 0o700); err != nil {
			a.Close()
			return nil, err
		}
	}
	return a, nil
}

// makeRoot makes an account's root and the directories above it where they are missing, and their
// entries durable: mail is acknowledged in them. fresh is whether the root was missing.
func makeRoot(where string) (fresh bool, err error) {
	made := where
	for {
		if _, err := os.Stat(made); !notExist(err) {
			break
		}
		fresh = true
		made = filepath.Dir(made)
	}
	if err := os.MkdirAll(where, 0o700); err != nil {
		return false, err
	}
	for p := where; p != made; {
		p = filepath.Dir(p)
		f, err := os.Open(p)
		if err != nil {
			return false, err
		}
		err = f.Sync()
		f.Close()
		if err != nil {
			return false, err
		}
	}
	return fresh, nil
}

// Close closes the root and what is kept. No mailbox may be in use.
func (a *Account) Close() error {
	a.mu.Lock()
	kept := a.kept
	a.kept = nil
	for _, m := range kept {
		delete(a.known, m.id)
	}
	a.mu.Unlock()
	closeAll(kept)
	return errors.Join(a.root.close(), a.fsys.Close())
}

// Stands reports whether the root is still the directory that was opened: it was not moved, deleted
// or made again.
func (a *Account) Stands() bool {
	id, err := identify(a.where)
	return err == nil && id == a.id
}

// replaced reports whether another directory has taken the root's place. One that was only moved away
// may come back.
func (a *Account) replaced() bool {
	id, err := identify(a.where)
	return err == nil && id != a.id
}

// Root is the account's directory.
func (a *Account) Root() string { return a.where }

// Separator is the hierarchy separator in mailbox names.
func (a *Account) Separator() rune { return a.opts.separator() }

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

func (a *Account) join(rel string) string { return filepath.Join(a.where, rel) }

// rootPerm is the mode that new folders take.
func (a *Account) rootMode() (fs.FileMode, error) {
	st, err := a.root.stat("")
	return st.mode, err
}

func (a *Account) nextUIDValidity() (uint32, error) {
	mode, err := a.rootMode()
	if err != nil {
		return 0, err
	}
	return nextUIDValidity(a.root, filePerm(mode))
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
		return found, a.walk(".", found)
	}
	entries, err := fs.ReadDir(a.fsys.FS(), ".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, ".") || strings.HasPrefix(name, "..") || name == "." {
			continue
		}
		if a.isDir(name, e) {
			found[name[1:]] = true
		}
	}
	return found, nil
}

// isDir reports whether an entry is a directory, or a symlink to one inside the root.
func (a *Account) isDir(rel string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	fi, err := a.fsys.Stat(rel)
	return err == nil && fi.IsDir()
}

// walk finds the directories below one in the fs layout.
func (a *Account) walk(rel string, found map[string]bool) error {
	entries, err := fs.ReadDir(a.fsys.FS(), rel)
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
	if err == nil {
		if _, serr := a.stat(a.opts.path(storage)); serr == nil {
			return storage, nil
		} else if !notExist(serr) && !errors.Is(serr, syscall.ENOTDIR) {
			return "", serr
		}
	}
	storages, lerr := a.storages()
	if lerr != nil {
		return "", lerr
	}
	for s := range storages {
		if n, canonical := a.opts.mailboxName(s); !canonical && n == name {
			return s, nil
		}
	}
	if err != nil {
		return "", err
	}
	return "", ErrNoMailbox
}

// Mailbox opens a mailbox. It returns ErrNoMailbox where there is none of that name, and ErrBadPlace
// where there can be none. Other programs leave out directories that they don't need yet: those are
// made, in a mailbox that is there.
func (a *Account) Mailbox(name string, o RefOptions) (*Ref, error) {
	storage, err := a.storageOf(name)
	if err != nil {
		return nil, err
	}
	rel := a.opts.path(storage)
	d, err := a.openDir(rel)
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
		if err = a.makeParts(d, rel, st.mode); notExist(err) {
			err = ErrNoMailbox // removed since it was opened
		}
	}
	if err != nil {
		d.close()
		return nil, err
	}

	a.mu.Lock()
	m := a.known[st.id]
	if m == nil {
		m = &Mailbox{
			acct:    a,
			d:       d,
			id:      st.id,
			storage: storage,
			warned:  map[string]struct{}{},
			refs:    map[*Ref]struct{}{},
			changed: make(chan struct{}),
			use:     use{id: newUseID()},
		}
		m.snap.Store(&Snapshot{})
		a.known[st.id] = m
	} else {
		defer d.close()
	}
	r := &Ref{Mailbox: m, opts: o}
	m.mu.Lock()
	r.told.Store(m.snap.Load().Number)
	if len(m.refs) == 0 {
		m.storage = storage // another program may have renamed it while nobody looked
	}
	m.refs[r] = struct{}{}
	m.mu.Unlock()
	dropped := a.trim()
	a.mu.Unlock()
	closeAll(dropped)
	if o.Selected {
		m.enter(r)
	}
	return r, nil
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
		m.disk.Unlock()
	}
}

// openDir opens a directory by its path from the root. Where a symlink on the way leads out or in a circle, the
// error is ErrBadPlace.
func (a *Account) openDir(rel string) (*dir, error) {
	d, err := openDir(a.fsys, rel)
	if err == nil {
		d.fault = a.root.fault
		return d, nil
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok && !errors.Is(err, syscall.ELOOP) {
		return nil, err
	}
	return nil, a.badPlace(rel, err) // os.Root's own refusal has no name
}

// parent opens the directory that the last name of a path is in.
func (a *Account) parent(rel string) (d *dir, name string, err error) {
	d, err = a.openDir(path.Dir(rel))
	if errors.Is(err, syscall.ENOTDIR) {
		err = a.badPlace(path.Dir(rel), err)
	}
	return d, path.Base(rel), err
}

// stat looks at a path without following a symlink in the last place.
func (a *Account) stat(rel string) (fileStat, error) {
	d, name, err := a.parent(rel)
	if err != nil {
		return fileStat{}, err
	}
	defer d.close()
	return d.stat(name)
}

// statDir looks at a mailbox's directory, also where it is a symlink to one.
func (a *Account) statDir(rel string) (fileStat, error) {
	st, err := a.root.stat(rel)
	if err != nil || st.mode&fs.ModeSymlink == 0 {
		return st, err
	}
	d, err := a.openDir(rel)
	if err != nil {
		return fileStat{}, err
	}
	defer d.close()
	return d.stat("")
}

// badPlace tells once why no mailbox can be at a path.
func (a *Account) badPlace(rel string, reason error) error {
	a.mu.Lock()
	_, told := a.warned[rel]
	if told = told || len(a.warned) > 1000; !told {
		a.warned[rel] = struct{}{}
	}
	a.mu.Unlock()
	if !told {
		a.log().Warn(ErrBadPlace.Error(), "path", rel, "err", reason)
	}
	return fmt.Errorf("%w: %s: %w", ErrBadPlace, rel, reason)
}

// makeParts makes cur, new and tmp of the directory at rel where they are missing, and them
// durable. Never through a symlink.
func (a *Account) makeParts(d *dir, rel string, mode fs.FileMode) error {
	made := false
	for _, part := range []string{"cur", "new", "tmp"} {
		st, err := d.stat(part)
		switch {
		case notExist(err):
			if err := d.mkdir(part, dirPerm(mode)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			made = true
		case err != nil:
			return err
		case !st.mode.IsDir():
			return a.badPlace(path.Join(rel, part), errors.New("not a directory"))
		}
	}
	if made {
		return d.fsync("")
	}
	return nil
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
	mode, err := a.rootMode()
	if err != nil {
		return err
	}
	rel := a.opts.path(storage)
	if a.opts.Layout == LayoutFS {
		if err := a.makeParents(rel, mode); err != nil {
			return err
		}
	}
	above, base, err := a.parent(rel)
	if err != nil {
		return err
	}
	defer above.close()
	err = above.mkdir(base, dirPerm(mode))
	exists := errors.Is(err, fs.ErrExist)
	if err != nil && !exists {
		return err
	}
	d, err := a.openDir(rel)
	if exists && (notExist(err) || errors.Is(err, syscall.ENOTDIR)) {
		return a.badPlace(rel, err)
	} else if err != nil {
		return err
	}
	defer d.close()
	if exists {
		if _, serr := d.stat("cur"); a.opts.Layout != LayoutFS || serr == nil {
			return ErrMailboxExists
		}
	}
	if err := a.fill(ctx, name, rel, d, mode, use); err != nil {
		unmake(d)
		if !exists {
			above.rmdir(base) // fails if something else is in it by now
		}
		return err
	}
	a.mu.Lock()
	delete(a.moved, storage)
	a.mu.Unlock()
	return a.fsyncAbove(rel)
}

// unmake takes back what fill made, unless mail has come in.
func unmake(d *dir) {
	for _, part := range []string{"new", "cur", "tmp"} {
		if err := d.rmdir(part); err != nil && !notExist(err) {
			return
		}
	}
	for _, name := range []string{folderFile, useFile, listFile} {
		d.remove(name)
	}
}

// fill makes a mailbox of the directory d, which is at rel.
func (a *Account) fill(ctx context.Context, name, rel string, d *dir, mode fs.FileMode, use []imap.MailboxAttr) error {
	if err := a.makeParts(d, rel, mode); err != nil {
		return err
	}
	if a.opts.Layout == LayoutMaildirpp {
		if f, err := d.replace(folderFile, filePerm(mode)); err != nil {
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
		if err := d.writeFile(useFile, useFile+".tmp", []byte(b.String()), filePerm(mode)); err != nil {
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

// fsyncAbove makes the entries of mailboxes durable, and in the fs layout those of the directories
// above them, so that a message that is acknowledged later is not lost with one of them.
func (a *Account) fsyncAbove(rels ...string) error {
	done := map[string]bool{}
	for _, rel := range rels {
		for rel != "." {
			rel = path.Dir(rel)
			if done[rel] {
				continue
			}
			done[rel] = true
			if err := a.fsync(rel); err != nil {
				return err
			}
		}
	}
	return nil
}

// fsync makes the entries of a directory durable.
func (a *Account) fsync(rel string) error {
	d, err := a.openDir(rel)
	if err != nil {
		return err
	}
	defer d.close()
	return d.fsync("")
}

// makeParents makes the directories above one in the fs layout.
func (a *Account) makeParents(rel string, mode fs.FileMode) error {
	if rel = path.Dir(rel); rel == "." {
		return nil
	}
	if err := a.makeParents(rel, mode); err != nil {
		return err
	}
	d, name, err := a.parent(rel)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.mkdir(name, dirPerm(mode)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// rename gives a directory another path. Nothing may be there, and no symlink on the way leads out.
func (a *Account) rename(from, to string) error {
	source, name, err := a.parent(from)
	if err != nil {
		return err
	}
	defer source.close()
	dest, newName, err := a.parent(to)
	if err != nil {
		return err
	}
	defer dest.close()
	return source.renameTo(name, dest, newName)
}

func (a *Account) specialUse(storage string) []imap.MailboxAttr {
	f, err := a.root.open(path.Join(a.opts.path(storage), useFile))
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
	if removed, err := a.removeLink(a.opts.path(storage)); err != nil {
		return err
	} else if removed {
		r.vanish(deleted) // for those who have it open by its other name, too
		return nil
	}
	r.disk.Lock()
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
	err = r.locked(ctx, lockWait, func() error { return a.moveAside(r.d, storage, aside) })
	if err != nil {
		return err
	}
	r.vanish(deleted)
	// First of all it is gone for good: what came back after the power went would lack a part of its mail.
	if err := a.fsync(path.Dir(a.opts.path(storage))); err != nil {
		return err
	}
	return a.root.removeAll(a.fsys, aside)
}

// removeLink removes what is at a path if it is a symlink.
func (a *Account) removeLink(rel string) (removed bool, err error) {
	d, name, err := a.parent(rel)
	if err != nil {
		return false, err
	}
	defer d.close()
	if st, err := d.stat(name); err != nil || st.mode&fs.ModeSymlink == 0 {
		return false, err
	}
	if err := d.remove(name); err != nil {
		return false, err
	}
	return true, d.fsync("")
}

// hasBelow reports whether a mailbox's directory holds other mailboxes.
func (a *Account) hasBelow(rel string) (bool, error) {
	if a.opts.Layout != LayoutFS {
		return false, nil
	}
	entries, err := fs.ReadDir(a.fsys.FS(), rel)
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
		if _, err := a.stat(a.opts.path(s)); err == nil {
			return ErrMailboxExists
		} else if errors.Is(err, ErrBadPlace) {
			return err
		}
		if err := a.free(s); err != nil {
			return err
		}
	}
	a.setMoving(moves)
	defer a.setMoving(nil)
	if a.opts.Layout == LayoutFS {
		mode, err := a.rootMode()
		if err != nil {
			return err
		}
		if err := a.makeParents(a.opts.path(toStorage), mode); err != nil {
			return err
		}
		if err := a.rename(a.opts.path(fromStorage), a.opts.path(toStorage)); err != nil {
			return err
		}
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
	a.noteMoved(fromStorage, toStorage) // also where it is only above others
	a.mu.Unlock()
	if err := a.fsyncAbove(a.opts.path(toStorage), a.opts.path(fromStorage)); err != nil {
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
	}
	st, err := a.statDir(rel)
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
		_, err = a.root.stat(a.opts.path(storage))
	}
	return now, ok && err == nil
}

// whereIs finds the directory of a mailbox that has left its name.
func (a *Account) whereIs(id fileID) (storage string, ok bool) {
	storages, err := a.storages()
	if err != nil {
		return "", false
	}
	for storage := range storages {
		if st, err := a.root.stat(a.opts.path(storage)); err == nil && st.id == id {
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
	s, err := readSubscriptions(a.root, a.opts.storageSeparator())
	if err != nil {
		return nil, err
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

func (a *Account) updateSubscriptions(ctx context.Context, f func(*subscriptions)) error {
	mode, err := a.rootMode()
	if err != nil {
		return err
	}
	return updateSubscriptions(ctx, a.root, a.opts.storageSeparator(), filePerm(mode), f)
}
