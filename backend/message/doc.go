// Package message reads out of one mail what FETCH and SEARCH ask for: ENVELOPE, BODYSTRUCTURE,
// BODY[...], BINARY[...] and the search keys that look into a message.
//
// # One pass
//
// [Message.Structure] reads the mail once from start to end and remembers where each part's header,
// body and end are, the lines of its body, and those header fields that ENVELOPE and BODYSTRUCTURE
// are made of. All else follows from that: a section is a range of the source. A body is
// never in memory as a whole. What concerns the top-level header alone reads no further than it,
// unless the mail is so short that the rest came along.
//
// A [Structure] can be kept in a cache (MarshalBinary) and given to [With]. It holds header fields as
// they stand in the mail; they are decoded when they are asked for, so a cache outlives changes of
// the decoding. When the whole top header has at most 16 KiB it is held as well, and ENVELOPE,
// BODYSTRUCTURE, BODY[HEADER], BODY[HEADER.FIELDS ...] and header searches need no file.
//
// # Parts
//
// The tree has three kinds of parts. A multipart has one part or more; where the mail has none, it
// has an empty one of text/plain, since BODYSTRUCTURE can't say "none" (Dovecot does the same). A
// message (message/rfc822, message/global) has exactly one: the message in it. A leaf is opaque.
// Numbers are those of RFC 9051 6.4.5.1. What does not exist is empty.
//
// # Mail that is wrong
//
// No mail is an error; errors come only from opening and reading the source. What breaks the rules is
// read as follows:
//
//   - The header ends at the first empty line. If already the first line is no field (mbox's "From "
//     line aside), there is no header. Lines amid the header that are no fields are skipped.
//   - Of several fields of one name the first counts.
//   - Bytes that are not UTF-8, where no charset is declared or it isn't known, are windows-1252, and so
//     is what is declared as ISO-8859-1.
//     Control characters in strings of ENVELOPE and BODYSTRUCTURE become spaces: IMAP has no form for NUL.
//   - A Content-Type that can't be read, or a multipart without a boundary, is text/plain (RFC 2045 5.2).
//   - A delimiter line is the boundary alone, with white space after it. So a boundary may begin with
//     another one. A delimiter of an outer multipart ends all inner ones; the end of the mail ends all.
//   - A message/rfc822 in base64 or quoted-printable (RFC 2046 5.2.1 forbids it), or what lies deeper
//     than 100 parts, is a leaf of application/octet-stream. When a mail has 10 000 parts, the last one goes on.
//   - An address without domain has the host MISSING_DOMAIN, one without local part the mailbox
//     MISSING_MAILBOX, as with Dovecot: in ENVELOPE a missing host says that a group begins.
//   - Broken base64 and quoted-printable are decoded as far as they go.
//
// # Bounds
//
// Fields are looked for in the first 4 MiB of a header. Of one field up to 256 KiB, and of all
// of a mail up to 1 MiB, go into ENVELOPE and BODYSTRUCTURE.
package message
