// Package e2e tests the real maildird with real programs: delivering ones, mail programs, and
// another IMAP server on the same Maildir. There is nothing in it but tests.
//
// # What a test is made of
//
// TestMain builds maildird and rfc2180, with the race detector. Each test starts maildird with [serve] on ports of
// its own, as the user that owns the mail; when it ends, it has to end well: exit status 0, no
// data race, no panic. The peers are in package internal/peers. Whoever lacks one skips its test,
// unless MAILDIR_PEERS is "require".
//
// A test talks to the server through a program (curl, mbsync, mutt, neomutt, Python's imaplib), through
// go-imap's client, or, where a client would never say such a thing, line by line ([dial]). It
// compares what the server says with what is on disk and with what Dovecot says of the same disk.
//
// No test sleeps. What takes place in another process is waited for: a line in its log, a file, an
// answer.
package e2e
