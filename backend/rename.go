package backend

import (
	"errors"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/policy"
)

// Rename renames a mailbox and those below it; subscriptions follow. Of INBOX the messages move
// (RFC 9051 6.3.6).
func (s *Session) Rename(from, to string, _ *imap.RenameOptions) (err error) {
	defer s.begin("RENAME")(&err)
	entries, err := s.acct.List()
	if err != nil {
		return err
	}
	sep := string(s.acct.Separator())
	from, to = strings.TrimSuffix(from, sep), strings.TrimSuffix(to, sep)
	inbox := strings.EqualFold(from, "INBOX")
	var disconnect []*maildir.Ref
	found := inbox
	for _, e := range entries {
		if inbox || e.Name != from && !strings.HasPrefix(e.Name, from+sep) {
			continue
		}
		found = true
		if !e.Selectable {
			continue
		}
		ref, err := s.acct.Mailbox(e.Name, maildir.RefOptions{})
		if err != nil {
			return err
		}
		defer ref.Close()
		switch s.policyFor(e.Name).Rename {
		case policy.RenameRefuse:
			if err := s.refuseInUse(ref); err != nil {
				return err // draft 3.1
			}
		case policy.RenameDisconnect:
			disconnect = append(disconnect, ref) // draft 3.3
		}
	}
	if !found {
		return s.missing(from)
	}
	if err := s.acct.Rename(s.ctx, from, to); err != nil {
		return err
	}
	for _, ref := range disconnect {
		var own *maildir.Ref
		if s.isSelected(ref) {
			own = s.sel.Ref
		}
		ref.Disconnect(own, errRenamed)
	}
	return nil
}

// errRenamed is why sessions are disconnected; they are told its text.
var errRenamed = errors.New("mailbox has been renamed")
