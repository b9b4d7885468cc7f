package maildir

import "log/slog"

// Options says how the mailboxes of an account are laid out. The zero value is Dovecot's default:
// Maildir++ with names in modified UTF-7.
type Options struct {
	// Layout is how mailbox names become directories.
	Layout Layout
	// Names is how mailbox names are spelled on disk.
	Names NameEncoding
	// Separator is the hierarchy separator that clients see; 0 is the layout's own, '.' for
	// LayoutMaildirpp and '/' for LayoutFS.
	Separator rune
	// Logger hears of what is wrong on disk; nil is slog.Default().
	Logger *slog.Logger
}

// A Layout is a way to lay mailboxes out in an account's root. INBOX is always the root itself.
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
