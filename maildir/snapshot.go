package maildir

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/emersion/go-imap/v2"
)

// A Message is one message of a mailbox at one moment. It never changes: a change of its flags, or
// another file under its name, makes another Message with the same UID. Size and date belong to the file;
// they are looked up when first asked for and kept here.
type Message struct {
	// The fields are in an order that leaves no holes: a mailbox has many messages.

	UID   imap.UID
	Flags Flags
	// Number is that of the snapshot that made this value.
	Number uint64
	// InNew is whether the file is still in new/.
	InNew bool

	file fileTag
	date atomic.Uint32 // modification time in seconds since 1970; 0 as long as it is not known
	name string        // of the file, in cur/ or new/
	size atomic.Int64  // with CRLF line ends, plus one; 0 as long as it is not known
}

// Key is the part of the file name that stays: the message's identity on disk, which no other message
// of the mailbox ever has.
func (msg *Message) Key() string {
	if i := strings.IndexByte(msg.name, ':'); i >= 0 {
		return msg.name[:i]
	}
	return msg.name
}

// path is the file's place in the mailbox's directory.
func (msg *Message) path() string {
	if msg.InNew {
		return "new/" + msg.name
	}
	return "cur/" + msg.name
}

// with is the same message under another file name.
func (msg *Message) with(name string, inNew bool, number uint64) *Message {
	next := &Message{UID: msg.UID, Flags: parseFlags(name), InNew: inNew, file: msg.file, Number: number, name: name}
	next.size.Store(msg.size.Load())
	next.date.Store(msg.date.Load())
	return next
}

// in is the same message in the file that was found. Another file has another size and date.
func (msg *Message) in(f found, number uint64) *Message {
	next := msg.with(f.name, f.inNew, number)
	if !msg.isIn(f) {
		next.size.Store(0)
		next.date.Store(0)
	}
	if f.file != (fileTag{}) {
		next.file = f.file
	}
	return next
}

// isIn reports whether a file is the message's own, as far as is known.
func (msg *Message) isIn(f found) bool {
	return msg.file == f.file || msg.file == (fileTag{}) || f.file == (fileTag{})
}

// packNames copies the names of messages, which were cut from the buffers of a directory, so that
// those can go. A few names share a string: that takes less than a string for each, and none of
// them keeps much alive.
func packNames(msgs []*Message) {
	const few = 16
	var b strings.Builder
	for part := range slices.Chunk(msgs, few) {
		n := 0
		for _, msg := range part {
			n += len(msg.name)
		}
		b.Reset()
		b.Grow(n)
		for _, msg := range part {
			b.WriteString(msg.name)
		}
		names := b.String()
		for _, msg := range part {
			msg.name, names = names[:len(msg.name)], names[len(msg.name):]
		}
	}
}

// A Snapshot is one immutable state of a mailbox. Snapshots share the messages that are equal in
// both.
type Snapshot struct {
	// Number is one higher than that of the snapshot before.
	Number uint64
	// GUID is the mailbox's name for ever, whatever happens to its name and its UIDs: 32 hex digits.
	// It is in dovecot-uidlist.
	GUID        string
	UIDValidity uint32
	// UIDNext is greater than every UID that was ever given to a message here.
	UIDNext imap.UID
	// Messages are in ascending order of their UIDs. Nobody changes the slice.
	Messages []*Message

	keywords keywords
	inNew    int // how many messages are in new/; publish counts them
}

// Find returns the message with a UID, or nil.
func (s *Snapshot) Find(uid imap.UID) *Message {
	i, ok := s.place(uid)
	if !ok {
		return nil
	}
	return s.Messages[i]
}

