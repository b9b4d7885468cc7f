package maildir

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"

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
