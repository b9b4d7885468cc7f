// Package practice finds out which of the behaviours that RFC 2180 describes an IMAP server shows to
// sessions that use one mailbox at the same time. The server may be any: it is asked by IMAP, with
// one account, and nothing is known of it beforehand.
//
// # Scenes
//
// A question is asked by a scene: two or three clients, what they send, and what is made of the
// answers. Scenes read like the examples of the RFC and stand in two files as it has two chapters,
// mailbox.go (3, DELETE and RENAME) and message.go (4, EXPUNGE); what the RFC takes for granted and
// users notice is in session.go. Each has mailboxes and connections of its own, so that what a
// server did in one has no part in the next.
//
// # Findings
//
// What came out is a [Finding]: an [Answer], and the lines that prove it. Answers are the RFC's:
// where a server does what the RFC neither asks for nor allows, the answer is Forbidden, and the
// detail says in words what it does. A question may have no answer: where messages can't be
// expunged it does not arise what FETCH does about expunged ones.
//
// # Time
//
// A server is taken to know in all sessions what it answered OK to in one: the question is put
// after that, and nothing is waited for but answers. Two things can only be waited for: news in IDLE,
// for as long as an answer may take ([Server.Timeout]), and a BYE that nobody asked for, for a tenth
// of that.
//
// # What is left behind
//
// Nothing: mailboxes are made under names that begin with "rfc2180-" and a random number, no others are
// touched, and all that the server then lists under such names is deleted, also after a failure or when the
// context ends.
package practice
