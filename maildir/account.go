package maildir

import (
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// An Account is one user's mailboxes: a root directory and what is open of it in this process.
// All methods may be called by several goroutines.
type Account struct {
	opts    Options // immutable
	mail    *tree   // immutable; all mailboxes but INBOX are in it
	inbox   *tree   // immutable; INBOX: mail, if it has no place of its own
	control *tree   // immutable; what Dovecot calls control files: mail, if they have no place of their own
	quota   quota

	scans   atomic.Uint64
	renames atomic.Uint64 // begun and ended by this process; who looks for a mailbox meanwhile looks again

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