// place finds the first message with this UID or a higher one, and whether it is this one.
func (s *Snapshot) place(uid imap.UID) (int, bool) {
	msgs := s.Messages
	if n := len(msgs); n > 0 && msgs[0].UID <= uid && uid <= msgs[n-1].UID {
		// Most mailboxes have few gaps, so that the UID tells the place.
		span := uint64(msgs[n-1].UID-msgs[0].UID) + 1
		if i := int(uint64(uid-msgs[0].UID) * uint64(n) / span); msgs[i].UID == uid {
			return i, true
		}
	}
	return slices.BinarySearchFunc(msgs, uid, func(msg *Message, uid imap.UID) int { return cmp.Compare(msg.UID, uid) })
}

// StartsWith reports whether the messages of a snapshot are those of an earlier one, unchanged, and maybe
// some that came. It is false also where that would take a comparison of all.
func StartsWith(now, old []*Message) bool {
	return len(old) == 0 || len(now) >= len(old) && &now[0] == &old[0]
}

// countNew sets inNew. Only the messages that are not in prev are looked at.
func (s *Snapshot) countNew(prev *Snapshot) {
	s.inNew = prev.inNew
	old, now := prev.Messages, s.Messages
	if StartsWith(now, old) {
		old, now = nil, now[len(old):]
	}
	for _, msg := range now {
		for len(old) > 0 && old[0] != msg && old[0].UID <= msg.UID {
			if old[0].InNew {
				s.inNew--
			}
			old = old[1:]
		}
		if len(old) > 0 && old[0] == msg {
			old = old[1:]
		} else if msg.InNew {
			s.inNew++
		}
	}
	for _, msg := range old {
		if msg.InNew {
			s.inNew--
		}
	}
}

var systemFlags = [...]struct {
	flag Flags
	name imap.Flag
}{
	{FlagAnswered, imap.FlagAnswered},
	{FlagFlagged, imap.FlagFlagged},
	{FlagDeleted, imap.FlagDeleted},
	{FlagSeen, imap.FlagSeen},
	{FlagDraft, imap.FlagDraft},
}

// IMAPFlags are flags in IMAP's spelling. A keyword letter that dovecot-keywords doesn't name is
// left out; it stays in the file name.
func (s *Snapshot) IMAPFlags(f Flags) []imap.Flag {
	flags := []imap.Flag{}
	for _, sys := range systemFlags {
		if f&sys.flag != 0 {
			flags = append(flags, sys.name)
		}
	}
	for i, name := range s.keywords {
		if validKeyword(name) && f&keywordFlag(i) != 0 {
			flags = append(flags, imap.Flag(name))
		}
	}
	return flags
}

// Keywords are the keywords that the mailbox has names for.
func (s *Snapshot) Keywords() []imap.Flag {
	var flags []imap.Flag
	for _, name := range s.keywords {
		if validKeyword(name) {
			flags = append(flags, imap.Flag(name))
		}
	}
	return flags
}

// HasKeywordRoom reports whether a mailbox can take another keyword.
func (s *Snapshot) HasKeywordRoom() bool {
	return slices.Contains(s.keywords[:], "")
}

// FlagsNamed are the flags with these names, as far as this snapshot knows them.
func (s *Snapshot) FlagsNamed(names []imap.Flag) Flags {
	f, _ := lookupFlags(&s.keywords, names)
	return f
}

// lookupFlags finds flags by their names, system flags in any case. unknown are keywords that k
// has no letter for, each once; other system flags are ignored.
func lookupFlags(k *keywords, names []imap.Flag) (f Flags, unknown []string) {
names:
	for _, name := range names {
		for _, sys := range systemFlags {
			if strings.EqualFold(string(sys.name), string(name)) {
				f |= sys.flag
				continue names
			}
		}
		if strings.HasPrefix(string(name), `\`) {
			continue
		}
		if i := k.find(string(name)); i >= 0 {
			f |= keywordFlag(i)
		} else if !slices.ContainsFunc(unknown, func(s string) bool { return strings.EqualFold(s, string(name)) }) {
			unknown = append(unknown, string(name))
		}
	}
	return f, unknown
}
