// Package policy holds the strategies of draft-gahrns-imap-practice (published as RFC 2180): what a
// server does to the other sessions when one of them deletes, renames or expunges what they have
// open. It decides and does nothing: no I/O, no clock, no server.
package policy
