// Package wire puts a listener between clients and a go-imap server (package imapserver): it
// gathers what the server writes, reads commands as clients really send them, speaks STARTTLS and
// keeps limits. It knows nothing of mailboxes and does not import imapserver.
//
// # Writing
//
// go-imap writes each response line on its own: a FETCH of the flags of 10 000 messages is 10 000
// system calls. A [Conn] gathers lines and writes them out
//
//   - when the server waits for input: the command is answered, it is the client's turn;
//   - when 32 KiB are gathered;
//   - at once, when the server waits for input already: updates during IDLE, a BYE at shutdown;
//   - 10 ms after the first line was gathered, should a command take that long;
//   - on Close, for a second at most.
//
// # Reading
//
// A Read returns bytes of one line or of one literal, never of two. So when the server reads on, it has
// dealt with everything before, and one rule tells where the client stands: a command begins at the start
// of the connection and where the server has written a tagged line since its last Read. Everything
// else (a literal, the rest of a line behind one, DONE, the answer to a SASL challenge, which may be
// empty) belongs to the command before. It rests on how go-imap works: commands one after the other,
// each written line in a Write of its own, the tagged line after the command was read.
//
//   - An empty line where a command begins is dropped: mail clients send such lines, and go-imap
//     closes the connection on them.
//   - A non-synchronizing literal (RFC 7888) of a command that was refused before the literal was
//     read is dropped with the rest of the command. go-imap would run its content as commands.
//   - A command of more than 50 KiB, its literals not counted, is answered BAD and dropped. go-imap would
//     run the rest of it as commands. If a part of it was read already, the connection ends with a BYE.
//   - So it does on what is no command at all: go-imap closes the connection without a word.
//
// Of what it reads wire changes one thing, since no session could mend it: go-imap forgets the search
// key SMALLER when a date or another size follows it, and both size keys when the size is 0. In a SEARCH or UID
// SEARCH command wire puts NOT NOT before SMALLER, which means the same and is not forgotten; size 0 it
// spells in another way.
//
// Of what go-imap writes it changes one thing as well: the answer to a SELECT says READ-WRITE whatever the session
// thinks. Where PERMANENTFLAGS is empty, nothing can be changed, and the client is told READ-ONLY.
//
// # STARTTLS
//
// Gathering belongs above TLS: many lines, one record. So wire answers STARTTLS itself and hands
// the encrypted connection to a second listener, [Listener.Encrypted], for a second imapserver.Server.
// That one has InsecureAuth set, as all its connections are encrypted, and no TLSConfig. The first server
// has a TLSConfig, so that it announces STARTTLS, but never sees the command before a login.
package wire
