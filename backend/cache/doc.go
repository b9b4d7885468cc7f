// Package cache keeps what was made of messages (envelopes, body structures, header fields) in one
// file for each account, so that nobody has to open a mail twice for it: mailbox key → message key
// → bytes. What the keys and the bytes mean is the caller's business.
//
// # It is a cache
//
// Deleting the file loses nothing, and nothing fails because of it. A [Cache] that can't have its
// file (a second process has it, the place is read-only, the disk is full) remembers nothing or
// less; a file that is foreign, of another version, truncated, damaged or too large is made anew.
// The log is told.
//
// A value that was replaced may be found again after a crash, or when the new one could not be
// written. Where a message may be another one by now, its value has to tell what it was made of.
//
// # The file
//
// It is a bbolt database. The bucket "format" has the key "version"; each mailbox has a bucket, its
// name "mailbox " and the mailbox key, in which
//
//	message key → sum:4 value
//
// sum is the CRC-32C of mailbox key, message key and value, little endian. A value whose sum is
// wrong is not found.
//
// Changes wait in memory, at most for a second, and are committed together by one goroutine. Each
// commit is synced: that is what leaves a sound file behind when the power fails.
//
// # Limits
//
// bbolt's own pages have no checksums. Most damage to them makes bbolt panic or touch memory that
// isn't there; the file is removed then, and its space given back when the process ends. Some of it
// ends the process (a branch page that names itself does) or makes it hang, as may a file that
// others write to while it is open: the operator deletes the file, which is safe at any time.
package cache
