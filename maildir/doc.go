// Package maildir keeps mailboxes as Maildirs that other programs use at the same time: delivery
// agents, Dovecot, mbsync, mutt, mv and rm. UIDs, keywords and subscriptions are in the files that
// Dovecot uses, under Dovecot's locks (docs/coexistence.md).
//
// # Words
//
// A [Snapshot] is one immutable state of a mailbox. A [Mailbox] is one directory, shared by all who
// have it open in this process; its current snapshot is replaced when something changed. A [Ref]
// is one user's hold on a mailbox. A ghost is an expunged message that is kept for sessions whose
// clients were not told yet.
//
// # The way of a change
//
// Whoever changes the disk, this process or another program, the change becomes visible in one
// place: sync reads what is there and publishes the next snapshot. Our own commands change the
// disk and then sync.
//
//	new/, cur/ → Watcher → hints → sync
//	dovecot-uidlist, new/, cur/ → reading → Snapshot → who waits on Changed
//	Store, Expunge, CopyTo, MoveTo, Append → disk → sync
//
// Hints say which files to look at, never what is there. Where it is sure that each change was told by name
// ([Watching].Settle) a reading looks at these files, otherwise at all of a directory that has changed.
//
// # Rules
//
// The lock: dovecot-uidlist.lock is held for every rename and unlink in cur/, every move from new/
// to cur/, every UID that is given, and every write of dovecot-uidlist or dovecot-keywords; in
// slices of a few hundred files, never while data comes from a client, and while a directory is read only
// where looks without it were in vain. While one caller waits for another program to give it back, the
// others go on with what is known.
//
// Two looks: a message is expunged when two complete scans miss it, or when none of its names is there and
// nothing was heard of it since before that was found out. A name seen twice is one message.
//
// The same directory: a mailbox is the directory that was opened. Before anything is written, it
// is compared with what stands under the mailbox's name; cur, new and tmp are never made in a
// place that vanished. Control files that are apart from the mail are found by the mailbox's name, at each look.
//
// The quota file: where maildirsize is there, what came into new/ or cur/ and what left them under the lock is written to it when
// the lock is free again. It is counted where files are renamed and unlinked (dir), so that what a command takes back counts as well.
//
// Permissions: what is made in a folder has its mode and group, whatever the umask. With a umask it gets them a moment later,
// so a program whose users share mail sets it to 0.
//
// # Durability
//
// Any step may be the last one before the process ends or the power goes. Append, CopyTo and MoveTo
// return when these are on disk, in this order: the message with its date (in tmp/, before any lock is
// taken), its record in dovecot-uidlist, its entry in new/ or cur/, and for MoveTo the entry that went.
// A UID, a keyword's letter and a UIDVALIDITY are on disk before anybody hears of them. Flags and
// expunges are not waited for.
//
// A command that fails leaves the mailbox as it was, or a part of it done: APPEND and COPY all or
// nothing, MOVE and the others message by message. A message that MOVE could move but not number gets
// its UID at the next look.
//
// # Order of locks
//
// Account.names, Mailbox.disk (of two mailboxes the one with the smaller inode first), the lock
// file, quota.mu, Account.mu, Mailbox.mu, hints.mu.
//
// # Why not go-maildir's readers
//
// go-maildir's Messages, Unseen and SetFlags assume that one process reads a Maildir. Here many
// do, so reading and changing are this package's own; go-maildir's Delivery stands in tests for
// the programs that deliver.
package maildir
