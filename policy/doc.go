// Package policy holds the strategies of draft-gahrns-imap-practice (published as RFC 2180): what
// a server does for the other sessions when one of them deletes, renames or expunges what they
// have open. It only decides. It does no I/O, knows no clock and no server, and its values may be
// used by any number of goroutines.
//
// # Strategies
//
// Each key of a [Policy] chooses one strategy; the zero value of each type is the default.
//
//	key             values                          draft
//	delete          refuse, ghost, disconnect       3.1, 3.2, 3.3
//	rename          refuse, disconnect, follow      3.1, 3.3, 3.4
//	expunge         allow, refuse                   4.1.4
//	fetch_expunged  ghost, no, nil                  4.1.1, 4.1.2, 4.1.3
//	store_expunged  partial, refuse                 4.2.3, 4.2.4 (4.2.1, 4.2.2 hold under both)
//	copy_expunged   refuse, ghost                   RFC 2180 4.4.1, 4.4.2
//
// # Words
//
// A message is told when the client has been given its sequence number, and untold news is what
// the client has not been given yet. A message that was expunged by someone else, and whose
// EXPUNGE is still untold, is gone; the others that a command names are living. A ghost is what is
// kept of something gone for those who were not told.
package policy
