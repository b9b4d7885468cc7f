package backend

import (
	"cmp"
	"iter"
	"slices"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/imapmaildir/imapmaildir/maildir"
)

// A view is what one client was told of its mailbox. It belongs to one session and is guarded by
// the session's turn.
type view struct {
	// msgs are the messages that the client has numbers for, in ascending order of their UIDs, each
	// with the flags it was last told. As long as it is equal to a snapshot's slice it is that
	// slice, so it is copied before it is changed (set).
	msgs   []*maildir.Message
	shared bool
	// most is how many messages the client ever had numbers for.
	most int
	// number is that of the snapshot that msgs was compared with; gone is how many of msgs that one
	// does not have.
	number uint64
	gone   int
	// keywords are those that the client was told of.
	keywords []imap.Flag
	// recent are the messages that are \Recent in this session, ascending (RFC 3501 2.3.2).
	recent []imap.UID
}

// newView is the view of a client that is told of all that is in a snapshot, as by SELECT.
func newView(s *maildir.Snapshot, recent []imap.UID) *view {
	v := &view{
		msgs:     s.Messages,
		shared:   true,
		most:     len(s.Messages),
		number:   s.Number,
		keywords: s.Keywords(),
	}
	v.addRecent(recent)
	return v
}

func (v *view) addRecent(uids []imap.UID) {
	v.recent = append(v.recent, uids...)
	slices.Sort(v.recent)
	v.recent = slices.Compact(v.recent)
}

func (v *view) isRecent(uid imap.UID) bool {
	_, ok := slices.BinarySearch(v.recent, uid)
	return ok
}

// set notes that the client was told of message i as it is now.
func (v *view) set(i int, msg *maildir.Message) {
	if v.msgs[i] == msg {
		return
	}
	if v.shared {
		v.msgs, v.shared = slices.Clone(v.msgs), false
	}
	v.msgs[i] = msg
}

// last is the highest UID that the client has a number for.
func (v *view) last() imap.UID {
	if len(v.msgs) == 0 {
		return 0
	}
	return v.msgs[len(v.msgs)-1].UID
}

// index finds the place of the first message with this UID or a higher one.
func (v *view) index(uid imap.UID) (int, bool) {
	return slices.BinarySearchFunc(v.msgs, uid, byUID)
}

// flags are a message's flags as this client sees them.
func (v *view) flags(s *maildir.Snapshot, msg *maildir.Message) []imap.Flag {
	flags := s.IMAPFlags(msg.Flags)
	if v.isRecent(msg.UID) {
		flags = append(flags, flagRecent)
	}
	return flags
}

// flagRecent is \Recent, for which go-imap has no public name.
const flagRecent imap.Flag = `\Recent`

// knows reports whether the client was told of all keywords that a message has.
func (v *view) knows(s *maildir.Snapshot, msg *maildir.Message) bool {
	return len(v.keywords) == len(s.Keywords()) || !slices.ContainsFunc(s.IMAPFlags(msg.Flags), func(f imap.Flag) bool {
		return f[0] != '\\' && !slices.Contains(v.keywords, f)
	})
}

// tell writes what is untold of a snapshot: new keywords, messages that were expunged (where that
// is allowed), messages that came, and flags that changed.
func (v *view) tell(w *imapserver.UpdateWriter, s *maildir.Snapshot, recent []imap.UID, allowExpunge bool) error {
	if s.Number == v.number && (v.gone == 0 || !allowExpunge) {
		return nil
	}
	var fresh maildir.Flags // those of new keywords: messages may have them, shown without so far
	if keywords := s.Keywords(); !slices.Equal(keywords, v.keywords) {
		if err := w.WriteMailboxFlags(mailboxFlags(keywords)); err != nil {
			return err
		}
		fresh = s.FlagsNamed(keywords) &^ s.FlagsNamed(v.keywords)
		v.keywords = keywords
	}
	old := v.msgs
	msgs, gone := merge(old, s.Messages)
	if gone > 0 && allowExpunge {
		var err error
		if old, err = v.tellExpunged(w, s); err != nil {
			return err
		}
		msgs, gone = s.Messages, 0
	}
	v.msgs, v.gone, v.shared = msgs, gone, gone == 0
	v.most = max(v.most, len(v.msgs))
	v.number = s.Number
	v.addRecent(recent)
	if len(v.msgs) > len(old) {
		if err := w.WriteNumMessages(uint32(len(v.msgs))); err != nil {
			return err
		}
		if err := w.WriteNumRecent(v.numRecent()); err != nil {
			return err
		}
	}
	if maildir.StartsWith(v.msgs, old) && fresh == 0 {
		return nil // none has changed
	}
	for i, msg := range old {
		if now := v.msgs[i]; now.Flags != msg.Flags || now.Flags&fresh != 0 {
			if err := w.WriteMessageFlags(uint32(i+1), now.UID, v.flags(s, now)); err != nil {
				return err
			}
		}
	}
	return nil
}

// tellExpunged writes an EXPUNGE for each message of the view that is not in the snapshot, and
// returns the others.
func (v *view) tellExpunged(w *imapserver.UpdateWriter, s *maildir.Snapshot) ([]*maildir.Message, error) {
	left := make([]*maildir.Message, 0, len(v.msgs))
	for msg, now := range both(v.msgs, s.Messages) {
		if now != nil {
			left = append(left, msg)
			continue
		}
		if err := w.WriteExpunge(uint32(len(left) + 1)); err != nil {
			return nil, err
		}
	}
	v.recent = slices.DeleteFunc(v.recent, func(uid imap.UID) bool { return s.Find(uid) == nil })
	return left, nil
}

// both gives each message of a view with what a snapshot has of it, or nil.
func both(old, now []*maildir.Message) iter.Seq2[*maildir.Message, *maildir.Message] {
	return func(yield func(_, _ *maildir.Message) bool) {
		j := 0
		for _, msg := range old {
			for j < len(now) && now[j].UID < msg.UID {
				j++
			}
			var m *maildir.Message
			if j < len(now) && now[j].UID == msg.UID {
				m = now[j]
			}
			if !yield(msg, m) {
				return
			}
		}
	}
}

// merge is the view after a snapshot: the messages of the old view, each as the snapshot has it,
// or as it was if the snapshot doesn't have it (gone counts these), then those that came. What
// comes has higher UIDs than all there was, so numbers stay.
func merge(old, now []*maildir.Message) (msgs []*maildir.Message, gone int) {
	if maildir.StartsWith(now, old) {
		return now, 0
	}
	for _, m := range both(old, now) {
		if m == nil {
			gone++
		}
	}
	if gone == 0 {
		return now, 0
	}
	msgs = make([]*maildir.Message, 0, gone+len(now))
	for msg, m := range both(old, now) {
		if m != nil {
			msg = m
		}
		msgs = append(msgs, msg)
	}
	came, _ := slices.BinarySearchFunc(now, old[len(old)-1].UID+1, byUID)
	return append(msgs, now[came:]...), gone
}

func byUID(msg *maildir.Message, uid imap.UID) int { return cmp.Compare(msg.UID, uid) }

// numRecent counts the messages of the view that are \Recent.
func (v *view) numRecent() uint32 { return uint32(len(v.recent)) }
