// Package backend serves Maildirs to go-imap's server (package imapserver): a [Backend] makes the
// sessions of [imapserver.Options.NewSession]. Who may log in, and where the mail of a user is,
// tells the host program through [Accounts].
//
// # Words
//
// A snapshot is one state of a mailbox as it is on disk ([maildir.Snapshot]). A view is what one
// client was told of it: sequence number n is entry n of the view, whatever happened since. What
// is in the snapshot and differs from the view is untold. A message that is in the view and not in
// the snapshot is gone: expunged, and its EXPUNGE untold. What is kept of it for those who were
// not told is its ghost.
//
// # The way of a change
//
//	disk → maildir's sync → snapshot → view → client
//	command → Session → maildir → disk
//
// Commands never write to a view what they did; they change the disk. Poll and Idle compare view
// and snapshot and tell the difference: FETCH, EXISTS and RECENT at any time, EXPUNGE only where
// the protocol allows it. So all sessions hear of all changes in one way, whoever made them.
//
// Package watch tells the mailbox what may have changed, which then looks at the disk; an idling session
// waits for the next snapshot.
//
// # Messages that are gone
//
// Commands that name messages resolve their numbers in one function, [Session.named], which asks
// policy what to do about those that are gone.
//
// # Order of locks
//
// Session.mu, then the locks of package maildir. Backend.mu is taken alone. No lock of maildir is
// held while a client is written to.
package backend
