package backend

import (
	"errors"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/policy"
)

// Expunge removes the messages that are \Deleted, of these only uids if they are given. Poll tells
// the client of it. go-imap calls it for CLOSE too, with a writer that writes nothing.
func (s *Session) Expunge(w *imapserver.ExpungeWriter, uids *imap.UIDSet) (err error) {
	command, closing := "EXPUNGE", *w == imapserver.ExpungeWriter{}
	if closing {
		command = "CLOSE"
	}
	defer s.begin(command)(&err)
	if err := s.mayExpunge(); closing && (err == errReadOnly || err == errInUse) {
		return nil // closed without removing anything (RFC 9051 6.4.1, draft 4.1.4)
	} else if err != nil {
		return err
	}
	if s.sel.own.Load() {
		return nil // there is nothing left
	}
	snap, err := s.sel.Sync(s.ctx)
	if closing && errors.Is(err, maildir.ErrGone) {
		return nil
	} else if err != nil {
		return err
	}
	within := func(imap.UID) bool { return true }
	if uids != nil {
		set := *uids
		if imap.IsSearchRes(set) {
			set = s.sel.saved
		}
		places, _, err := s.sel.places(set)
		if err != nil {
			return err
		}
		named := make(map[imap.UID]bool, len(places))
		for _, i := range places {
			named[s.sel.view.msgs[i].UID] = true
		}
		within = func(uid imap.UID) bool { return named[uid] }
	}
	var dead []imap.UID
	for _, msg := range snap.Messages {
		if msg.Flags&maildir.FlagDeleted != 0 && within(msg.UID) {
			dead = append(dead, msg.UID)
		}
	}
	if len(dead) == 0 {
		return nil
	}
	return s.sel.Expunge(s.ctx, dead, maildir.FlagDeleted, s.keepGhosts())
}

// mayExpunge returns why messages can't be removed from the selected mailbox, or nil.
func (s *Session) mayExpunge() error {
	if s.sel.readOnly {
		return errReadOnly
	}
	if s.policy().Expunge == policy.ExpungeRefuse && !s.sel.own.Load() {
		return s.refuseInUse(s.sel.Ref) // draft 4.1.4
	}
	return nil
}

// keepGhosts reports whether expunged messages stay readable for the other sessions until those
// were told (draft 4.1.1, RFC 2180 4.4.2).
func (s *Session) keepGhosts() bool {
	p := s.policy()
	if p.FetchExpunged != policy.FetchGhost && p.CopyExpunged != policy.CopyGhost {
		return false
	}
	used, err := s.sel.InUse()
	return used || err != nil
}
