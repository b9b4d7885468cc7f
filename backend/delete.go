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
	if s.policyFor(ref.Name()).Delete == policy.DeleteRefuse && s.others(ref) > 0 {
		return errInUse // draft 3.1
	}
	own := s.isSelected(ref)
	if own {
		s.sel.own.Store(true) // draft 3.3: the others are disconnected, this session goes on
	}
	err = s.acct.Delete(s.ctx, name)
	if own && err != nil {
		s.sel.own.Store(false)
	}
	return err
}

// errInUse answers where a strategy refuses what would disturb other sessions.
var errInUse = no(imap.ResponseCodeInUse, "Mailbox is in use by another session")

func (s *Session) isSelected(ref *maildir.Ref) bool {
	return s.sel != nil && s.sel.Mailbox == ref.Mailbox
}

// others counts the sessions that have a mailbox selected, but for this one.
func (s *Session) others(ref *maildir.Ref) int {
	n := ref.Holders()
	if s.isSelected(ref) && s.sel.Ref != ref {
		n--
	}
	return n
}
