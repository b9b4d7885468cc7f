package maildir

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Options says how the mailboxes of an account are laid out. The zero value is Dovecot's default:
// Maildir++ with names in modified UTF-7.
type Options struct {
	// Layout is how mailbox names become directories.
	Layout Layout
	// Names is how mailbox names are spelled on disk.
	Names NameEncoding
	// Prefix is what the names of all mailboxes but INBOX begin with for clients, and not on disk: empty, or
	// a name with the separator behind it, such as "INBOX." (the prefix of a namespace in Dovecot).
	Prefix string
	// Inbox is the directory of INBOX; "" is the account's root (Dovecot's INBOX=).
	Inbox string
	// Control is where Dovecot's files are (docs/coexistence.md), and with them maildirsize; "" is with the mail
	// (Dovecot's CONTROL=).
	Control string
	// Separator is the hierarchy separator that clients see; 0 is the layout's own, '.' for
	// LayoutMaildirpp and '/' for LayoutFS.
	Separator rune
	// KeepMailboxes is how many mailboxes that nobody uses any more stay known, so that opening one
	// again costs a few system calls instead of reading it. Each keeps one file descriptor. 0: 32;
	// negative: none.
	KeepMailboxes int
	// KeepMessages is how many messages those mailboxes may have together, at up to 130 bytes each. 0:
	// 200 000.
	KeepMessages int
	// Watcher watches the directories of mailboxes that are selected; nil: what others change is found
	// when a command looks, by reading whole directories.
	Watcher Watcher
	// Logger hears of what is wrong on disk; nil is slog.Default().
	Logger *slog.Logger
	// Locks, if it is set, hears of each use of a mailbox's lock.
	Locks LockObserver
}

// A LockObserver counts, for metrics. It is called by several goroutines at once and must not block.
type LockObserver interface{ ObserveLock(LockUse) }

// A LockUse is one use of dovecot-uidlist.lock.
type LockUse struct {
	Waited, Held time.Duration
	Err          error // why it was not had; nil: it was
}

// Check tells what is wrong with the prefix.
func (o *Options) Check() error {
	bare := *o
	bare.Prefix = ""
	if o.Prefix == "" {
		return nil
	}
	if !strings.HasSuffix(o.Prefix, string(o.separator())) {
		return fmt.Errorf("prefix %q has to end with the separator, %q", o.Prefix, o.separator())
	}
	_, err := bare.storageName(o.Prefix + "x")
	if name, ok := errors.AsType[*NameError](err); ok {
		return fmt.Errorf("prefix %q %s", o.Prefix, name.Reason)
	}
	return err
}

func (o *Options) keepMailboxes() int {
	if o.KeepMailboxes == 0 {
		return 32
	}
	return o.KeepMailboxes
}

func (o *Options) keepMessages() int {
	if o.KeepMessages == 0 {
		return 200_000
	}
	return o.KeepMessages
}

// A Layout is a way to lay mailboxes out in an account's root. INBOX is the root itself, if it has no place of its own.
type Layout int

const (
	// LayoutMaildirpp is Maildir++: "Work.2026" is the directory ".Work.2026" in the root.
	LayoutMaildirpp Layout = iota
	// LayoutFS is one directory in the other: "Work/2026" is the directory "Work/2026" in the root.
	LayoutFS
)

// A NameEncoding is a way to spell mailbox names on disk.
type NameEncoding int

const (
	// NamesUTF7 is modified UTF-7 (RFC 3501 section 5.1.3), as Dovecot spells names by default.
	NamesUTF7 NameEncoding = iota
	// NamesUTF8 is UTF-8, as Courier and Dovecot with mailbox_list_utf8 spell names.
	NamesUTF8
)
