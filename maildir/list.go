package maildir

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/emersion/go-imap/v2"
)

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
