// Package transcript runs conversations of several IMAP clients with a server that are written down
// as RFC 2180 writes its examples: what C1 and C2 send, what S1 and S2 answer, and what the world
// outside does to the disk meanwhile.
//
//	# FETCH of a message that another session expunged: what is left, then NO.
//	policy fetch_expunged=no
//	mailbox INBOX 3
//
//	C1: SELECT INBOX                        # nothing expected: OK, and whatever comes with it
//	C2: SELECT INBOX
//	C2: STORE 2 +FLAGS.SILENT (\Deleted)
//	C2: EXPUNGE
//	S2: * 2 EXPUNGE                         # this, then OK
//	C1: FETCH 1:3 UID
//	S1: * 1 FETCH (UID $first)              # the variable is bound here
//	S1: * 3 FETCH (UID $third)
//	S1: ! EXPUNGE                           # must not come
//	S1: NO [EXPUNGEISSUED]
//	disk: deliver INBOX "Fourth"
//	C1: NOOP
//	S1: * 2 EXPUNGE
//	S1: * 3 EXISTS
//	C1: UID FETCH $third FLAGS
//	S1: * 2 FETCH (UID $third FLAGS (\Recent ...))
//
// Time decides nothing: a step waits for what it expects. What doesn't come ends the test after
// half a minute, as a mistake does, with the dialogue so far.
//
// # Lines
//
// A file begins with a comment that says what the case is about. Then come directives, then steps.
// An indented line continues the one above, after a blank unless a ( ends the one or a ) begins the
// other. A comment begins with # at the start of a line, or with # after two blanks and before one.
// Blank lines mean nothing.
//
// A directive is a name and arguments. They are for the caller, who sets up the server and the
// mailboxes ([Script.Directives]); one is understood here:
//
//	ignore NAME ...   untagged responses that may come at any time, not expected: CAPABILITY,
//	                  FLAGS, OK, RECENT. \Recent is left out when flags are compared.
//
// # What clients do
//
//	C1: COMMAND    send a command; the tag is made here. The first use of C1 connects and logs in.
//	C1: & COMMAND  send it while the one before may still be running (pipelining)
//	C1: DONE       end IDLE. IDLE waits for the server's continuation request.
//	C1> LINE       send a line as it stands, without a tag; it has no comment after it
//	C1> "BYTES"    send bytes as they stand, written as a Go string, without an end of line
//	C1 connect     connect, without logging in: the greeting can be expected
//	C1 disconnect  close the connection, without LOGOUT
//
// After a connection ended, the next use of C1 makes a new one.
//
// Literals are written {"Go string"}, or {+"Go string"} when they are non-synchronizing, or as
// lines, each of which then ends with CRLF:
//
//	C1: APPEND INBOX (\Seen) {{{
//	Subject: Hello
//
//	World
//	}}}
//
// {{{+ begins a non-synchronizing one; what follows }}} goes on with the command. Before a
// synchronizing one is sent, the server's continuation request is waited for; if the command is
// answered instead, it isn't sent.
//
// # What servers answer
//
//	S1: * 1 FETCH (UID 1)     an untagged response
//	S1: ~ * LIST () "/" A     responses whose lines stand together with ~ come in any order
//	S1: ...                   from here to the tagged response others may come as well
//	S1: ! EXPUNGE             no response that begins so, with or without its number, comes
//	                          before the tagged one
//	S1: OK  S1: NO [INUSE]    the tagged response of the oldest command that has none. A code that
//	S1: BAD                   isn't written may be there or not, [] says that there is none. Text
//	                          counts if it is written.
//	S1: + TEXT                a continuation request that neither IDLE nor a literal waits for
//	S1: TAG OK                the answer to a line that brought its own tag
//	S1: closed                the server ended the connection
//
// Responses come in the order in which they are written, and no others. Where the tagged
// response isn't written it is OK, right after the last line for this client before its next
// command; if none is written at all, responses are not looked at. A C1> line goes on with a command
// whose S1: + stands above it, or with IDLE; otherwise it comes after the command's answer.
//
// # What is equal
//
// Responses are compared by what they mean. Atoms compare without case. Flags, attributes of
// mailboxes, CAPABILITY, ENABLED and the numbers of SEARCH are sets; the items of FETCH, STATUS and
// ESEARCH may come in any order; 1:3 equals 1,2,3; INTERNALDATE is a point in time. Strings are equal
// if their content is, quoted or as literal. In LIST, LSUB, STATUS and NEWNAME, and in names of
// header fields, an atom equals a string as well. At the end of a list or a set, ... stands for
// whatever else there is.
//
// How responses are put together is not free: where a server sends two blanks, a line without CR or
// a list without its end, the test fails.
//
// # Variables
//
// A variable is $ and a name that begins with a small letter (keywords such as $Forwarded are none).
// Standing where a server's answer has an atom, a string or a list, it is bound to that at first and
// equal to it later; commands and the world outside may then use it. $_ is whatever there is, $tag
// the tag of the oldest command without an answer.
//
// # The world outside
//
// "disk: VERB ARGUMENTS" calls a [Verb]. Arguments are words, Go strings or literals. With a
// [Server.Root] there are:
//
//	deliver [MAILBOX [SUBJECT]]  deliver a mail by go-maildir; a SUBJECT of several lines is the mail
//	rm PATH ...                  unlink
//	mv PATH NEWPATH              rename; a NEWPATH that ends with / is a directory
//	touch PATH ...               set the time to now, make the file if there is none
//	flags PATH LETTERS           rename to the same name in cur/ with these flags
//	shell COMMAND                run by sh in the root
//
// A PATH is one in the root; INBOX/ may stand before it, Work/ stands for .Work/ where there is
// no directory Work. The last part is a UID, looked up in dovecot-uidlist ("cur/3"), or a pattern as of
// [path/filepath.Match].
//
// # Connections
//
// Whoever else speaks IMAP line by line, and wants to see what a server really sends, may use the
// connection that transcripts are played on: [Conn], [StartTLS], [Show].
package transcript
