package backend

import (
	"github.com/emersion/go-imap/v2"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/policy"
)

// Delete deletes a mailbox with its mail. Mailboxes below it stay.
func (s *Session) Delete(name string) (err error) {
	defer s.begin("DELETE")(&err)
	ref, err := s.mailbox(name, maildir.RefOptions{})
	if err != nil {
		return err
	}
	defer ref.Close()
	strategy := s.policyFor(ref.Name()).Delete
	if strategy == policy.DeleteRefuse {
		if err := s.refuseInUse(ref); err != nil {
			return err // draft 3.1
		}
	}
	own := s.isSelected(ref)
	if own {
		s.sel.own.Store(true) // draft 3.3: the others are disconnected, this session goes on
	}
	err = s.acct.Delete(s.ctx, name, strategy == policy.DeleteGhost)
	if own && (err != nil || s.sel.Deleted()) {
		s.sel.own.Store(false) // draft 3.2: it is there for who has it open
	}
	if err == nil {
		s.acct.forgetMailbox(ref.Snapshot().GUID)
	}
	return err
}

// errInUse answers where a strategy refuses what would disturb other sessions.
var errInUse = no(imap.ResponseCodeInUse, "Mailbox is in use by another session")

func (s *Session) isSelected(ref *maildir.Ref) bool {
	return s.sel != nil && s.sel.Mailbox == ref.Mailbox
}

// refuseInUse returns errInUse if another session, of this process or another, has a mailbox
// selected.
func (s *Session) refuseInUse(ref *maildir.Ref) error {
	if s.isSelected(ref) {
		ref = s.sel.Ref
	}
	used, err := ref.InUse()
	if err == nil && used {
		err = errInUse
	}
	return err
}
